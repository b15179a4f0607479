//! The set of peers, bounds and counters.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use common::{Net, addr, packet, peer, public, with_keepalive};
use ipnet::{IpNet, Ipv4Net};
use peer_core::desired::Peer;
use peer_core::key::PublicKey;
use peer_core::shard::{Engine as _, ShardId};
use peer_wireguard::{Event, MAX_PEERS, PacketError, PeerError};

fn idle_peers(count: u32) -> Vec<Peer> {
    let one = |n: u32| {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_le_bytes());
        let addr = Ipv4Addr::from(0x0a00_0000 + n);
        Peer {
            public_key: PublicKey(key),
            preshared_key: None,
            endpoint: Some(SocketAddr::from((addr, 51820))),
            allowed_ips: [IpNet::V4(Ipv4Net::from(addr))].into(),
            persistent_keepalive: None,
        }
    };
    (1..=count).map(one).collect()
}

#[test]
fn ten_thousand_idle_peers_have_no_tunnel_and_no_timer() {
    let now = Instant::now();
    let mut engine = common::engine(1, ShardId::ONLY, now);
    let changed = engine.set_peers(now, idle_peers(10_000));
    assert_eq!(changed.added.len(), 10_000);
    let stats = engine.stats();
    assert_eq!((stats.peers.get(), stats.tunnels.get(), stats.connected.get()), (10_000, 0, 0));
    assert_eq!(engine.poll_timeout(), None);
    assert_eq!(engine.set_peers(now, idle_peers(10_000)), peer_wireguard::PeersChanged::default());
}

#[test]
fn peers_are_bounded_and_odd_ones_refused() {
    let now = Instant::now();
    let mut engine = common::engine(1, ShardId::ONLY, now);
    let mut peers = vec![peer(1, None, &[]), peer(2, None, &["10.0.0.0/24"]), peer(2, None, &[])];
    peers.push(peer(3, None, &["10.0.0.9/24", "fd00::/8"]));
    let changed = engine.set_peers(now, peers);
    assert_eq!(changed.refused, [(public(1), PeerError::Ourselves), (public(2), PeerError::Duplicate)]);
    assert_eq!(changed.added, [public(2), public(3)]);
    assert_eq!(changed.contested, ["10.0.0.9/24".parse::<IpNet>().expect("prefix")]);
    let too_many = u32::try_from(MAX_PEERS + 3).expect("fits");
    let changed = engine.set_peers(now, idle_peers(too_many));
    assert_eq!((changed.added.len(), changed.removed.len()), (MAX_PEERS, 2));
    assert_eq!(changed.refused.iter().filter(|(_, why)| *why == PeerError::TooMany).count(), 3);
}

#[test]
fn figures_tell_paths_traffic_and_sessions_that_should_have_been_renewed() {
    let mut net = Net::connected_pair();
    let figures = net.nodes[0].engine.figures(net.now);
    assert_eq!((figures.direct, figures.relayed, figures.unreached, figures.overdue), (1, 0, 0, 0));
    let [active] = figures.active[..] else { panic!("{figures:?}") };
    assert_eq!((active.public_key, active.packets), (public(2), [0, 1]));
    assert!(active.last_handshake.is_some_and(|age| age < Duration::from_secs(5)) && active.bytes[1] > 0, "{active:?}");

    // Of three: one with a session and no keepalives, one that should have a session, one that nobody can find.
    let known = peer(2, Some(net.nodes[1].addr), &["10.0.0.2/32", "fd00::2/128"]);
    let silent = with_keepalive(peer(3, Some(addr("192.0.2.9:9")), &["10.0.0.3/32"]), 25);
    net.set_peers(0, &[known, silent, with_keepalive(peer(4, None, &["10.0.0.4/32"]), 25)]);
    let later = net.nodes[0].engine.figures(net.now + Duration::from_secs(200));
    assert_eq!((later.direct, later.unreached, later.overdue, later.active.len()), (2, 1, 1, 1));
}

