//! One map after the other: what is compiled of it does not depend on what was before, and what stays is the very same.

use std::sync::Arc;

use peer_core::key::PublicKey;
use peer_netbird::management::SyncMessage;
use peer_netbird::proto::management::{self as wire, port_info};
use peer_netmap::compile::{Compiled, Compiler, Options, compile};
use peer_netmap::ids::Ids;
use peer_netmap::model::OwnAddresses;
use peer_netmap::read::Reader;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;
use zeroize::Zeroizing;

const OWN: PublicKey = PublicKey([9; 32]);

/// What may be in a map: an entry is there, or not.
#[derive(Clone, Debug)]
struct World {
    peers: Vec<wire::RemotePeerConfig>,
    routes: Vec<wire::Route>,
    peer_rules: Vec<wire::FirewallRule>,
    route_rules: Vec<wire::RouteFirewallRule>,
}

/// Which are; beside, where the lists begin, and what the node says of itself.
#[derive(Clone, Debug)]
struct Step {
    there: [u32; 4],
    turned: usize,
    block_inbound: bool,
    own: u8,
}

fn world() -> impl Strategy<Value = World> {
    let address = || select((0..12).map(|n| format!("100.64.0.{n}/32")).collect::<Vec<_>>());
    // A key may occur twice, and so may an address, that of the node included.
    let peer = (0_u8..12, prop::collection::vec(address(), 0..3)).prop_map(|(key, allowed_ips)| {
        wire::RemotePeerConfig { wg_pub_key: PublicKey([key; 32]).to_string(), allowed_ips, ..Default::default() }
    });
    let network = select(vec!["10.1.0.0/16", "10.2.0.0/16", "fd00::/64", "0.0.0.0/0", "0.0.0.0/1", "8000::/1"]);
    let route = (0..4, network).prop_map(|(id, network)| wire::Route {
        id: format!("r{id}"),
        network: network.into(),
        peer: OWN.to_string(),
        ..Default::default()
    });
    let policy = || select(vec!["p", "q", "s", ""]).prop_map(|policy| policy.as_bytes().to_vec());
    let peer_rule = (address(), policy(), 0..2).prop_map(|(peer_ip, policy_id, action)| wire::FirewallRule {
        peer_ip: peer_ip.trim_end_matches("/32").into(),
        action,
        protocol: wire::RuleProtocol::All.into(),
        policy_id,
        ..Default::default()
    });
    let destination = select(vec!["10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/16", "0.0.0.0/0", "0.0.0.0/1"]);
    let sources = prop::collection::vec(address(), 0..4);
    let route_rule = (sources, destination, policy(), 0..4, 79..82_u32).prop_map(
        |(source_ranges, destination, policy_id, route, port)| wire::RouteFirewallRule {
            source_ranges,
            destination: destination.into(),
            protocol: wire::RuleProtocol::Tcp.into(),
            port_info: Some(wire::PortInfo { selection: Some(port_info::Selection::Port(port)) }),
            policy_id,
            route_id: format!("r{route}"),
            ..Default::default()
        },
    );
    let lists = (
        prop::collection::vec(peer, 0..24),
        prop::collection::vec(route, 0..5),
        prop::collection::vec(peer_rule, 0..16),
        prop::collection::vec(route_rule, 0..16),
    );
    lists.prop_map(|(peers, routes, peer_rules, route_rules)| World { peers, routes, peer_rules, route_rules })
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly everything, so that steps are small.
    let there = || prop_oneof![Just(u32::MAX), any::<u32>(), (0..24_u32).prop_map(|bit| u32::MAX ^ 1 << bit)];
    let turned = prop_oneof![4 => Just(0), 1 => 0..24_usize];
    ([there(), there(), there(), there()], turned, prop::bool::weighted(0.1), 0..3_u8)
        .prop_map(|(there, turned, block_inbound, own)| Step { there, turned, block_inbound, own })
}

fn some<T: Clone>(all: &[T], there: u32, turned: usize) -> Vec<T> {
    let mut some: Vec<_> =
        (0..).zip(all).filter(|(bit, _)| there >> (bit % 32) & 1 != 0).map(|(_, one)| one.clone()).collect();
    if let Some(turned) = turned.checked_rem(some.len()) {
        some.rotate_left(turned);
    }
    some
}

