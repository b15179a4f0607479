use super::*;
use crate::model::{RouteTarget, Rules};

use peer_core::desired::{Action, PortRange, Protocol};
use peer_core::key::PublicKey;
use wire::port_info::{Range, Selection};

fn port_info(selection: Option<Selection>) -> Option<wire::PortInfo> {
    Some(wire::PortInfo { selection })
}

fn range(start: u32, end: u32) -> Option<wire::PortInfo> {
    port_info(Some(Selection::Range(Range { start, end })))
}

fn rule(port: &str, info: Option<wire::PortInfo>, action: wire::RuleAction) -> wire::FirewallRule {
    wire::FirewallRule {
        peer_ip: "100.64.0.2".into(),
        action: action.into(),
        protocol: wire::RuleProtocol::Tcp.into(),
        port: port.into(),
        port_info: info,
        ..Default::default()
    }
}

/// Ports of a rule that was understood.
fn ports(rule: wire::FirewallRule) -> Option<Option<(u16, u16)>> {
    let map = NetworkMap::from(wire::NetworkMap { firewall_rules: vec![rule], ..Default::default() });
    let Rules::List(rules) = &map.peer_rules else { panic!("not legacy") };
    assert_eq!(map.skipped.peer_rules as usize, 1 - rules.len());
    rules.first().map(|rule| rule.matcher.ports.map(|PortRange { min, max }| (min, max)))
}

#[test]
fn ports_are_those_of_the_selection_then_of_the_text_then_all() {
    let accept = wire::RuleAction::Accept;
    let cases = [
        ("", None, Some(None)),
        ("", port_info(None), Some(None)),
        ("", range(0, 0), Some(None)),
        ("", port_info(Some(Selection::Port(0))), Some(None)),
        ("80", None, Some(Some((80, 80)))),
        ("80", range(0, 0), Some(Some((80, 80)))),
        ("80", range(1000, 2000), Some(Some((1000, 2000)))),
        ("", port_info(Some(Selection::Port(443))), Some(Some((443, 443)))),
        ("", range(0, 10), Some(Some((0, 10)))),
        ("", range(10, 0), None),
        ("", range(2000, 1000), None),
        ("", range(1, 65_536), None),
        ("", port_info(Some(Selection::Port(65_536))), None),
        ("http", None, None),
        ("80-90", None, None),
        ("-1", None, None),
    ];
    for (text, info, expected) in cases {
        assert_eq!(ports(rule(text, info, accept)), expected, "{text:?} {info:?}");
        // What permits nothing for being invalid forbids everything.
        let drop = ports(rule(text, info, wire::RuleAction::Drop));
        assert_eq!(drop, Some(expected.flatten()), "{text:?} {info:?}");
    }
}

#[test]
fn unknown_values_skip_their_rule_only() {
    let good = rule("", None, wire::RuleAction::Accept);
    let bad = |change: fn(&mut wire::FirewallRule)| {
        let mut rule = good.clone();
        change(&mut rule);
        rule
    };
    let firewall_rules = vec![
        bad(|rule| rule.protocol = 0),
        bad(|rule| rule.protocol = wire::RuleProtocol::Custom.into()),
        bad(|rule| rule.protocol = wire::RuleProtocol::NetbirdSsh.into()),
        bad(|rule| rule.protocol = 77),
        bad(|rule| rule.action = 2),
        bad(|rule| rule.direction = 2),
        bad(|rule| rule.peer_ip = "100.64.0.2/32".into()),
        bad(|rule| rule.source_prefixes = vec![vec![1, 2, 3]]),
        good.clone(),
    ];
    let map = NetworkMap::from(wire::NetworkMap { firewall_rules, ..Default::default() });
    let Rules::List(rules) = &map.peer_rules else { panic!("not legacy") };
    assert_eq!((rules.len(), map.skipped.peer_rules, map.skipped.total()), (1, 8, 8));
}

