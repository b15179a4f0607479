use std::sync::Arc;

use peer_core::desired::{Action, PortRange, Protocol, Scope};

use super::*;
use crate::model::{Matcher, PeerRule, RemotePeer, RouteRule, Rules};

const OWN: PublicKey = PublicKey([9; 32]);

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn options() -> Options {
    Options {
        own_key: OWN,
        addresses: OwnAddresses { v4: "100.64.0.9/16".parse().ok(), v6: None },
        local: Vec::new(),
        keepalive: NonZeroU16::new(25),
        preshared_key: None,
        uplinks: UplinkChoice::Auto,
        server_routes: true,
        block_inbound: false,
    }
}

fn compiled(map: &NetworkMap) -> Compiled {
    compile(map, &options(), &mut Ids::new())
}

fn peer(byte: u8, ips: &[&str]) -> Arc<RemotePeer> {
    Arc::new(RemotePeer {
        key: PublicKey([byte; 32]),
        allowed_ips: ips.iter().map(|text| net(text)).collect(),
        fqdn: String::new(),
        agent_version: String::new(),
    })
}

fn route(id: &str, target: RouteTarget, masquerade: bool) -> Arc<crate::model::Route> {
    let (id, net_id) = (id.to_owned(), format!("net-{id}"));
    Arc::new(crate::model::Route { id, net_id, target, router: OWN, metric: 100, masquerade, skip_auto_apply: false })
}

fn prefix(text: &str) -> RouteTarget {
    RouteTarget::Prefix(net(text))
}

fn matcher(protocol: Protocol, ports: Option<(u16, u16)>, action: Action, policy: &str) -> Matcher {
    let ports = ports.map(|(min, max)| PortRange { min, max });
    Matcher { protocol, ports, action, policy: policy.into() }
}

fn route_rule(sources: &[&str], target: RouteTarget, route: &str, matcher: Matcher) -> Arc<RouteRule> {
    Arc::new(RouteRule {
        sources: sources.iter().map(|text| net(text)).collect(),
        target,
        route: route.into(),
        matcher,
    })
}

#[test]
fn peers_stand_in_the_order_of_their_keys_whatever_that_of_the_map() {
    let peers = vec![peer(3, &["100.64.0.3/32"]), peer(2, &["100.64.0.2/32"]), peer(9, &["100.64.0.9/32"])];
    let one = compiled(&NetworkMap { peers: peers.clone().into(), ..NetworkMap::default() });
    let other = compiled(&NetworkMap { peers: peers.into_iter().rev().collect(), ..NetworkMap::default() });
    assert_eq!(one, other);
    let keys: Vec<_> = one.peers.iter().map(|peer| peer.public_key.0[0]).collect();
    assert_eq!(keys, [2, 3], "and this node is none of them");
    assert_eq!(one.peers[0].persistent_keepalive, NonZeroU16::new(25));
}

#[test]
fn an_address_belongs_to_one_peer_and_own_ones_to_none() {
    let peers = vec![peer(2, &["100.64.0.2/32", "100.64.0.9/32"]), peer(3, &["100.64.0.2/32", "100.64.0.3/32"])];
    let compiled = compiled(&NetworkMap { peers: peers.into(), ..NetworkMap::default() });
    let ips: Vec<_> = compiled.peers.iter().map(|peer| peer.allowed_ips.clone()).collect();
    assert_eq!(ips, [Arc::from([net("100.64.0.2/32")]), Arc::from([net("100.64.0.3/32")])]);
    assert_eq!(compiled.contested, 2);
}

#[test]
fn routes_of_this_node_are_served_once_for_each_destination() {
    let foreign = route("e", prefix("10.9.0.0/16"), true);
    let foreign = Arc::new(crate::model::Route { router: PublicKey([1; 32]), ..(*foreign).clone() });
    let routes = vec![
        route("a", prefix("10.2.0.0/16"), false),
        route("b", prefix("10.1.0.0/16"), false),
        route("c", prefix("10.2.0.0/16"), true),
        route("d", prefix("fd01::/64"), false),
        foreign,
    ];
    let compiled = compiled(&NetworkMap { routes, ..NetworkMap::default() });
    let served: Vec<_> = compiled.routes.iter().map(|route| (route.destination, route.masquerade)).collect();
    assert_eq!(served, [(net("10.1.0.0/16"), false), (net("10.2.0.0/16"), true), (net("fd01::/64"), false)]);
    assert_eq!(compiled.served, ["net-a", "net-b", "net-c", "net-d"]);
}

