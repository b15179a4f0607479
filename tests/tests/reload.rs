//! SIGHUP: another configuration while the daemon runs.

mod common;

use std::net::IpAddr;

use common::{PATIENCE, SECOND, answered, becomes, flow, lab, page};
use peer_common::DropReason;
use peer_tests::lab::{
    BEHIND, Download, ECHO_PORT, EchoSocket, GATEWAY, LAN, LAN6, NODE_OVERLAY, PeerEntry, Plan, RouteEntry, RuleEntry,
    wait_for,
};

#[test]
fn peers_routes_and_rules_change_under_traffic() {
    let mut lab = lab(&Plan { clients: 2, ..Plan::default() });
    let peers = lab.node.config.peers.clone();
    page(lab.client(), GATEWAY);
    page(&lab.clients[1], GATEWAY);
    let download = Download::start(&lab.client().namespace, GATEWAY, 1 << 40).expect("download");
    let udp = flow(lab.client(), GATEWAY);
    assert!(answered(&udp, b"permitted"));

    // The rules let TCP through only, and the second member is gone.
    lab.node.config.rules = vec![RuleEntry::new("accept", "tcp", &[LAN, LAN6], &[])];
    lab.node.config.peers.truncate(1);
    let said = lab.node.reload().expect("reload");
    assert!(said[0].contains("0 added, 1 removed, 0 changed"), "{said:?}");
    assert!(!udp.ask(b"revoked", SECOND / 2).expect("send"));
    assert!(lab.node.dropped(DropReason::PolicyDefault).expect("metrics") >= 1.0);
    let other = flow(&lab.clients[1], GATEWAY);
    assert!(!other.ask(b"a stranger by now", SECOND).expect("send"));
    assert_eq!(lab.node.status().expect("status")["peers"].as_array().map(Vec::len), Some(1));

    // All of it comes back, and another peer with a network of its own, which the node reaches by a new route.
    let network = "10.77.0.0/24";
    let stranger = PeerEntry {
        public_key: "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=".to_owned(),
        allowed_ips: vec![network.to_owned()],
        ..PeerEntry::default()
    };
    lab.node.config.peers = [peers, vec![stranger]].concat();
    lab.node.config.rules = vec![RuleEntry::new("accept", "any", &[LAN, LAN6, "203.0.113.0/24"], &[])];
    let said = lab.node.reload().expect("reload");
    assert!(said[0].contains("2 added, 0 removed"), "{said:?}");
    assert!(answered(&udp, b"permitted again"));
    // Its side still believes in the session of before, for a quarter of a minute.
    let member = &lab.clients[1];
    member.configure(member.node_endpoint()).expect("wg");
    assert!(wait_for(PATIENCE, || other.ask(b"a member again", SECOND).expect("send")));
    let routes = || lab.node.namespace.exec("ip", &["route", "show", "dev", "wt0"]).expect("ip");
    assert!(routes().contains(network), "{}", routes());

    let stall = download.stop().expect("every byte was right");
    assert!(stall < SECOND * 5, "the download stood still for {stall:?}");
}

#[test]
fn a_route_comes_and_goes_and_an_address_of_the_node_changes() {
    let mut lab = lab(&Plan::default());
    let behind = EchoSocket::open(&lab.client().namespace, (BEHIND, ECHO_PORT).into()).expect("socket");
    lab.gateway.open_echo(BEHIND, ECHO_PORT).expect("echo");
    assert!(answered(&behind, b"routed"));
    let routes = lab.node.config.routes.clone();
    lab.node.config.routes.retain(|route| !route.destination.starts_with("203.0.113."));
    lab.node.reload().expect("reload");
    let before = lab.node.dropped(DropReason::NoRoute).expect("metrics");
    assert!(!behind.ask(b"not any more", SECOND / 2).expect("send"));
    becomes(before + 1.0, || lab.node.dropped(DropReason::NoRoute).expect("metrics"));
    lab.node.config.routes = routes;
    lab.node.reload().expect("reload");
    assert!(answered(&behind, b"and again"));

    let other: IpAddr = "100.64.0.99".parse().expect("an address");
    lab.node.config.addresses = vec![format!("{other}/24")];
    lab.node.config.routes = vec![RouteEntry::masqueraded(LAN)];
    lab.node.reload().expect("reload");
    let status = lab.node.status().expect("status");
    assert_eq!(status["interface"]["addresses"], serde_json::json!(["100.64.0.99/24"]));
    let shown = lab.node.namespace.exec("ip", &["address", "show", "dev", "wt0"]).expect("ip");
    assert!(shown.contains("100.64.0.99/24") && !shown.contains(&format!("{NODE_OVERLAY}/")), "{shown}");
    page(lab.client(), GATEWAY);
}

#[test]
fn what_cannot_be_used_changes_nothing_and_is_named() {
    let mut lab = lab(&Plan::default());
    page(lab.client(), GATEWAY);
    let good = lab.node.config.clone();
    lab.node.config.rules[0].destinations = vec!["10.0.0.0/40".to_owned()];
    let said = lab.node.reload().expect("reload");
    assert!(said[0].contains("not reloaded") && said[0].contains("rule[0].destinations[0]"), "{said:?}");
    lab.node.config = good.clone();
    lab.node.config.mtu = 1300;
    lab.node.config.rules.clear();
    let said = lab.node.reload().expect("reload");
    assert!(said[0].contains("not reloaded") && said[0].contains("interface.mtu"), "{said:?}");
    page(lab.client(), GATEWAY);
    lab.node.config = good;
    assert!(lab.node.reload().expect("reload")[0].contains("0 added, 0 removed, 0 changed"));
    page(lab.client(), GATEWAY);
}