#[test]
fn outbound_rules_are_not_heard_and_not_counted() {
    let mut out = rule("", None, wire::RuleAction::Drop);
    out.direction = wire::RuleDirection::Out.into();
    let map = NetworkMap::from(wire::NetworkMap { firewall_rules: vec![out], ..Default::default() });
    assert_eq!((map.peer_rules, map.skipped.total()), (Rules::List(Vec::new()), 0));
}

#[test]
fn old_servers_are_known_by_an_empty_list_without_its_flag() {
    let map = |peers, routes| {
        let map = NetworkMap::from(wire::NetworkMap {
            firewall_rules_is_empty: peers,
            routes_firewall_rules_is_empty: routes,
            ..Default::default()
        });
        (map.peer_rules == Rules::Legacy, map.route_rules == Rules::Legacy)
    };
    assert_eq!(map(false, false), (true, true));
    assert_eq!(map(true, false), (false, true));
    assert_eq!(map(false, true), (true, false));
    // A list of which nothing is understood is no empty one.
    let unknown = wire::NetworkMap {
        firewall_rules: vec![wire::FirewallRule::default()],
        routes_firewall_rules: vec![wire::RouteFirewallRule::default()],
        ..Default::default()
    };
    let map = NetworkMap::from(unknown);
    assert_eq!((map.peer_rules, map.route_rules), (Rules::List(Vec::new()), Rules::List(Vec::new())));
}

#[test]
fn source_prefixes_go_before_the_old_address_and_their_length_is_disregarded() {
    let mut rule = rule("", None, wire::RuleAction::Accept);
    rule.source_prefixes = vec![vec![10, 0, 0, 9, 8], vec![10, 0, 0, 10, 32]];
    let map = NetworkMap::from(wire::NetworkMap { firewall_rules: vec![rule], ..Default::default() });
    let Rules::List(rules) = &map.peer_rules else { panic!("not legacy") };
    assert_eq!(rules[0].source, "10.0.0.9/32".parse().expect("a prefix"));
}

#[test]
fn peers_are_taken_once_and_by_valid_keys() {
    let key = PublicKey([7; 32]).to_string();
    let peer = |key: &str, ips: &[&str]| wire::RemotePeerConfig {
        wg_pub_key: key.into(),
        allowed_ips: ips.iter().map(|&text| text.into()).collect(),
        ..Default::default()
    };
    let remote_peers = vec![peer(&key, &["100.64.0.2/32", "x", "fd00::2/128"]), peer(&key, &[]), peer("no key", &[])];
    let map = NetworkMap::from(wire::NetworkMap { remote_peers: remote_peers.clone(), ..Default::default() });
    assert_eq!((map.peers.len(), map.peers[0].allowed_ips.len()), (1, 2));
    assert_eq!((map.skipped.peers, map.skipped.addresses), (2, 1));
    let none = wire::NetworkMap { remote_peers, remote_peers_is_empty: true, ..Default::default() };
    assert!(NetworkMap::from(none).peers.is_empty(), "the flag goes before the list");
}

#[test]
fn routes_need_a_target_a_router_and_an_id_of_their_own() {
    let router = PublicKey([7; 32]).to_string();
    let route = |id: &str, network: &str, kind, domains: &[&str], peer: &str| wire::Route {
        id: id.into(),
        network: network.into(),
        network_type: kind,
        peer: peer.into(),
        domains: domains.iter().map(|&text| text.into()).collect(),
        ..Default::default()
    };
    let routes = vec![
        route("a", "10.1.2.3/8", 1, &[], &router),
        route("a", "10.2.0.0/16", 1, &[], &router),
        route("b", "192.0.2.0/32", 3, &["x.test"], &router),
        route("c", "192.0.2.0/32", 3, &[], &router),
        route("d", "invalid Prefix", 0, &[], &router),
        route("e", "10.3.0.0/16", 1, &[], "nobody"),
        route("f", "invalid Prefix", 3, &["y.test"], &router),
    ];
    let map = NetworkMap::from(wire::NetworkMap { routes, ..Default::default() });
    let targets: Vec<_> = map.routes.iter().map(|route| (&*route.id, route.target.clone())).collect();
    let domain = |name: &str| RouteTarget::Domains(vec![name.into()]);
    let prefix = RouteTarget::Prefix("10.0.0.0/8".parse().expect("a prefix"));
    assert_eq!(targets, [("a", prefix), ("b", domain("x.test")), ("f", domain("y.test"))]);
    assert_eq!(map.skipped.routes, 4);
}

