//! Members reach the LAN, and the node reaches members.

mod common;

use std::thread;

use common::{PATIENCE, SECOND, flow, lab, page, tell};
use peer_tests::lab::{
    BEHIND, BEHIND6, Capabilities, Download, ECHO_PORT, EchoSocket, GATEWAY, GATEWAY6, NODE_LAN, NODE_LAN6,
    NODE_OVERLAY, NODE_OVERLAY6, Outer, Plan, ping,
};

#[test]
fn two_members_at_once() {
    let lab = lab(&Plan { clients: 2, ..Plan::default() });
    thread::scope(|scope| {
        for client in &lab.clients {
            scope.spawn(|| {
                assert_eq!(page(client, GATEWAY), format!("Hello from the LAN, {NODE_LAN}\n"));
                let download = Download::start(&client.namespace, GATEWAY, 20_000_000).expect("download");
                assert!(ping(&client.namespace, GATEWAY, 5, SECOND).expect("ping").all_answered());
                download.finish().expect("whole");
            });
        }
    });
    let [one, other] = [0, 1].map(|index| flow(&lab.clients[index], GATEWAY));
    assert!(one.ask(b"one", SECOND).expect("send") && other.ask(b"other", SECOND).expect("send"));
    let (one, other) = (lab.gateway.senders_of(b"one"), lab.gateway.senders_of(b"other"));
    assert_eq!((one.len(), other.len()), (1, 1));
    assert_eq!((one[0].ip(), other[0].ip()), (NODE_LAN, NODE_LAN));
}

#[test]
fn two_members_with_the_same_port_share_the_node_s_address() {
    let lab = lab(&Plan { clients: 2, ..Plan::default() });
    for (client, content) in lab.clients.iter().zip([b"first", b"again"]) {
        let socket = EchoSocket::open_at(&client.namespace, 4444, (GATEWAY, ECHO_PORT).into()).expect("socket");
        assert!(socket.ask(content, SECOND * 2).expect("send"));
    }
    let senders = [b"first", b"again"].map(|content| lab.gateway.senders_of(content)[0]);
    assert_ne!(senders[0], senders[1], "each flow has a port of its own");
}

#[test]
fn ipv6_through_and_through() {
    let lab = lab(&Plan { outer: Outer::V6, ..Plan::default() });
    assert!(lab.client().node_endpoint().is_ipv6());
    for (service, node) in [(GATEWAY6, NODE_LAN6), (GATEWAY, NODE_LAN)] {
        assert_eq!(page(lab.client(), service), format!("Hello from the LAN, {node}\n"));
        assert!(ping(&lab.client().namespace, service, 3, SECOND).expect("ping").all_answered(), "{service}");
        assert!(flow(lab.client(), service).ask(b"by UDP", SECOND).expect("send"), "{service}");
    }
    let download = Download::start(&lab.client().namespace, GATEWAY6, 20_000_000).expect("download");
    download.finish().expect("whole");
    assert_eq!(lab.node.kernel_forwarded().expect("counters"), 0);
}

#[test]
fn a_service_behind_a_next_hop() {
    let lab = lab(&Plan { capabilities: Capabilities::Deployed, ..Plan::default() });
    for (service, node) in [(BEHIND, NODE_LAN), (BEHIND6, NODE_LAN6)] {
        assert_eq!(page(lab.client(), service), format!("Hello from the LAN, {node}\n"));
    }
}

#[test]
fn a_member_roams_to_a_new_port() {
    let lab = lab(&Plan::default());
    let member = lab.client();
    let socket = flow(member, GATEWAY);
    assert!(socket.ask(b"before", SECOND * 2).expect("send"));
    let handshake = member.latest_handshake().expect("wg");
    let download = Download::start(&member.namespace, GATEWAY, 60_000_000).expect("download");
    for port in [40_001, 40_002] {
        member.roam(port).expect("wg");
        let content = format!("from {port}");
        assert!(socket.ask(content.as_bytes(), PATIENCE).expect("send"), "{content}");
        assert_eq!(lab.gateway.senders_of(content.as_bytes()).len(), 1);
    }
    let stall = download.finish().expect("whole");
    tell(&format!("roaming twice in a download: longest stall {:.2} s", stall.as_secs_f64()));
    assert_eq!(member.latest_handshake().expect("wg"), handshake, "the session went on");
    let senders = [&b"before"[..], b"from 40002"].map(|content| lab.gateway.senders_of(content)[0]);
    assert_eq!(senders[0], senders[1], "and so did the flow");
}

#[test]
fn the_node_pings_a_member() {
    let lab = lab(&Plan::default());
    let member = lab.client();
    page(member, GATEWAY);
    for target in [member.overlay(), member.overlay6()] {
        let pings = ping(&lab.node.namespace, target, 3, SECOND).expect("ping");
        assert!(pings.all_answered(), "{target}: {pings:?}");
    }
    for target in [NODE_OVERLAY, NODE_OVERLAY6] {
        let pings = ping(&member.namespace, target, 1, SECOND / 2).expect("ping");
        assert_eq!(pings.round_trips.len(), 0, "the other way no rule accepts");
    }
    let from_node = lab.node.metric("peer_packets_total", &[("path", "from_node")]).expect("metrics");
    assert!(from_node >= 6.0, "{from_node}");
}