#[test]
fn what_cannot_be_served_is_said() {
    let routes = vec![
        route("a", prefix("0.0.0.0/0"), true),
        route("b", RouteTarget::Domains(vec!["a.test".into(), "*.b.test".into()]), true),
    ];
    let compiled = compiled(&NetworkMap { routes, forwarding_rules: 2, ..NetworkMap::default() });
    assert_eq!((compiled.routes.len(), compiled.served.len()), (0, 0));
    let said: Vec<_> = compiled
        .unsupported
        .iter()
        .map(|what| format!("{} {} {}", what.kind.as_str(), what.name, what.detail))
        .collect();
    assert_eq!(said, ["domain route net-b a.test, *.b.test", "exit node net-a 0.0.0.0/0", "forwarding rules  2"]);
}

#[test]
fn an_exit_node_that_is_not_served_opens_nothing() {
    let any = || matcher(Protocol::Any, None, Action::Accept, "");
    let drop = matcher(Protocol::Any, None, Action::Drop, "p");
    let map = NetworkMap {
        routes: vec![route("exit", prefix("0.0.0.0/0"), true), route("lan", prefix("10.1.0.0/16"), true)],
        route_rules: Rules::List(vec![
            route_rule(&["0.0.0.0/0"], prefix("0.0.0.0/0"), "exit", any()),
            route_rule(&["0.0.0.0/0"], prefix("0.0.0.0/0"), "", any()),
            route_rule(&["::/0"], prefix("::/0"), "exit-v6-default", any()),
            route_rule(&["100.64.0.2/32"], prefix("0.0.0.0/0"), "exit", drop),
        ]),
        ..NetworkMap::default()
    };
    let rules = compiled(&map).rules;
    assert_eq!(rules.iter().map(|rule| rule.action).collect::<Vec<_>>(), [Action::Drop], "but what forbids is heard");
}

#[test]
fn two_halves_of_the_internet_are_an_exit_node() {
    let any = || matcher(Protocol::Any, None, Action::Accept, "");
    let halves = ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"];
    let map = NetworkMap {
        routes: halves
            .iter()
            .map(|half| route(half, prefix(half), true))
            .chain([route("lan", prefix("10.1.0.0/16"), true)])
            .collect(),
        route_rules: Rules::List(
            halves.iter().map(|half| route_rule(&["0.0.0.0/0"], prefix(half), "other", any())).collect(),
        ),
        ..NetworkMap::default()
    };
    let compiled = compiled(&map);
    assert_eq!(compiled.routes.iter().map(|route| route.destination).collect::<Vec<_>>(), [net("10.1.0.0/16")]);
    assert!(compiled.rules.is_empty(), "they would open 10.1.0.0/16");
    let exits = compiled.unsupported.iter().filter(|what| what.kind == UnsupportedKind::ExitNode).count();
    assert_eq!(exits, halves.len());
}

#[test]
fn a_rule_without_sources_permits_nobody() {
    let rule = route_rule(&[], prefix("10.1.0.0/16"), "lan", matcher(Protocol::Any, None, Action::Accept, "p"));
    let routes = vec![route("lan", prefix("10.1.0.0/16"), true)];
    let map = NetworkMap { routes, route_rules: Rules::List(vec![rule]), ..NetworkMap::default() };
    assert!(compiled(&map).rules.is_empty());
}

