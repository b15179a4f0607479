//! Packets that somebody on the LAN forges in a server's name: they end nobody's connection.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use common::{SECOND, goes_on, lab, tell};
use peer_tests::lab::{Client, Datagram, Download, GATEWAY, GATEWAY6, Lab, Plan, forge_towards, run, wait_for};
use serde_json::Value;

const FIN_ACK: u8 = 0x11;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const RST_ACK: u8 = 0x14;
/// So many of each kind, with sequence numbers spread over all that there are.
const FORGED: u32 = 2000;
const PORT: u16 = 7420;
/// More than a scenario can load.
const ENDLESS: u64 = 1 << 40;

/// A connection of a member through the node: its end, the server's, and the member as the server sees it.
struct Connection {
    member: TcpStream,
    server: TcpStream,
    seen: SocketAddr,
}

impl Connection {
    fn open(lab: &Lab, client: &Client, at: IpAddr) -> Self {
        let listener = lab.gateway.namespace.enter(|| TcpListener::bind((at, PORT))).expect("a free port");
        let member = client.namespace.enter(|| TcpStream::connect((at, PORT))).expect("connect");
        let (server, seen) = listener.accept().expect("accept");
        for end in [&member, &server] {
            end.set_read_timeout(Some(SECOND * 5)).expect("a socket");
        }
        Self { member, server, seen }
    }

    /// Both ends hear each other.
    #[track_caller]
    fn talk(&mut self) {
        let mut byte = [0];
        self.member.write_all(b"?").expect("the member sends");
        self.server.read_exact(&mut byte).expect("the server hears");
        self.server.write_all(b"!").expect("the server answers");
        self.member.read_exact(&mut byte).expect("the member hears");
    }
}

fn state(lab: &Lab, at: IpAddr) -> String {
    let arguments = ["--json", "--protocol", "tcp", "--port", &PORT.to_string(), "--address", &at.to_string()];
    let shown = run(&mut lab.node.flows_command(&arguments)).expect("flows").stdout;
    let flows: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(flows.len(), 1, "{shown}");
    flows[0]["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn forged_resets_ends_and_opens_end_no_connection() {
    let lab = lab(&Plan { clients: 2, ..Plan::default() });
    let (victim, other) = (&lab.clients[0], &lab.clients[1]);
    for at in [GATEWAY, GATEWAY6] {
        let mut idle = Connection::open(&lab, victim, at);
        idle.talk();
        assert_eq!(state(&lab, at), "established");
        let download = Download::start(&other.namespace, at, ENDLESS).expect("download");
        let forged: Vec<Vec<u8>> = [RST, RST_ACK, FIN_ACK, SYN]
            .into_iter()
            .flat_map(|flags| (0..FORGED).map(move |number| (flags, number * (u32::MAX / FORGED))))
            .map(|(flags, sequence)| {
                Datagram::tcp((at, PORT), (idle.seen.ip(), idle.seen.port()), sequence, flags)
                    .bytes()
                    .expect("one family")
            })
            .collect();
        let counted = || lab.node.metric("peer_packets_total", &[("path", "tcp_out_of_window")]).expect("metrics");
        let before = counted();
        forge_towards(&lab.gateway.namespace, "eth0", &lab.node.namespace, "eth0", &forged).expect("send");
        // Resets at least: ends and opens may be refused as part of the window.
        assert!(wait_for(SECOND * 5, || counted() - before >= f64::from(FORGED)), "{} of them", counted() - before);
        assert_eq!(state(&lab, at), "established", "what was forged marks nothing");
        idle.talk();
        assert_eq!(state(&lab, at), "established");
        goes_on(other, at);
        assert!(download.received() > 0);
        download.stop().expect("every byte was right");
        tell(&format!("{} of {} forged segments did not count", counted() - before, forged.len()));
        // A genuine one counts.
        drop(idle);
        assert!(wait_for(SECOND * 5, || state(&lab, at) == "closing"), "{}", state(&lab, at));
    }
}
