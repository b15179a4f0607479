//! What comes from outside must not do harm.

mod common;

use std::net::SocketAddr;

use common::{Net, addr, packet, peer, public};
use peer_core::path::Path;
use peer_wireguard::{DatagramError, Event};
use proptest::prelude::*;

const ELSEWHERE: &str = "203.0.113.77:7777";

#[test]
fn a_peer_roams_by_authentic_data_only() {
    let mut net = Net::connected_pair();
    let (old, new) = (net.nodes[0].addr, addr(ELSEWHERE));
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    let data = net.intercept().remove(0).bytes;
    let mut forged = data.clone();
    *forged.last_mut().expect("bytes") ^= 1;
    net.deliver(1, new, &forged);
    net.deliver(1, new, &[4, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!(net.endpoint(1), Some(old));
    assert_eq!(net.nodes[1].engine.stats().datagram_drops(DatagramError::BadTag), 1);
    net.deliver(1, new, &data);
    assert_eq!(net.endpoint(1), Some(new));
    // A replay from the old address does not bring it back.
    net.deliver(1, old, &data);
    assert_eq!(net.endpoint(1), Some(new));
    net.collect();
    let local = Some(net.nodes[1].addr.ip());
    let (from, to) = (Some(Path::Udp { remote: old, local }), Path::Udp { remote: new, local });
    assert_eq!(net.nodes[1].events, [Event::PathChanged { peer: public(1), from, to }]);
    net.nodes[0].addr = new;
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
}

#[test]
fn a_flapping_path_is_reported_once_a_second_and_finally() {
    let mut net = Net::connected_pair();
    for port in 1..=9 {
        net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
        let data = net.intercept().remove(0).bytes;
        net.deliver(1, SocketAddr::from(([203, 0, 113, 1], port)), &data);
    }
    net.collect();
    assert_eq!(net.nodes[1].events.len(), 1);
    net.advance(std::time::Duration::from_secs(2));
    let last = SocketAddr::from(([203, 0, 113, 1], 9));
    assert!(
        matches!(net.nodes[1].events[..], [_, Event::PathChanged { to: Path::Udp { remote, .. }, .. }] if remote == last),
        "{:?}",
        net.nodes[1].events
    );
}

#[test]
fn a_replayed_datagram_is_dropped_and_counted() {
    let mut net = Net::connected_pair();
    let mut sent = Vec::new();
    for n in 0..1200 {
        net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, (n % 251) as u8));
        sent.extend(net.intercept());
    }
    for datagram in &sent {
        net.deliver(1, datagram.from, &datagram.bytes);
    }
    assert_eq!(net.nodes[1].received.len(), 1200);
    net.deliver(1, sent[1199].from, &sent[1199].bytes);
    net.deliver(1, sent[0].from, &sent[0].bytes);
    assert_eq!(net.nodes[1].received.len(), 1200);
    let stats = net.nodes[1].engine.stats();
    assert_eq!(stats.datagram_drops(DatagramError::Replay), 1);
    assert_eq!(stats.datagram_drops(DatagramError::TooOld), 1, "beyond the window");
}

#[test]
fn a_foreign_inner_source_is_dropped_and_counted() {
    let mut net = Net::new(&["192.0.2.1:1", "192.0.2.2:2", "192.0.2.3:3"]);
    let hub = net.nodes[0].addr;
    // The second peer's address is inside the first peer's prefix: the longer one wins, both ways.
    net.set_peers(0, &[peer(2, None, &["10.0.0.0/24"]), peer(3, None, &["10.0.0.3/32"])]);
    net.set_peers(1, &[peer(1, Some(hub), &["10.1.0.0/16", "fd00::/64"])]);
    net.set_peers(2, &[peer(1, Some(hub), &["10.1.0.0/16"])]);
    net.assert_traffic(1, "10.0.0.2", 0, "10.1.0.1");
    net.assert_traffic(2, "10.0.0.3", 0, "10.1.0.1");
    net.nodes[0].received.clear();
    net.send(1, &packet("10.0.0.3", "10.1.0.1", 8, 1));
    net.send(2, &packet("10.0.0.2", "10.1.0.1", 8, 1));
    net.send(2, &packet("192.0.2.9", "10.1.0.1", 8, 1));
    net.send(1, &packet("fd00::9", "fd00::1", 8, 1));
    net.run();
    assert!(net.nodes[0].received.is_empty());
    assert_eq!(net.nodes[0].engine.stats().datagram_drops(DatagramError::ForeignSource), 4);
    // Still served, though another address of the peer was good a moment ago.
    net.assert_traffic(1, "10.0.0.9", 0, "10.1.0.1");
}

#[test]
fn a_packet_that_lies_about_its_length_is_dropped() {
    let mut net = Net::connected_pair();
    let mut short = packet("10.0.0.1", "10.0.0.2", 40, 1);
    for total in [0_u16, 19, 61] {
        short[2..4].copy_from_slice(&total.to_be_bytes());
        net.send(0, &short);
    }
    net.run();
    let stats = net.nodes[0].engine.stats();
    assert_eq!(stats.packet_drops(peer_wireguard::PacketError::Malformed), 3);
    assert!(net.nodes[1].received.is_empty());
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let lengths = prop_oneof![0..=200_usize, Just(32), Just(64), Just(92), Just(148)];
    (lengths, any::<Option<u8>>(), any::<u64>()).prop_map(|(len, kind, seed)| {
        let bytes = (0..len as u64).map(|at| (seed.wrapping_mul(6_364_136_223_846_793_005 + 2 * at) >> 56) as u8);
        let mut bytes: Vec<_> = bytes.collect();
        if let (Some(kind), Some(head)) = (kind, bytes.get_mut(..4)) {
            head.copy_from_slice(&[kind % 5, 0, 0, 0]);
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn garbage_does_nothing(messages in prop::collection::vec(hostile(), 1..64)) {
        let mut net = Net::connected_pair();
        for message in &messages {
            net.deliver(1, addr(ELSEWHERE), message);
        }
        let stats = net.nodes[1].engine.stats();
        let dropped: u64 = DatagramError::ALL.iter().map(|reason| stats.datagram_drops(*reason)).sum();
        prop_assert_eq!(dropped, messages.len() as u64);
        prop_assert!(net.intercept().is_empty(), "no answer");
        prop_assert_eq!(net.endpoint(1), Some(net.nodes[0].addr));
        net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
    }

    #[test]
    fn one_flipped_bit_spoils_any_message(which in 0_usize..3, bit in any::<prop::sample::Index>(), cut in 0_usize..3) {
        let mut net = Net::pair();
        net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
        for (step, receiver) in [1, 0, 1].into_iter().enumerate() {
            let sent = net.intercept().remove(0);
            if step < which {
                net.deliver(receiver, sent.from, &sent.bytes);
                continue;
            }
            let mut bytes = sent.bytes;
            let bit = bit.index((bytes.len() - 16 * usize::from(step < 2)) * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes.truncate(bytes.len() - cut);
            let from = sent.from;
            net.deliver(receiver, from, &bytes);
            let stats = net.nodes[receiver].engine.stats();
            let dropped: u64 = DatagramError::ALL.iter().map(|reason| stats.datagram_drops(*reason)).sum();
            prop_assert_eq!(dropped, 1);
            prop_assert!(!net.connected(receiver));
            break;
        }
    }

    #[test]
    fn no_packet_breaks_the_way_out(bytes in prop::collection::vec(any::<u8>(), 0..120), version in 0_u8..16) {
        let mut net = Net::connected_pair();
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | 5;
        }
        net.send(0, &bytes);
        net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
    }
}