#[test]
fn rules_of_one_policy_become_one() {
    let tcp = |port| matcher(Protocol::Tcp, Some((port, port)), Action::Accept, "p");
    let rule = |source, destination, port| route_rule(&[source], prefix(destination), "lan", tcp(port));
    let (one, other) = ("100.64.0.2/32", "100.64.0.3/32");
    let rules = vec![
        rule(one, "10.1.0.0/16", 443),
        rule(one, "10.1.0.0/16", 80),
        rule(one, "10.2.0.0/16", 80),
        rule(one, "10.2.0.0/16", 443),
        rule(other, "10.1.0.0/16", 81),
        rule(other, "10.1.0.0/16", 80),
        rule(other, "10.1.0.0/16", 83),
    ];
    let routes = vec![route("lan", prefix("10.0.0.0/8"), true)];
    let map = NetworkMap { routes, route_rules: Rules::List(rules), ..NetworkMap::default() };
    let rules = compiled(&map).rules;
    let [second, first] = &rules[..] else { panic!("{rules:?}") };
    let port = |min, max| PortRange { min, max };
    assert_eq!((&first.sources, &first.ports), (&vec![net(other)], &vec![port(80, 81), port(83, 83)]));
    assert_eq!((&second.sources, &second.ports), (&vec![net(one)], &vec![port(80, 80), port(443, 443)]));
    assert_eq!(second.destinations, [net("10.1.0.0/16"), net("10.2.0.0/16")]);
    assert_eq!((first.id, first.scope), (second.id, Scope::Route));
}

#[test]
fn ports_belong_to_tcp_and_udp() {
    let rule = |protocol| PeerRule {
        source: net("100.64.0.2/32"),
        matcher: matcher(protocol, Some((80, 80)), Action::Accept, "p"),
    };
    let list = Rules::List(vec![rule(Protocol::Any), rule(Protocol::Icmp)]);
    let rules = compiled(&NetworkMap { peer_rules: list, ..NetworkMap::default() }).rules;
    let found: Vec<_> = rules.iter().map(|rule| (rule.protocol, rule.ports.len(), rule.scope)).collect();
    let expected = [(Protocol::Tcp, 1, Scope::Node), (Protocol::Udp, 1, Scope::Node), (Protocol::Icmp, 0, Scope::Node)];
    assert_eq!(found, expected);
}

#[test]
fn old_servers_permit_everybody_what_is_served() {
    let map = NetworkMap {
        routes: vec![route("lan", prefix("10.1.0.0/16"), true)],
        peer_rules: Rules::Legacy,
        route_rules: Rules::Legacy,
        ..NetworkMap::default()
    };
    let rules = compiled(&map).rules;
    let [node, routes] = &rules[..] else { panic!("{rules:?}") };
    assert_eq!((node.scope, routes.scope), (Scope::Node, Scope::Route));
    assert_eq!(routes.destinations, [net("10.1.0.0/16")]);
    let nothing_served = NetworkMap { routes: Vec::new(), ..map };
    assert_eq!(compiled(&nothing_served).rules.len(), 1);
}

#[test]
fn options_close_routes_or_everything() {
    let map = NetworkMap {
        peers: [peer(2, &["100.64.0.2/32"])].into(),
        routes: vec![route("lan", prefix("10.1.0.0/16"), true)],
        peer_rules: Rules::Legacy,
        route_rules: Rules::Legacy,
        ..NetworkMap::default()
    };
    let with = |change: fn(&mut Options)| {
        let mut options = options();
        change(&mut options);
        let compiled = compile(&map, &options, &mut Ids::new());
        (compiled.peers.len(), compiled.routes.len(), compiled.rules.len())
    };
    assert_eq!(with(|_| ()), (1, 1, 2));
    assert_eq!(with(|options| options.server_routes = false), (1, 0, 1));
    assert_eq!(with(|options| options.block_inbound = true), (1, 0, 0));
}

#[test]
fn a_policy_keeps_its_id_when_others_come_and_go() {
    let rule = |policy: &str| PeerRule {
        source: net("100.64.0.2/32"),
        matcher: matcher(Protocol::Any, None, Action::Accept, policy),
    };
    let map = |policies: &[&str]| NetworkMap {
        peer_rules: Rules::List(policies.iter().map(|policy| rule(policy)).collect()),
        ..NetworkMap::default()
    };
    let mut ids = Ids::new();
    let first = compile(&map(&["a", "b"]), &options(), &mut ids);
    let second = compile(&map(&["c", "b"]), &options(), &mut ids);
    let id = |compiled: &Compiled, position: usize| compiled.rules[position].id;
    assert_eq!(id(&first, 1), id(&second, 0));
    assert_eq!(ids.text(id(&first, 1)), Some("b"));
    assert_eq!(ids.number(&Arc::from("b")), id(&second, 0));
}