#[test]
fn route_rules_lose_bad_sources_and_keep_the_rest() {
    let rule = wire::RouteFirewallRule {
        source_ranges: vec!["100.64.0.2/32".into(), "everybody".into()],
        action: wire::RuleAction::Drop.into(),
        destination: "10.0.0.0/24".into(),
        protocol: wire::RuleProtocol::Udp.into(),
        port_info: range(0, 0),
        policy_id: b"p".to_vec(),
        route_id: "r".into(),
        ..Default::default()
    };
    let map = NetworkMap::from(wire::NetworkMap { routes_firewall_rules: vec![rule], ..Default::default() });
    let Rules::List(rules) = &map.route_rules else { panic!("not legacy") };
    let matcher = &rules[0].matcher;
    assert_eq!((matcher.protocol, matcher.action, matcher.ports), (Protocol::Udp, Action::Drop, None));
    assert_eq!((&*matcher.policy, &*rules[0].route, rules[0].sources.len()), ("p", "r", 1));
    assert_eq!((map.skipped.addresses, map.skipped.route_rules), (1, 0));
}

#[test]
fn own_facts_are_taken_as_far_as_they_make_sense() {
    let config = wire::PeerConfig {
        address: "100.64.0.7/16".into(),
        mtu: 1280,
        lazy_connection_enabled: true,
        address_v6: [&std::net::Ipv6Addr::LOCALHOST.octets()[..], &[64]].concat(),
        ..Default::default()
    };
    let mut skipped = Skipped::default();
    let good = own(config.clone(), &mut skipped);
    assert_eq!(good.addresses.v4, "100.64.0.7/16".parse().ok());
    assert_eq!(good.addresses.v6, "::1/64".parse().ok());
    assert_eq!((good.mtu, good.lazy, skipped.total()), (Some(1280), true, 0));
    let bad = wire::PeerConfig { address: "100.64.0.7".into(), mtu: -1, address_v6: vec![1], ..config };
    let bad = own(bad, &mut skipped);
    assert_eq!((bad.addresses, bad.mtu, skipped.addresses), (OwnAddresses::default(), None, 1));
}

#[test]
fn secrets_are_not_shown() {
    let config = wire::NetbirdConfig {
        turns: vec![wire::ProtectedHostConfig {
            host_config: Some(wire::HostConfig { uri: "turn:a".into(), protocol: 0 }),
            user: "u".into(),
            password: "hidden".into(),
        }],
        relay: Some(wire::RelayConfig {
            urls: vec!["rel://a".into()],
            token_payload: "1".into(),
            token_signature: "hidden".into(),
        }),
        ..Default::default()
    };
    let shown = format!("{:?}", ServersUpdate::from(config));
    assert!(shown.contains("rel://a") && shown.contains("turn:a") && !shown.contains("hidden"), "{shown}");
}

#[test]
fn a_component_map_is_left_out() {
    let map = Some(wire::NetworkMap::default());
    let update = Update::from(wire::SyncResponse { version: 1, network_map: map.clone(), ..Default::default() });
    assert!(update.component_map && update.map.is_none());
    let update = Update::from(wire::SyncResponse { network_map: map, ..Default::default() });
    assert!(!update.component_map && update.map.is_some());
}
