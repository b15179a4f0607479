//! Handshakes, data, and how sessions come back.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use common::{Net, addr, packet, peer, public, with_keepalive, with_psk};
use peer_core::shard::{Engine as _, ShardId};
use peer_wireguard::stats::Handshake;
use peer_wireguard::{DatagramError, Event, PacketError};

#[test]
fn packets_pass_both_ways_over_both_families() {
    for (here, there) in [("192.0.2.1:1001", "192.0.2.2:1002"), ("[2001:db8::1]:1001", "[2001:db8::2]:1002")] {
        let mut net = Net::new(&[here, there]);
        net.set_peers(0, &[peer(2, Some(addr(there)), &["10.0.0.2/32", "fd00::2/128"])]);
        net.set_peers(1, &[peer(1, None, &["10.0.0.1/32", "fd00::1/128"])]);
        net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
        net.assert_traffic(0, "fd00::1", 1, "fd00::2");
        assert!(net.connected(0) && net.connected(1));
        assert_eq!(net.endpoint(1), Some(addr(here)));
        for (node, other) in [(0, 2), (1, 1)] {
            let completed =
                |event: &&Event| matches!(event, Event::HandshakeCompleted { peer, .. } if *peer == public(other));
            assert_eq!(net.nodes[node].events.iter().filter(completed).count(), 1, "{:?}", net.nodes[node].events);
        }
        let status = &net.nodes[0].engine.peers(net.now)[0];
        assert_eq!((status.rx_packets, status.tx_packets), (2, 2));
        assert!(status.rx_bytes > 92 && status.tx_bytes > 148, "{status:?}");
        assert_eq!(status.last_handshake, Some(Duration::ZERO));
    }
}

#[test]
fn a_hub_serves_many_peers() {
    const SPOKES: u8 = 60;
    let addrs: Vec<_> = (1..=SPOKES + 1).map(|host| format!("192.0.2.{host}:51820")).collect();
    let mut net = Net::new(&addrs.iter().map(String::as_str).collect::<Vec<_>>());
    let hub = net.nodes[0].addr;
    let spokes: Vec<_> = (1..=SPOKES).map(|n| peer(n + 1, None, &[&format!("10.0.0.{n}/32")])).collect();
    net.set_peers(0, &spokes);
    for n in 1..=SPOKES {
        net.set_peers(n.into(), &[peer(1, Some(hub), &["10.0.0.0/16"])]);
    }
    for n in 1..=SPOKES {
        net.assert_traffic(n.into(), &format!("10.0.0.{n}"), 0, "10.0.1.1");
    }
    assert!(net.connected(0));
    let stats = net.nodes[0].engine.stats();
    assert_eq!((stats.connected.get(), stats.tunnels.get()), (SPOKES.into(), SPOKES.into()));
    assert_eq!(stats.handshakes(Handshake::CompletedAsResponder), SPOKES.into());
}

#[test]
fn packets_wait_for_the_session_in_order_and_the_oldest_make_room() {
    let mut net = Net::pair();
    for n in 0..200 {
        net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, n));
    }
    let stats = net.nodes[0].engine.stats();
    assert_eq!((stats.staged_packets.get(), stats.staged_bytes.get()), (128, 128 * 28));
    assert_eq!(stats.packet_drops(PacketError::StagingFull), 72);
    net.run();
    let fills: Vec<_> = net.nodes[1].received.iter().map(|packet| packet[20]).collect();
    assert_eq!(fills, (72..200).collect::<Vec<_>>());
    assert_eq!((stats.staged_packets.get(), stats.staged_bytes.get()), (0, 0));
    assert_eq!(stats.handshakes(Handshake::Initiated), 1, "one handshake for all of them");
}

#[test]
fn what_the_responder_has_to_say_waits_too() {
    let mut net = Net::pair();
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    let initiation = net.intercept();
    net.deliver(1, initiation[0].from, &initiation[0].bytes);
    // The initiator has not confirmed the session yet.
    net.send(1, &packet("10.0.0.2", "10.0.0.1", 8, 2));
    assert!(!net.connected(1));
    net.run();
    assert_eq!(net.nodes[0].received, [packet("10.0.0.2", "10.0.0.1", 8, 2)]);
    assert_eq!(net.nodes[1].received, [packet("10.0.0.1", "10.0.0.2", 8, 1)]);
}