#[test]
fn unchanged_peers_keep_sessions_and_learnt_endpoints() {
    let mut net = Net::connected_pair();
    let learnt = net.endpoint(1);
    let me = peer(1, None, &["10.0.0.1/32", "fd00::1/128"]);
    let changed = net.set_peers(1, &[me.clone(), peer(9, None, &["10.0.0.9/32"])]);
    assert_eq!((changed.added, changed.updated, changed.removed), (vec![public(9)], vec![], vec![]));
    let mut wider = me.clone();
    let narrow = wider.allowed_ips.clone();
    wider.allowed_ips = [&*narrow, &["10.7.0.0/16".parse().expect("prefix")]].concat().into();
    let changed = net.set_peers(1, &[wider.clone()]);
    assert_eq!((changed.added, changed.updated, changed.removed), (vec![], vec![public(1)], vec![public(9)]));
    assert_eq!((net.connected(1), net.endpoint(1)), (true, learnt));
    net.log.clear();
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
    net.assert_traffic(0, "10.7.3.4", 1, "10.0.0.2");
    assert!(net.log.iter().all(|datagram| datagram.bytes[0] == 4), "no new handshake");
    // A configured endpoint replaces a learnt one when it changes, and only then.
    let elsewhere = addr("203.0.113.5:5");
    wider.endpoint = Some(elsewhere);
    net.set_peers(1, &[wider.clone()]);
    assert_eq!(net.endpoint(1), Some(elsewhere));
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    net.run();
    assert_eq!(net.endpoint(1), learnt);
    wider.allowed_ips = narrow;
    net.set_peers(1, &[wider]);
    assert_eq!(net.endpoint(1), learnt);
}

fn assert_traffic_stopped(net: &mut Net) {
    net.nodes[1].received.clear();
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    net.run();
    assert!(net.nodes[1].received.is_empty());
}

#[test]
fn a_removed_peer_is_cut_off_at_once() {
    let mut net = Net::connected_pair();
    net.set_peers(1, &[]);
    net.collect();
    assert_eq!(net.nodes[1].events, [Event::SessionExpired { peer: public(1) }]);
    assert_traffic_stopped(&mut net);
    let stats = net.nodes[1].engine.stats();
    assert_eq!((stats.peers.get(), stats.connected.get(), stats.tunnels.get()), (0, 0, 0));
    net.send(1, &packet("10.0.0.2", "10.0.0.1", 8, 1));
    assert_eq!(stats.packet_drops(PacketError::NoPeer), 1);
    assert!(net.intercept().is_empty());
    net.set_peers(0, &[]);
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    assert!(net.intercept().is_empty());
}

#[test]
fn revoked_inner_addresses_stop_both_ways() {
    let mut net = Net::connected_pair();
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
    net.set_peers(1, &[peer(1, None, &["fd00::1/128"])]);
    assert_traffic_stopped(&mut net);
    net.send(1, &packet("10.0.0.2", "10.0.0.1", 8, 1));
    assert_eq!(net.nodes[1].engine.stats().packet_drops(PacketError::NoPeer), 1);
    net.assert_traffic(0, "fd00::1", 1, "fd00::2");
}

#[test]
fn waiting_packets_of_a_removed_peer_are_counted() {
    let mut net = Net::pair();
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    net.set_peers(0, &[]);
    let stats = net.nodes[0].engine.stats();
    assert_eq!(stats.packet_drops(PacketError::PeerRemoved), 2);
    assert_eq!((stats.staged_packets.get(), stats.staged_bytes.get(), stats.tunnels.get()), (0, 0, 0));
}

#[test]
fn packets_without_a_way_out_are_counted_by_reason() {
    let mut net = Net::pair();
    net.send(1, &packet("10.0.0.2", "10.0.0.1", 8, 1));
    net.send(1, &packet("10.0.0.2", "10.0.0.77", 8, 1));
    net.send(1, &[0x45; 7]);
    let stats = net.nodes[1].engine.stats();
    for reason in [PacketError::NoEndpoint, PacketError::NoPeer, PacketError::Malformed] {
        assert_eq!(stats.packet_drops(reason), 1, "{reason:?}");
    }
    assert!(net.intercept().is_empty());
}

#[test]
fn payloads_are_padded_but_not_beyond_the_mtu() {
    let mut net = Net::connected_pair();
    net.nodes[0].engine.set_mtu(1420);
    for (len, padded) in [(28, 32), (32, 32), (33, 48), (1400, 1408), (1410, 1420), (1420, 1420), (9000, 9000)] {
        let sent = packet("10.0.0.1", "10.0.0.2", len - 20, 1);
        net.log.clear();
        net.nodes[1].received.clear();
        net.send(0, &sent);
        assert_eq!(net.log[0].bytes.len(), padded + 32, "{len}");
        net.run();
        assert_eq!(net.nodes[1].received, [sent], "padding is cut off");
    }
}

#[test]
fn an_ipv4_endpoint_is_never_mapped() {
    let mut net = Net::pair();
    net.set_peers(0, &[peer(2, Some(addr("[::ffff:192.0.2.2]:1002")), &["10.0.0.2/32"])]);
    assert_eq!(net.endpoint(0), Some(addr("192.0.2.2:1002")));
}
