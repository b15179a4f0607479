//! With a client of another project, over a day of virtual time.

use turn_client_proto::api::{TurnClientApi as _, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::udp::TurnClientUdp;
use turn_types::prelude::DelayedTransmitBuild as _;
use turn_types::stun::TransportType;
use turn_types::{Instant as ClientInstant, TurnCredentials};

use super::*;

/// The client's clock starts at zero with the server's.
struct Session {
    bench: Bench,
    client: TurnClientUdp,
    passed: Duration,
    events: Vec<TurnEvent>,
    /// Requests of the client are lost.
    lost: bool,
}

fn server() -> SocketAddr {
    ([192, 0, 2, 254], 3478).into()
}

impl Session {
    fn new(bench: Bench) -> Self {
        let Credentials { user, password } = &bench.credentials;
        let config = TurnConfig::new(TurnCredentials::new(user, password));
        let client = TurnClientUdp::allocate(client(1), server(), config);
        Self { bench, client, passed: Duration::ZERO, events: Vec::new(), lost: false }
    }

    fn clock(&self) -> ClientInstant {
        ClientInstant::ZERO + self.passed
    }

    /// Exchanges datagrams until the client waits; returns how long it wants to.
    fn settle(&mut self) -> Option<Duration> {
        loop {
            let next = self.client.poll(self.clock());
            while let Some(transmit) = self.client.poll_transmit(self.clock()) {
                let datagram = transmit.data.to_vec();
                if let (false, Some(Output::ToClient(answer))) = (self.lost, self.bench.send(client(1), &datagram)) {
                    self.receive(&answer);
                }
            }
            while let Some(event) = self.client.poll_event() {
                self.events.push(event);
            }
            match next {
                TurnPollRet::WaitUntil(until) if until > self.clock() => {
                    return Some(until.duration_since(self.clock()));
                }
                TurnPollRet::Closed => return None,
                _ => {}
            }
        }
    }

    fn receive(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        let transmit = turn_client_proto::api::Transmit::new(datagram, TransportType::Udp, server(), client(1));
        match self.client.recv(transmit, self.clock()) {
            TurnRecvRet::PeerData(data) => Some(data.data().to_vec()),
            _ => None,
        }
    }

    /// Lets time pass, looking at each of the client's deadlines. `false`: the client has given up.
    fn pass(&mut self, seconds: u64) -> bool {
        let end = self.passed + Duration::from_secs(seconds);
        while let Some(wait) = self.settle() {
            let step = wait.min(end - self.passed);
            if step.is_zero() {
                return true;
            }
            self.passed += step;
            self.bench.now.instant += step;
            self.bench.now.wall += step;
            self.bench.server.handle_timeout(self.bench.now, &mut self.bench.ports);
        }
        self.bench.advance((end - self.passed).as_secs());
        self.passed = end;
        false
    }

    /// Both directions with a peer.
    fn talks(&mut self) -> bool {
        let clock = self.clock();
        let sent = self.client.send_to(TransportType::Udp, peer(1), b"out".to_vec(), clock);
        let sent = sent.ok().flatten().map(|transmit| transmit.data.build());
        let out = sent.and_then(|datagram| self.bench.send(client(1), &datagram)) == to_peer(1, b"out");
        let back = self.bench.hear_peer(peer(1), b"in").and_then(|(_, datagram)| self.receive(&datagram));
        out && back.as_deref() == Some(b"in")
    }
}

fn allocated() -> Session {
    let mut session = Session::new(Bench::new());
    assert!(session.pass(1));
    let relayed_address: Vec<_> = session.client.relayed_addresses().collect();
    assert_eq!(relayed_address, [(TransportType::Udp, relayed(1))], "{:?}", session.events);
    session
}

#[test]
fn it_relays_for_a_day_by_permission_and_by_channel() {
    for channel in [false, true] {
        let mut session = allocated();
        assert!(!session.talks(), "no permission");
        if channel {
            session.client.bind_channel(TransportType::Udp, peer(1), session.clock()).expect("channel");
        } else {
            session.client.create_permission(TransportType::Udp, peer(1).ip(), session.clock()).expect("permission");
        }
        for hour in 0..23 {
            assert!(session.pass(3600) && session.talks(), "hour {hour}, channel {channel}: {:?}", session.events);
        }
        let seen = session.bench.server.seen().clone();
        assert!(seen.allocations == 1 && seen.refreshes > 20 && seen.errors[&438] > 20, "{seen:?}");
        assert_eq!((seen.to_peers, seen.to_clients), (23, 23));
        assert_eq!(seen.channels > 0, channel);
    }
}

#[test]
fn it_follows_a_new_nonce() {
    let mut session = allocated();
    session.client.create_permission(TransportType::Udp, peer(1).ip(), session.clock()).expect("permission");
    session.bench.server.expire_nonces(session.bench.now);
    assert!(session.pass(1) && session.talks(), "{:?}", session.events);
    assert_eq!(session.bench.server.seen().errors, BTreeMap::from([(401, 1), (438, 1)]));
}

#[test]
fn it_loses_an_allocation_that_the_server_forgets_or_cannot_hear_of() {
    let mut session = allocated();
    let Bench { server, ports, .. } = &mut session.bench;
    server.forget_allocations(ports);
    let failed = session.client.create_permission(TransportType::Udp, peer(1).ip(), session.clock());
    assert!(failed.is_ok());
    session.pass(60);
    assert!(!session.talks());
    assert!(session.bench.server.seen().errors.contains_key(&437), "{:?}", session.bench.server.seen());
    let mut session = allocated();
    session.lost = true;
    session.pass(3600);
    assert!(session.bench.server.relayed().is_empty());
}

#[test]
fn it_gets_nowhere_with_credentials_of_another_secret() {
    let mut bench = Bench::new();
    bench.credentials = Credentials::issue("another", bench.now.wall + Duration::from_secs(60));
    let mut session = Session::new(bench);
    assert!(!session.pass(60), "{:?}", session.events);
    assert!(session.client.relayed_addresses().next().is_none());
    let errors: Vec<_> = session.bench.server.seen().errors.keys().collect();
    assert_eq!(errors, [&401]);
}
