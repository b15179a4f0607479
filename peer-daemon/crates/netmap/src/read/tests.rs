use std::ops::RangeInclusive;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use zeroize::Zeroizing;

use super::*;
use crate::model::{RouteTarget, Rules};

fn message(map: &wire::NetworkMap) -> Arc<SyncMessage> {
    let message = wire::SyncResponse { network_map: Some(map.clone()), ..wire::SyncResponse::default() };
    Arc::new(SyncMessage::new(Zeroizing::new(message.encode_to_vec())).expect("a message"))
}

fn peer(number: u8) -> wire::RemotePeerConfig {
    wire::RemotePeerConfig {
        wg_pub_key: peer_core::key::PublicKey([number; 32]).to_string(),
        allowed_ips: vec![format!("100.64.0.{number}/32"), "none".to_owned()],
        fqdn: format!("peer-{number}"),
        ..Default::default()
    }
}

fn rule(number: u8) -> wire::RouteFirewallRule {
    wire::RouteFirewallRule {
        source_ranges: vec![format!("100.64.0.{}/32", number % 3), "100.64.9.0/24".to_owned()],
        destination: format!("10.0.{number}.0/24"),
        protocol: wire::RuleProtocol::Tcp.into(),
        policy_id: vec![b'p', number % 2],
        route_id: "r".to_owned(),
        ..Default::default()
    }
}

fn firewall_rule(number: u8) -> wire::FirewallRule {
    wire::FirewallRule {
        peer_ip: format!("100.64.0.{number}"),
        direction: i32::from(number % 2),
        protocol: i32::from(number % 4),
        policy_id: b"p".to_vec(),
        ..Default::default()
    }
}

fn route_to(number: u8) -> wire::Route {
    wire::Route {
        id: format!("r{}", number % 5),
        network: format!("10.{number}.0.0/16"),
        peer: peer(9).wg_pub_key,
        ..Default::default()
    }
}

fn map(peers: RangeInclusive<u8>) -> wire::NetworkMap {
    wire::NetworkMap {
        serial: 7,
        peer_config: Some(wire::PeerConfig { address: "100.64.0.7/16".to_owned(), ..Default::default() }),
        remote_peers: peers.map(peer).collect(),
        routes_firewall_rules: (0..20).map(rule).collect(),
        ..Default::default()
    }
}

fn read(reader: &mut Reader, map: &wire::NetworkMap) -> NetworkMap {
    reader.read(&message(map)).expect("a message").map.expect("a map")
}

#[test]
fn one_peer_more_is_one_entry_decoded_and_the_rest_is_the_very_same() {
    let mut reader = Reader::default();
    let first = read(&mut reader, &map(1..=100));
    let before = reader.work();
    let mut wanted = map(1..=100);
    wanted.remote_peers.insert(50, peer(200));
    let second = read(&mut reader, &wanted);
    let work = reader.work();
    assert_eq!((work.decoded - before.decoded, work.reused - before.reused), (1, 120));
    assert_eq!(second.peers.len(), 101);
    assert!(Arc::ptr_eq(&first.peers[50], &second.peers[51]));
    assert_eq!((second.serial, second.skipped.addresses), (7, 101));
}

#[test]
fn entries_in_another_order_are_found() {
    let mut reader = Reader::default();
    read(&mut reader, &map(1..=100));
    let before = reader.work().decoded;
    let mut wanted = map(1..=100);
    wanted.remote_peers.reverse();
    read(&mut reader, &wanted);
    assert!(reader.work().decoded - before <= 16, "only until it is clear that they were shuffled");
}

#[test]
fn rules_share_what_they_have_in_common_and_what_is_gone_is_forgotten() {
    let mut reader = Reader::default();
    let first = read(&mut reader, &map(1..=1));
    let Rules::List(rules) = &first.route_rules else { panic!("a list") };
    assert!(Arc::ptr_eq(&rules[0].sources, &rules[3].sources) && Arc::ptr_eq(&rules[0].route, &rules[1].route));
    assert!(matches!(rules[0].target, RouteTarget::Prefix(_)));
    drop(first);
    read(&mut reader, &wire::NetworkMap::default());
    assert_eq!(format!("{:?}", reader.shared), format!("{:?}", Shared::default()));
}

#[test]
fn an_entry_that_is_none_refuses_the_message_and_leaves_what_was_known() {
    let mut reader = Reader::default();
    read(&mut reader, &map(1..=10));
    let before = reader.work().decoded;
    // A peer (field 3 of the map, field 5) whose key has a text that is no UTF-8.
    let damaged = [0x2a, 5, 0x1a, 3, 0x0a, 1, 0xff].to_vec();
    let damaged = Arc::new(SyncMessage::new(Zeroizing::new(damaged)).expect("its frame is one"));
    assert!(damaged.decode().is_err() && reader.read(&damaged).is_err());
    read(&mut reader, &map(1..=10));
    assert_eq!(reader.work().decoded, before + 1);
}

#[test]
fn a_map_of_another_kind_is_not_looked_at() {
    let message = wire::SyncResponse { version: 1, network_map: Some(map(1..=3)), ..Default::default() };
    let message = Arc::new(SyncMessage::new(Zeroizing::new(message.encode_to_vec())).expect("a message"));
    let mut reader = Reader::default();
    let update = reader.read(&message).expect("a message");
    assert!(update.component_map && update.map.is_none());
    assert_eq!(reader.work(), Work::default());
}

/// Random lists of entries that come again.
fn some_map() -> impl Strategy<Value = wire::NetworkMap> {
    let numbers = || prop::collection::vec(select((0_u8..12).collect::<Vec<_>>()), 0..40);
    let flags = any::<[bool; 3]>();
    (numbers(), numbers(), numbers(), numbers(), numbers(), flags).prop_map(
        |(peers, offline, routes, firewall, rules, [no_peers, no_rules, no_route_rules])| wire::NetworkMap {
            serial: peers.len() as u64,
            remote_peers: peers.into_iter().map(peer).collect(),
            remote_peers_is_empty: no_peers,
            offline_peers: offline.into_iter().map(peer).collect(),
            routes: routes.into_iter().map(route_to).collect(),
            firewall_rules: firewall.into_iter().map(firewall_rule).collect(),
            firewall_rules_is_empty: no_rules,
            routes_firewall_rules: rules.into_iter().map(rule).collect(),
            routes_firewall_rules_is_empty: no_route_rules,
            ..Default::default()
        },
    )
}

proptest! {
    /// Whatever came before, a message says what it says.
    #[test]
    fn it_reads_what_is_there(maps in prop::collection::vec(some_map(), 1..6)) {
        let mut reader = Reader::default();
        for map in maps {
            let expected = NetworkMap::from(map.clone());
            prop_assert_eq!(read(&mut reader, &map), expected);
        }
    }

    #[test]
    fn damaged_messages_are_read_as_prost_does_or_refused(
        map in some_map(),
        damage in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
    ) {
        let mut reader = Reader::default();
        read(&mut reader, &map);
        let mut bytes = message(&map).plaintext().to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(message) = SyncMessage::new(Zeroizing::new(bytes))
            && let (Ok(whole), Ok(update)) = (message.decode(), reader.read(&Arc::new(message)))
        {
            prop_assert_eq!(update.map, Update::from(whole).map);
        }
    }
}