fn message(world: &World, step: &Step) -> Arc<SyncMessage> {
    let [peers, routes, peer_rules, route_rules] = step.there;
    let map = wire::NetworkMap {
        serial: 1,
        // An old server's silence is compiled to one rule, which is made each time.
        firewall_rules_is_empty: true,
        routes_firewall_rules_is_empty: true,
        remote_peers: some(&world.peers, peers, step.turned),
        routes: some(&world.routes, routes, step.turned),
        firewall_rules: some(&world.peer_rules, peer_rules, step.turned),
        routes_firewall_rules: some(&world.route_rules, route_rules, step.turned),
        ..Default::default()
    };
    let message = wire::SyncResponse { network_map: Some(map), ..Default::default() };
    Arc::new(SyncMessage::new(Zeroizing::new(message.encode_to_vec())).expect("a message"))
}

fn options(step: &Step) -> Options {
    Options {
        own_key: OWN,
        addresses: OwnAddresses { v4: format!("100.64.0.{}/16", step.own).parse().ok(), v6: None },
        local: Vec::new(),
        keepalive: None,
        preshared_key: None,
        uplinks: peer_core::desired::UplinkChoice::Auto,
        server_routes: true,
        block_inbound: step.block_inbound,
    }
}

/// Those rules and peers of the second that are shared with the first.
fn shared(first: &Compiled, second: &Compiled) -> (usize, bool) {
    let rules = second.rules.iter().filter(|rule| first.rules.iter().any(|known| Arc::ptr_eq(known, rule)));
    (rules.count(), Arc::ptr_eq(&first.peers, &second.peers))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn step_by_step_it_is_compiled_to_what_it_is_by_itself(
        world in world(),
        steps in prop::collection::vec(step(), 1..8),
    ) {
        let (mut reader, mut compiler, mut ids) = (Reader::default(), Compiler::default(), Ids::new());
        for step in steps {
            let map = reader.read(&message(&world, &step)).expect("a message").map.expect("a map");
            let mut known = ids.clone();
            let compiled = compiler.compile(&map, &options(&step), &mut ids);
            prop_assert_eq!(&compiled, &compile(&map, &options(&step), &mut known));
            let again = compiler.compile(&map, &options(&step), &mut ids);
            // Who has what several claim is found out anew.
            prop_assert_eq!(shared(&compiled, &again).0, compiled.rules.len());
            prop_assert!(shared(&compiled, &again).1 || compiled.contested > 0 || twice(&compiled));
        }
    }
}

fn twice(compiled: &Compiled) -> bool {
    compiled.peers.windows(2).any(|pair| pair[0].public_key == pair[1].public_key)
}

#[test]
fn one_peer_more_leaves_the_rules_of_other_policies_as_they_are() {
    let peers = (1..=200_u8).map(|key| wire::RemotePeerConfig {
        wg_pub_key: PublicKey([key; 32]).to_string(),
        allowed_ips: vec![format!("100.64.1.{key}/32")],
        ..Default::default()
    });
    let rule = |policy: u8| wire::RouteFirewallRule {
        source_ranges: vec![format!("100.64.1.{policy}/32")],
        destination: "10.1.0.0/16".into(),
        protocol: wire::RuleProtocol::All.into(),
        policy_id: format!("p{policy}").into_bytes(),
        ..Default::default()
    };
    let route = wire::Route { network: "10.1.0.0/16".into(), peer: OWN.to_string(), ..Default::default() };
    let world = World {
        peers: peers.collect(),
        routes: vec![route],
        peer_rules: Vec::new(),
        route_rules: (1..=20).map(rule).collect(),
    };
    let mut more = world.clone();
    more.peers.remove(100);
    more.route_rules[7].source_ranges.push("100.64.1.199/32".into());
    let step = Step { there: [u32::MAX; 4], turned: 0, block_inbound: false, own: 0 };
    let (mut reader, mut compiler, mut ids) = (Reader::default(), Compiler::default(), Ids::new());
    let mut next = |world: &World| {
        let map = reader.read(&message(world, &step)).expect("a message").map.expect("a map");
        compiler.compile(&map, &options(&step), &mut ids)
    };
    let (first, second) = (next(&world), next(&more));
    assert_eq!((first.rules.len(), second.rules.len()), (20, 20));
    assert_eq!(shared(&first, &second).0, 19);
}