#[test]
fn the_peer_may_stay_with_the_session_before_the_last() {
    let mut net = Net::pair();
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    let first = net.intercept().remove(0);
    net.nodes[0].engine.start_handshakes(net.now);
    net.nodes[0].engine.handle_timeout(net.now);
    let second = net.intercept().remove(0);
    net.deliver(1, first.from, &first.bytes);
    let response = net.intercept().remove(0);
    net.deliver(1, second.from, &second.bytes);
    net.intercept();
    net.deliver(0, response.from, &response.bytes);
    net.run();
    assert_eq!(net.nodes[1].received.len(), 1);
    let completed = |event: &&Event| matches!(event, Event::HandshakeCompleted { .. });
    assert_eq!(net.nodes[1].events.iter().filter(completed).count(), 1);
    assert!(net.nodes[1].engine.peers(net.now)[0].last_handshake.is_some());
}

#[test]
fn simultaneous_initiations_end_in_a_session() {
    let mut net = Net::pair();
    let there = net.nodes[0].addr;
    net.set_peers(1, &[peer(1, Some(there), &["10.0.0.1/32"])]);
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    net.send(1, &packet("10.0.0.2", "10.0.0.1", 8, 2));
    net.collect();
    assert_eq!(net.wire.len(), 2, "both have sent an initiation");
    net.advance(Duration::from_millis(100));
    assert_eq!((net.nodes[0].received.len(), net.nodes[1].received.len()), (1, 1));
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
}

#[test]
fn a_stale_initiation_is_answered_by_one_of_ours() {
    let mut net = Net::pair();
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    let initiation = net.intercept().remove(0);
    net.deliver(1, initiation.from, &initiation.bytes);
    let lost = net.intercept();
    assert_eq!(lost.len(), 1, "the response, which gets lost");
    for _ in 0..5 {
        net.deliver(1, initiation.from, &initiation.bytes);
        net.now += Duration::from_millis(110);
    }
    let stats = net.nodes[1].engine.stats();
    assert_eq!(stats.datagram_drops(DatagramError::StaleInitiation), 5);
    assert_eq!(stats.handshakes(Handshake::Forced), 1, "rate-limited");
    net.run();
    assert!(net.connected(0) && net.connected(1));
    assert_eq!(net.nodes[1].received.len(), 1);
}

#[test]
fn a_restarted_node_is_back_at_once() {
    let mut net = Net::connected_pair();
    let there = net.nodes[0].addr;
    net.restart(1);
    net.set_peers(1, &[peer(1, None, &["10.0.0.1/32"])]);
    // Old sessions are dead.
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    net.run();
    assert!(net.nodes[1].received.is_empty());
    assert_eq!(net.nodes[1].engine.stats().datagram_drops(DatagramError::UnknownIndex), 1);
    net.nodes[1].engine.set_endpoint(net.now, &public(1), there);
    net.nodes[1].engine.start_handshakes(net.now);
    net.run();
    assert!(net.connected(1));
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
}

#[test]
fn started_handshakes_are_spread() {
    let mut net = Net::new(&["192.0.2.1:1"]);
    let peers: Vec<_> = (2..=21).map(|n| peer(n, Some(SocketAddr::from(([192, 0, 2, n], 9))), &[])).collect();
    net.set_peers(0, &peers);
    net.nodes[0].engine.start_handshakes(net.now);
    net.run();
    assert_eq!(net.log.len(), 1);
    net.advance(Duration::from_millis(10));
    assert_eq!(net.log.len(), 11);
    net.advance(Duration::from_millis(10));
    assert_eq!(net.log.len(), 20);
}

