//! Who must not get in, or not twice, or not under another name.

mod common;

use std::net::{IpAddr, Ipv4Addr};

use common::{PATIENCE, SECOND, becomes, flow, lab, page};
use peer_tests::lab::{
    Binaries, Client, Datagram, ECHO_PORT, EchoSocket, GATEWAY, GATEWAY6, KeyPair, Lab, NODE_LAN, Plan, Relay, forge,
    preshared_key, wait_for,
};

#[test]
fn a_wrong_private_key_gets_no_session() {
    let mut lab = prepared();
    lab.node.config.peers[0].public_key = KeyPair::generate().expect("wg").public;
    lab.up().expect("up");
    no_session(&lab, "unknown_peer");
}

#[test]
fn a_wrong_preshared_key_gets_no_session() {
    let mut lab = prepared();
    lab.node.config.peers[0].preshared_key = Some(preshared_key().expect("wg"));
    lab.up().expect("up");
    let asked = flow(lab.client(), GATEWAY).ask_within(b"with a wrong key", SECOND * 2).expect("send");
    assert!(!asked, "nothing passes");
    assert_eq!(lab.client().latest_handshake().expect("wg"), 0, "the member cannot read the answer");
    let data = lab.node.metric("peer_wireguard_packets_total", &[("direction", "received")]).expect("metrics");
    assert_eq!(data, 0.0);
    assert_eq!(lab.gateway.senders_of(b"with a wrong key"), []);
}

#[test]
fn a_member_that_believes_in_another_node_gets_no_session() {
    let mut lab = prepared();
    lab.node.config.private_key = KeyPair::generate().expect("wg").private;
    lab.up().expect("up");
    no_session(&lab, "bad_mac");
}

#[test]
fn a_replayed_datagram_is_dropped_and_counted() {
    let lab = lab(&Plan::default());
    let relay = Relay::start(&lab.client().namespace, lab.client().node_endpoint()).expect("relay");
    lab.client().configure(relay.address()).expect("wg");
    let socket = flow(lab.client(), GATEWAY);
    assert!(socket.ask(b"once", PATIENCE).expect("send"));
    let before = lab.node.refused("replay").expect("metrics");
    let captured = relay.captured();
    let data: Vec<_> = captured.iter().filter(|datagram| datagram.first() == Some(&4)).collect();
    assert!(!data.is_empty(), "a transport datagram was captured");
    for datagram in &data {
        relay.send(datagram).expect("send");
    }
    becomes(before + data.len() as f64, || lab.node.refused("replay").expect("metrics"));
    let stale = lab.node.refused("stale_initiation").expect("metrics");
    let initiation = captured.iter().rfind(|datagram| datagram.first() == Some(&1)).expect("an initiation");
    relay.send(initiation).expect("send");
    becomes(stale + 1.0, || lab.node.refused("stale_initiation").expect("metrics"));
    assert!(socket.ask(b"the session lives", SECOND * 2).expect("send"));
    assert_eq!(lab.gateway.senders_of(b"once").len(), 1, "the service saw one");
}

#[test]
fn a_spoofed_source_is_dropped_and_counted() {
    let lab = lab(&Plan { clients: 2, ..Plan::default() });
    let (spoofer, victim) = (&lab.clients[0], &lab.clients[1]);
    page(spoofer, GATEWAY);
    page(victim, GATEWAY);
    let before = lab.node.refused("foreign_source").expect("metrics");
    let stranger = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
    let packets = [
        Datagram::udp((victim.overlay(), 4000), (GATEWAY, ECHO_PORT), b"spoofed"),
        Datagram::udp((victim.overlay6(), 4000), (GATEWAY6, ECHO_PORT), b"spoofed"),
        Datagram::udp((stranger, 4000), (GATEWAY, ECHO_PORT), b"spoofed"),
    ];
    forge(&spoofer.namespace, "wg0", &packets).expect("send");
    becomes(before + 3.0, || lab.node.refused("foreign_source").expect("metrics"));
    let honest = Datagram::udp((spoofer.overlay(), 4000), (GATEWAY, ECHO_PORT), b"honest");
    forge(&spoofer.namespace, "wg0", &[honest]).expect("send");
    assert!(wait_for(SECOND * 2, || lab.gateway.senders_of(b"honest").len() == 1), "the forger itself works");
    assert_eq!(lab.gateway.senders_of(b"spoofed"), []);
}

#[test]
fn garbage_on_the_listen_port_is_counted_and_harmless() {
    let lab = lab(&Plan::default());
    let member = lab.client();
    let socket = flow(member, GATEWAY);
    assert!(socket.ask(b"before", SECOND * 2).expect("send"));
    let before = received_badly(&lab);
    let garbage = garbage();
    let sender = EchoSocket::open(&member.namespace, member.node_endpoint()).expect("socket");
    for datagram in &garbage {
        sender.send(datagram).expect("send");
    }
    becomes(before + garbage.len() as f64, || received_badly(&lab));
    assert!(socket.ask(b"after", SECOND * 2).expect("send"), "the session lives");
    assert_eq!(lab.node.probe("/livez").expect("answer").0, 200);
    assert_eq!(lab.gateway.senders_of(b"after")[0].ip(), NODE_LAN);
}

/// Every message type with lengths that it has and lengths that it has not, and what is no message at all.
fn garbage() -> Vec<Vec<u8>> {
    let mut datagrams = vec![vec![0], vec![0xff; 3], b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0x55; 1400]];
    for kind in 0..=5_u8 {
        for length in [4, 31, 32, 64, 92, 147, 148, 149, 1000] {
            let mut datagram = vec![kind; length];
            datagram[1..4].fill(0);
            datagrams.push(datagram);
        }
    }
    datagrams
}

fn received_badly(lab: &Lab) -> f64 {
    lab.node.metric("peer_wireguard_datagrams_dropped_total", &[]).expect("metrics")
}

fn prepared() -> Lab {
    Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab")
}

fn no_session(lab: &Lab, reason: &str) {
    let member: &Client = lab.client();
    let asked = flow(member, GATEWAY).ask_within(b"let me in", SECOND * 2).expect("send");
    assert!(!asked, "nothing passes");
    assert_eq!(member.latest_handshake().expect("wg"), 0);
    assert!(wait_for(SECOND * 5, || lab.node.refused(reason).expect("metrics") >= 1.0), "{reason} is counted");
    assert_eq!(lab.gateway.senders_of(b"let me in"), []);
}
