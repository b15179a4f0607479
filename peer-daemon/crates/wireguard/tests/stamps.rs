//! Stamps of handshake initiations: peers take only what is later than all before (WireGuard paper §5.1).

mod common;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{Net, packet, peer};
use peer_core::shard::Engine as _;
use peer_wireguard::DatagramError;

const HOUR: Duration = Duration::from_secs(3600);

fn stale(net: &Net) -> u64 {
    net.nodes[1].engine.stats().datagram_drops(DatagramError::StaleInitiation)
}

/// Node 0 with a new engine that stamps from `stamps_from` on; its first initiation has been handed to node 1.
fn begin_anew(net: &mut Net, stamps_from: Duration) {
    net.restart_stamping(0, stamps_from);
    let there = Some(net.nodes[1].addr);
    net.set_peers(0, &[peer(2, there, &["10.0.0.2/32", "fd00::2/128"])]);
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 9));
    let initiation = net.intercept().remove(0);
    assert_eq!(initiation.bytes.len(), 148);
    net.deliver(1, initiation.from, &initiation.bytes);
    net.run();
}

#[test]
fn a_clock_set_back_before_a_restart_does_not_make_the_node_mute() {
    let mut net = Net::connected_pair();
    // The wall clock was an hour ahead in the first life, as the time of this net is.
    net.advance(HOUR);
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
    let now = net.now;
    let stamped = net.nodes[0].engine.newest_stamp(now);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    assert!(stamped > wall + HOUR / 2, "the net's clock is ahead of the wall clock");
    begin_anew(&mut net, stamped);
    assert_eq!(stale(&net), 0);
    assert!(net.connected(0) && net.connected(1));
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
}

#[test]
fn without_the_stamp_of_the_former_life_a_clock_set_back_does() {
    let mut net = Net::connected_pair();
    net.advance(HOUR);
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
    begin_anew(&mut net, Duration::ZERO);
    assert_eq!(stale(&net), 1, "what the other tests show would show nothing otherwise");
}

#[test]
fn a_peer_that_comes_back_after_the_clock_went_back_is_reached() {
    let mut net = Net::connected_pair();
    // To the core it is the same: its tunnel was made at a wall clock that is behind the stamps.
    net.advance(HOUR);
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
    net.set_peers(0, &[]);
    let there = Some(net.nodes[1].addr);
    net.set_peers(0, &[peer(2, there, &["10.0.0.2/32", "fd00::2/128"])]);
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 9));
    net.run();
    assert_eq!(stale(&net), 0);
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
}

#[test]
fn initiations_of_one_moment_have_stamps_that_grow() {
    let mut net = Net::pair();
    let now = net.now;
    for _ in 0..20 {
        net.nodes[0].engine.start_handshakes(now);
        net.nodes[0].engine.handle_timeout(now);
    }
    let sent = net.intercept();
    assert_eq!(sent.len(), 20);
    for initiation in &sent {
        net.deliver(1, initiation.from, &initiation.bytes);
    }
    assert_eq!(stale(&net), 0);
}

#[test]
fn the_stamp_counts_our_time_and_not_the_wall_clock() {
    let floor = Duration::from_secs(4_000_000_000);
    let start = Instant::now();
    let mut engine = common::stamping_engine(1, peer_core::shard::ShardId::ONLY, floor, start);
    assert_eq!(engine.newest_stamp(start), floor);
    assert_eq!(engine.newest_stamp(start + HOUR), floor + HOUR);
    assert_eq!(engine.newest_stamp(start), floor + HOUR, "it does not go back");
}

#[test]
fn a_tunnel_made_long_behind_its_stamps_lives_like_any_other() {
    for ahead in [1, 100, 200, 500, 600, 1_000_000] {
        let mut net = Net::pair();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        begin_anew(&mut net, wall + Duration::from_secs(ahead));
        assert!(net.connected(0) && net.connected(1), "{ahead} s ahead");
        // Beyond the 540 s after which the core forgets a tunnel without a session.
        for _ in 0..700 {
            net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
            net.advance(Duration::from_secs(1));
        }
    }
}
