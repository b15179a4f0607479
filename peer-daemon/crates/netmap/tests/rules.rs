//! Random maps, good and bad: the compiled rules say what the wire says.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::{Judgement, judge};
use peer_core::desired::Scope;
use peer_core::key::PublicKey;
use peer_core::policy::{Query, Verdict, evaluate};
use peer_netbird::proto::management::{self as wire, port_info};
use peer_netmap::compile::{Compiled, Options, compile};
use peer_netmap::ids::Ids;
use peer_netmap::model::{NetworkMap, OwnAddresses, Update};
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;

const OWN: PublicKey = PublicKey([9; 32]);

fn options() -> Options {
    Options {
        own_key: OWN,
        addresses: OwnAddresses::default(),
        local: addresses(),
        keepalive: None,
        preshared_key: None,
        uplinks: peer_core::desired::UplinkChoice::Auto,
        server_routes: true,
        block_inbound: false,
    }
}

fn compiled(map: wire::NetworkMap) -> (Compiled, Ids) {
    let mut ids = Ids::new();
    let compiled = compile(&NetworkMap::from(map), &options(), &mut ids);
    (compiled, ids)
}

fn addresses() -> Vec<IpAddr> {
    let v4 = ["100.64.0.2", "100.64.0.3", "10.1.0.1", "10.1.2.3", "10.2.0.1"].map(|text| text.parse().expect("IPv4"));
    let v6 = ["fd00::2", "fd00::3", "fd01::1"].map(|text| text.parse().expect("IPv6"));
    v4.into_iter().map(Ipv4Addr::into).chain(v6.into_iter().map(Ipv6Addr::into)).collect()
}

fn ports() -> impl Strategy<Value = u32> {
    select(vec![0, 1, 79, 80, 81, 443, 1000, 65_535, 65_536, u32::MAX])
}

fn port_info() -> impl Strategy<Value = Option<wire::PortInfo>> {
    let selection = prop_oneof![
        2 => Just(None),
        2 => ports().prop_map(|port| Some(port_info::Selection::Port(port))),
        3 => (ports(), ports())
            .prop_map(|(start, end)| Some(port_info::Selection::Range(port_info::Range { start, end }))),
        1 => Just(Some(port_info::Selection::Range(port_info::Range { start: 0, end: 0 }))),
    ];
    prop::option::of(selection.prop_map(|selection| wire::PortInfo { selection }))
}

fn policy() -> impl Strategy<Value = Vec<u8>> {
    select(vec![b"p".to_vec(), b"q".to_vec(), Vec::new(), vec![0xff]])
}

fn compact() -> impl Strategy<Value = Vec<u8>> {
    let of = |addr: IpAddr, length: u8| match addr {
        IpAddr::V4(addr) => [&addr.octets()[..], &[length]].concat(),
        IpAddr::V6(addr) => [&addr.octets()[..], &[length]].concat(),
    };
    (select(addresses()), select(vec![0_u8, 24, 32, 33, 128, 129]), 0..8_u8).prop_map(move |(addr, length, other)| {
        match other {
            0 => vec![1, 2],
            1 => [0; 5].to_vec(),
            2 => [0; 17].to_vec(),
            _ => of(addr, length),
        }
    })
}

fn firewall_rule() -> impl Strategy<Value = wire::FirewallRule> {
    let address = select(vec!["100.64.0.2", "100.64.0.3", "0.0.0.0", "::", "fd00::2", "", "100.64.0.2/32"]);
    let sources = prop::option::of(compact());
    let port = select(vec!["", "", "80", "443", "0", "65536", "80-90", "x"]);
    let numbers = (select(vec![0, 0, 0, 1, 2]), select(vec![0, 0, 1, 2]), select(vec![0, 1, 2, 3, 4, 5, 6, 9]));
    (address, sources, port, port_info(), numbers, policy()).prop_map(
        |(address, sources, port, port_info, (direction, action, protocol), policy_id)| wire::FirewallRule {
            peer_ip: address.into(),
            source_prefixes: sources.into_iter().collect(),
            port: port.into(),
            port_info,
            direction,
            action,
            protocol,
            policy_id,
            ..Default::default()
        },
    )
}

fn prefixes() -> impl Strategy<Value = String> {
    let texts = [
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.3/32",
        "10.0.0.0/8",
        "10.1.2.3/8",
        "0.0.0.0/0",
        "::/0",
        "fd01::/64",
        "100.64.0.2/32",
        "100.64.0.3/32",
        "fd00::2/128",
        "192.0.2.0/32",
        "none",
        "",
    ];
    select(texts.to_vec()).prop_map(str::to_owned)
}

fn route_id() -> impl Strategy<Value = String> {
    select(vec!["r1", "r2", "r3", "exit", "exit-v6-default", ""]).prop_map(str::to_owned)
}

