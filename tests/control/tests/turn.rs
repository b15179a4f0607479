//! The TURN server over real sockets, with a client of another project.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use peer_test_control::TurnServer;
use peer_test_control::turn::Credentials;
use turn_client_proto::api::{Transmit, TurnClientApi as _, TurnConfig, TurnEvent, TurnRecvRet};
use turn_client_proto::udp::TurnClientUdp;
use turn_types::prelude::DelayedTransmitBuild as _;
use turn_types::stun::TransportType;
use turn_types::{AddressFamily, Instant as ClientInstant, TurnCredentials};

const SECRET: &str = "t";
/// For what should come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client on its socket.
struct Client {
    turn: TurnClientUdp,
    socket: UdpSocket,
    start: Instant,
}

impl Client {
    fn new(server: &TurnServer) -> Self {
        let socket = UdpSocket::bind((server.address().ip(), 0)).expect("client");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("timeout");
        Self { turn: machine(&socket, server), socket, start: Instant::now() }
    }

    fn now(&self) -> ClientInstant {
        ClientInstant::ZERO + self.start.elapsed()
    }

    /// Runs until an event or data of a peer makes `wanted` return something.
    fn run<T>(&mut self, mut wanted: impl FnMut(Option<TurnEvent>, Option<(SocketAddr, Vec<u8>)>) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 2048];
        while Instant::now() < deadline {
            self.turn.poll(self.now());
            while let Some(transmit) = self.turn.poll_transmit(self.now()) {
                self.socket.send_to(&transmit.data, transmit.to).expect("send");
            }
            while let Some(event) = self.turn.poll_event() {
                if let Some(found) = wanted(Some(event), None) {
                    return found;
                }
            }
            let Ok((length, from)) = self.socket.recv_from(&mut buffer) else { continue };
            let local = self.socket.local_addr().expect("address");
            let transmit = Transmit::new(&buffer[..length], TransportType::Udp, from, local);
            if let TurnRecvRet::PeerData(data) = self.turn.recv(transmit, self.now())
                && let Some(found) = wanted(None, Some((data.peer, data.data().to_vec())))
            {
                return found;
            }
        }
        panic!("nothing came");
    }

    fn allocated(&mut self) -> SocketAddr {
        self.run(|event, _| match event {
            Some(TurnEvent::AllocationCreated(_, relayed)) => Some(relayed),
            Some(event) => panic!("{event:?}"),
            None => None,
        })
    }

    fn send(&mut self, to: SocketAddr, data: &[u8]) {
        let transmit = self.turn.send_to(TransportType::Udp, to, data.to_vec(), self.now()).expect("permitted");
        let transmit = transmit.expect("a datagram");
        self.socket.send_to(&transmit.data.build(), transmit.to).expect("send");
    }
}

fn machine(socket: &UdpSocket, server: &TurnServer) -> TurnClientUdp {
    let Credentials { user, password } = Credentials::issue(SECRET, SystemTime::now() + Duration::from_secs(3600));
    let mut config = TurnConfig::new(TurnCredentials::new(&user, &password));
    if server.address().is_ipv6() {
        config.set_address_family(AddressFamily::IPV6);
    }
    TurnClientUdp::allocate(socket.local_addr().expect("address"), server.address(), config)
}

fn server(host: &str) -> (TurnServer, UdpSocket) {
    let host: IpAddr = host.parse().expect("address");
    let server = TurnServer::start((host, 0).into(), &[host], SECRET, UdpSocket::bind).expect("server");
    let peer = UdpSocket::bind((host, 0)).expect("peer");
    peer.set_read_timeout(Some(PATIENCE)).expect("timeout");
    (server, peer)
}

#[test]
fn it_relays_both_ways_in_both_families() {
    for (host, channel) in [("127.0.0.1", false), ("127.0.0.1", true), ("::1", false), ("::1", true)] {
        let (server, peer) = server(host);
        let mut client = Client::new(&server);
        let relayed = client.allocated();
        assert_eq!(server.relayed().into_values().collect::<Vec<_>>(), [relayed]);
        let peer_address = peer.local_addr().expect("address");
        let now = client.now();
        if channel {
            client.turn.bind_channel(TransportType::Udp, peer_address, now).expect("channel");
        } else {
            client.turn.create_permission(TransportType::Udp, peer_address.ip(), now).expect("permission");
        }
        client.run(|event, _| {
            let created = matches!(event, Some(TurnEvent::PermissionCreated(..) | TurnEvent::ChannelCreated(..)));
            created.then_some(())
        });
        client.send(peer_address, b"out");
        let mut buffer = [0; 100];
        let (length, from) = peer.recv_from(&mut buffer).expect("relayed");
        assert_eq!((&buffer[..length], from), (&b"out"[..], relayed));
        peer.send_to(b"in", relayed).expect("send");
        assert_eq!(client.run(|_, data| data), (peer_address, b"in".to_vec()));
        let seen = server.seen();
        assert_eq!((seen.to_peers, seen.to_clients, seen.channels > 0), (1, 1, channel), "{host} {seen:?}");
    }
}

#[test]
fn what_expires_closes_its_socket() {
    let (server, _) = server("127.0.0.1");
    let relayed = Client::new(&server).allocated();
    assert!(UdpSocket::bind(relayed).is_err(), "the server is there");
    // Longer than any lifetime that a client may ask for.
    server.skip(Duration::from_secs(3601));
    let deadline = Instant::now() + PATIENCE;
    while UdpSocket::bind(relayed).is_err() {
        assert!(Instant::now() < deadline, "still open: {:?}", server.relayed());
        std::thread::yield_now();
    }
}

#[test]
fn a_socket_used_before_is_refused_until_the_server_forgets() {
    let (mut server, _) = server("127.0.0.1");
    let mut client = Client::new(&server);
    let first = client.allocated();
    // A client that starts anew on its old port.
    client.turn = machine(&client.socket, &server);
    client.run(|event, _| matches!(event, Some(TurnEvent::AllocationCreateFailed(_))).then_some(()));
    assert!(server.seen().errors.contains_key(&437), "{:?}", server.seen());
    server.kill();
    assert!(server.relayed().is_empty());
    UdpSocket::bind(first).expect("closed with the server");
    server.resume().expect("again");
    client.turn = machine(&client.socket, &server);
    client.allocated();
}