#[test]
fn a_keepalive_makes_traffic_without_packets() {
    let mut net = Net::pair();
    let there = Some(net.nodes[1].addr);
    net.set_peers(0, &[with_keepalive(peer(2, there, &["10.0.0.2/32"]), 7)]);
    net.run();
    assert!(net.connected(0) && net.connected(1), "the handshake does not wait for a packet");
    net.log.clear();
    net.advance(Duration::from_secs(22));
    let keepalives = net.log.iter().filter(|datagram| datagram.from == net.nodes[0].addr && datagram.bytes.len() == 32);
    assert_eq!(keepalives.count(), 3);
    net.set_peers(0, &[peer(2, there, &["10.0.0.2/32"])]);
    assert!(net.connected(0), "switching it off keeps the session");
}

#[test]
fn a_restored_endpoint_yields_to_a_known_one() {
    let mut net = Net::pair();
    let (known, other) = (net.nodes[1].addr, addr("203.0.113.9:9"));
    net.nodes[0].engine.set_endpoint(net.now, &public(2), other);
    assert_eq!(net.endpoint(0), Some(known));
    net.nodes[1].engine.set_endpoint(net.now, &public(1), other);
    assert_eq!(net.endpoint(1), Some(other));
    net.nodes[1].engine.set_endpoint(net.now, &public(9), other);
}

#[test]
fn a_wrong_key_never_gets_a_session() {
    let mut net = Net::pair();
    // Node 1 knows somebody else only.
    net.set_peers(1, &[peer(7, None, &["10.0.0.1/32"])]);
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    net.run();
    assert!(!net.connected(0) && !net.connected(1) && net.nodes[1].received.is_empty());
    assert_eq!(net.nodes[1].engine.stats().datagram_drops(DatagramError::UnknownPeer), 1);
    // Node 0 takes node 1 for somebody else.
    let there = Some(net.nodes[1].addr);
    net.set_peers(0, &[peer(9, there, &["10.0.0.2/32"])]);
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    net.run();
    assert!(!net.connected(0) && net.nodes[1].received.is_empty());
    assert_eq!(net.nodes[1].engine.stats().datagram_drops(DatagramError::BadMac), 1);
}

#[test]
fn pre_shared_keys_must_agree_and_can_be_changed() {
    let mut net = Net::pair();
    let there = Some(net.nodes[1].addr);
    let (to_1, to_0) = (peer(2, there, &["10.0.0.2/32"]), peer(1, None, &["10.0.0.1/32"]));
    net.set_peers(0, &[with_psk(to_1.clone(), 1)]);
    net.set_peers(1, &[with_psk(to_0.clone(), 2)]);
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    net.run();
    assert!(!net.connected(0) && !net.connected(1) && net.nodes[1].received.is_empty());
    assert_eq!(net.nodes[0].engine.stats().datagram_drops(DatagramError::WrongKey), 1);
    // The packet still waits; the right key lets it through.
    net.set_peers(1, &[with_psk(to_0, 3)]);
    net.set_peers(0, &[with_psk(to_1.clone(), 3)]);
    net.run();
    assert_eq!(net.nodes[1].received.len(), 1);
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
    net.set_peers(0, &[with_psk(to_1, 4)]);
    net.run();
    assert!(!net.connected(0), "a changed key ends the session");
    assert!(net.nodes[0].events.contains(&Event::SessionExpired { peer: public(2) }));
    assert_eq!(net.nodes[0].engine.stats().tunnels.get(), 1, "the old index is given back");
}

#[test]
fn the_shard_is_in_the_indexes_that_go_out() {
    let mut net = Net::pair();
    let there = net.nodes[1].addr;
    let shard = ShardId::new(5, 8).expect("valid");
    net.nodes[0].engine = common::engine(1, shard, net.now);
    let peers: Vec<_> = (2..=40).map(|n| peer(n, Some(there), &[])).collect();
    net.set_peers(0, &peers);
    net.nodes[0].engine.start_handshakes(net.now);
    net.now += Duration::from_millis(50);
    net.nodes[0].engine.handle_timeout(net.now);
    let indexes: std::collections::HashSet<_> = net
        .intercept()
        .iter()
        .map(|datagram| u32::from_le_bytes(datagram.bytes[4..8].try_into().expect("four bytes")) >> 8)
        .collect();
    assert_eq!(indexes.len(), 39, "each peer has its own");
    assert!(indexes.iter().all(|index| index & 7 == 5));
}