fn route_rule() -> impl Strategy<Value = wire::RouteFirewallRule> {
    let numbers = (select(vec![0, 0, 1, 2]), select(vec![0, 1, 2, 3, 4, 5, 6, 9]), select(vec![false, false, true]));
    (prop::collection::vec(prefixes(), 0..4), prefixes(), port_info(), numbers, policy(), route_id()).prop_map(
        |(source_ranges, destination, port_info, (action, protocol, is_dynamic), policy_id, route_id)| {
            wire::RouteFirewallRule {
                source_ranges,
                destination,
                port_info,
                action,
                protocol,
                is_dynamic,
                policy_id,
                route_id,
                ..Default::default()
            }
        },
    )
}

fn route() -> impl Strategy<Value = wire::Route> {
    let router = select(vec![OWN.to_string(), OWN.to_string(), PublicKey([1; 32]).to_string(), "none".into()]);
    let domains = prop::option::of(Just("a.test".to_owned()));
    (route_id(), prefixes(), select(vec![1_i64, 2, 3, 0]), router, domains, any::<bool>()).prop_map(
        |(id, network, network_type, peer, domains, masquerade)| wire::Route {
            id,
            network,
            network_type,
            peer,
            domains: domains.into_iter().collect(),
            masquerade,
            ..Default::default()
        },
    )
}

fn map() -> impl Strategy<Value = wire::NetworkMap> {
    let rules = (prop::collection::vec(firewall_rule(), 0..12), prop::collection::vec(route_rule(), 0..12));
    (rules, prop::collection::vec(route(), 0..6), any::<bool>(), any::<bool>()).prop_map(
        |((firewall_rules, routes_firewall_rules), routes, peers_empty, routes_empty)| wire::NetworkMap {
            firewall_rules,
            routes_firewall_rules,
            routes,
            firewall_rules_is_empty: peers_empty,
            routes_firewall_rules_is_empty: routes_empty,
            ..Default::default()
        },
    )
}

/// Every packet that the rules may tell apart.
fn queries() -> Vec<Query> {
    let mut queries = Vec::new();
    for source in addresses() {
        for destination in addresses().into_iter().filter(|other| other.is_ipv4() == source.is_ipv4()) {
            for scope in [Scope::Node, Scope::Route] {
                let query =
                    |protocol, destination_port| Query { source, destination, protocol, destination_port, scope };
                queries.extend([query(1, None), query(58, None), query(47, None), query(6, None), query(17, None)]);
                for port in [0, 1, 79, 80, 81, 443, 500, 1000, 65_535] {
                    queries.extend([query(6, Some(port)), query(17, Some(port))]);
                }
            }
        }
    }
    queries
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn compiled_rules_judge_as_the_wire_does(map in map()) {
        let (compiled, ids) = compiled(map.clone());
        let own = OWN.to_string();
        for query in queries() {
            let expected = judge(&map, &own, &query);
            let found = evaluate(&compiled.rules, &query);
            let text = |rule| ids.text(rule).unwrap_or("unknown").to_owned();
            let agree = match (&found, &expected) {
                (Verdict::Accept { rule }, Judgement::Accept(policies))
                | (Verdict::Drop { rule }, Judgement::Drop(policies)) => policies.contains(&text(*rule)),
                (Verdict::Default, Judgement::Default) => true,
                _ => false,
            };
            prop_assert!(agree, "{query:?}: {found:?}, not {expected:?}\n{:#?}", compiled.rules);
        }
    }

    #[test]
    fn the_order_of_a_map_means_nothing((map, shuffled) in map().prop_flat_map(|map| {
        let rules = Just(map.firewall_rules.clone()).prop_shuffle();
        let routes_rules = Just(map.routes_firewall_rules.clone()).prop_shuffle();
        (Just(map), rules, routes_rules).prop_map(|(map, firewall_rules, routes_firewall_rules)| {
            (map.clone(), wire::NetworkMap { firewall_rules, routes_firewall_rules, ..map })
        })
    })) {
        prop_assert_eq!(compiled(map).0, compiled(shuffled).0);
    }

    #[test]
    fn rules_are_in_normal_form(map in map()) {
        let (compiled, ids) = compiled(map);
        for rule in &*compiled.rules {
            prop_assert!(rule.id != 0 && ids.text(rule.id).is_some());
            prop_assert!(!rule.sources.is_empty() && !rule.destinations.is_empty());
            prop_assert!(rule.sources.is_sorted() && rule.destinations.is_sorted());
            prop_assert!(rule.ports.iter().all(|range| range.min <= range.max));
            let apart = |pair: &[peer_core::desired::PortRange]| u32::from(pair[0].max) + 1 < u32::from(pair[1].min);
            prop_assert!(rule.ports.windows(2).all(apart), "{:?}", rule.ports);
        }
        prop_assert!(compiled.routes.is_sorted_by_key(|route| route.destination));
    }

    #[test]
    fn any_bytes_are_a_map_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), map in map(), at: usize, byte: u8) {
        let mut encoded = wire::SyncResponse { network_map: Some(map), ..Default::default() }.encode_to_vec();
        let at = at % encoded.len();
        encoded[at] = byte;
        for bytes in [bytes, encoded] {
            if let Ok(message) = wire::SyncResponse::decode(&*bytes)
                && let Some(map) = Update::from(message).map
            {
                let _ = compile(&map, &options(), &mut Ids::new());
            }
        }
    }
}
