//! Paths that the control side sets: through relays, and away from them.

mod common;

use std::time::Duration;

use common::{Net, packet, peer, public, relayed};
use peer_core::path::{Path, RelayId};
use peer_wireguard::stats::Handshake;
use peer_wireguard::{DatagramError, Event, PacketError};

const A: RelayId = RelayId { connection: 7, peer: 1 };
const B: RelayId = RelayId { connection: 7, peer: 2 };

/// Two nodes that see each other as peers of a relay; nobody knows an address.
fn relayed_pair() -> Net {
    let mut net = Net::new(&["192.0.2.1:1001", "192.0.2.2:1002"]);
    net.nodes[0].addr = relayed(A);
    net.nodes[1].addr = relayed(B);
    net.set_peers(0, &[peer(2, None, &["10.0.0.2/32"])]);
    net.set_peers(1, &[peer(1, None, &["10.0.0.1/32"])]);
    net
}

fn path(net: &Net, node: usize) -> Option<Path> {
    net.nodes[node].engine.peers(net.now)[0].path
}

fn set_path(net: &mut Net, node: usize, key: u8, path: Path) {
    let now = net.now;
    net.nodes[node].engine.set_path(now, &public(key), Some(path));
}

#[test]
fn a_session_is_made_through_a_relay() {
    let mut net = relayed_pair();
    set_path(&mut net, 0, 2, Path::Relay(B));
    let now = net.now;
    net.nodes[0].engine.start_handshake(now, &public(2));
    net.run();
    assert!(net.connected(0));
    assert_eq!(
        (path(&net, 0), path(&net, 1)),
        (Some(Path::Relay(B)), Some(Path::Relay(A))),
        "the other side learns it"
    );
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
    let status = net.nodes[0].engine.peers(net.now).remove(0);
    assert_eq!((status.endpoint(), status.last_data), (None, Some(Duration::ZERO)));
}

#[test]
fn a_relay_path_is_left_for_authentic_messages_only() {
    let mut net = relayed_pair();
    set_path(&mut net, 0, 2, Path::Relay(B));
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    net.run();
    assert!(net.connected(0) && net.connected(1));
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 2));
    let data = net.intercept().remove(0).bytes;
    let direct = common::addr("203.0.113.77:7777");
    let mut forged = data.clone();
    *forged.last_mut().expect("bytes") ^= 1;
    // What anybody can send: forged data, and an old initiation again.
    net.deliver(1, direct, &forged);
    let initiation = net.log[0].bytes.clone();
    net.deliver(1, direct, &initiation);
    assert_eq!(net.nodes[1].engine.stats().datagram_drops(DatagramError::StaleInitiation), 1);
    assert_eq!(path(&net, 1), Some(Path::Relay(A)));
    net.deliver(1, direct, &data);
    assert!(matches!(path(&net, 1), Some(Path::Udp { remote, .. }) if remote == direct));
    net.deliver(1, relayed(A), &data);
    assert!(matches!(path(&net, 1), Some(Path::Udp { .. })), "a replay does not bring it back");
}

#[test]
fn a_broken_path_is_dropped_unless_the_peer_has_moved_on() {
    let mut net = relayed_pair();
    set_path(&mut net, 0, 2, Path::Relay(B));
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    net.run();
    let now = net.now;
    let engine = &mut net.nodes[0].engine;
    engine.drop_path(now, &public(2), Path::Relay(A));
    assert!(path(&net, 0).is_some(), "another one broke");
    net.nodes[0].engine.drop_path(now, &public(2), Path::Relay(B));
    assert_eq!(path(&net, 0), None);
    net.nodes[0].events.clear();
    for _ in 0..3 {
        net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    }
    net.collect();
    assert_eq!(net.nodes[0].events, [Event::PathWanted { peer: public(2) }], "once a second");
    assert_eq!(net.nodes[0].engine.stats().packet_drops(PacketError::NoEndpoint), 3);
    net.nodes[0].engine.set_path(now, &public(2), Some(Path::Relay(B)));
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
}

#[test]
fn two_initiations_through_a_relay_end_in_a_session_at_once() {
    let mut net = relayed_pair();
    set_path(&mut net, 0, 2, Path::Relay(B));
    let now = net.now;
    net.nodes[0].engine.start_handshake(now, &public(2));
    let first = net.intercept().remove(0);
    net.deliver(1, first.from, &first.bytes);
    // The answer is stale for an initiator that has sent a second initiation with the same timestamp.
    net.intercept();
    net.deliver(1, first.from, &first.bytes);
    assert_eq!(net.nodes[1].engine.stats().handshakes(Handshake::Forced), 1);
    net.run();
    assert!(net.connected(0) && net.connected(1), "no time has passed");
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
}

#[test]
fn a_loud_peer_of_a_relay_is_limited_alone() {
    let mut net = relayed_pair();
    set_path(&mut net, 0, 2, Path::Relay(B));
    let now = net.now;
    net.nodes[0].engine.start_handshake(now, &public(2));
    let initiation = net.intercept().remove(0);
    let loud = relayed(RelayId { connection: 7, peer: 9 });
    for _ in 0..150 {
        net.deliver(1, loud, &initiation.bytes);
    }
    let stats = net.nodes[1].engine.stats();
    let limited = stats.datagram_drops(DatagramError::SourceLimited);
    assert!(limited >= 40, "{limited} of 150");
    net.deliver(1, relayed(A), &initiation.bytes);
    assert_eq!(stats.datagram_drops(DatagramError::SourceLimited), limited);
}

/// Both begin at the same moment. What each receives, in the order of `steps`: an initiation or the response to its own.
fn cross(steps: [(usize, bool); 4], forgets: bool) -> Net {
    let mut net = relayed_pair();
    set_path(&mut net, 0, 2, Path::Relay(B));
    set_path(&mut net, 1, 1, Path::Relay(A));
    let now = net.now;
    net.nodes[0].engine.start_handshake(now, &public(2));
    net.nodes[1].engine.start_handshake(now, &public(1));
    let mut sent = net.intercept();
    assert_eq!(sent.len(), 2);
    let mut consumed = false;
    for (to, initiation) in steps {
        let at = sent
            .iter()
            .position(|datagram| (datagram.from == relayed(A)) == (to == 1) && (datagram.bytes[0] == 1) == initiation);
        let datagram = sent.remove(at.expect("it was sent"));
        consumed |= to == 1 && initiation;
        // wireguard-go and the Linux module know one handshake at a time: having answered one they know nothing of their own.
        if !(forgets && consumed && to == 1 && !initiation) {
            net.deliver(to, datagram.from, &datagram.bytes);
        }
        sent.extend(net.intercept());
    }
    for datagram in sent {
        let to = usize::from(datagram.from == relayed(A));
        net.deliver(to, datagram.from, &datagram.bytes);
    }
    net.run();
    net
}

#[test]
fn crossing_initiations_end_in_a_session_at_once_whatever_comes_first() {
    let (to_first, to_second) = ((0, true), (1, true));
    let (answer_to_second, answer_to_first) = ((1, false), (0, false));
    let orders = [
        [to_first, to_second, answer_to_second, answer_to_first],
        [to_first, to_second, answer_to_first, answer_to_second],
        [to_second, to_first, answer_to_second, answer_to_first],
        [to_second, to_first, answer_to_first, answer_to_second],
        [to_first, answer_to_second, to_second, answer_to_first],
        [to_second, answer_to_first, to_first, answer_to_second],
    ];
    for steps in orders {
        for forgets in [false, true] {
            let mut net = cross(steps, forgets);
            assert!(net.connected(0) && net.connected(1), "{steps:?}, the other forgets its own: {forgets}");
            net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
            net.assert_traffic(1, "10.0.0.2", 0, "10.0.0.1");
        }
    }
}

#[test]
fn a_repeated_initiation_does_not_cost_the_answer_to_ours() {
    let mut net = relayed_pair();
    set_path(&mut net, 0, 2, Path::Relay(B));
    set_path(&mut net, 1, 1, Path::Relay(A));
    let now = net.now;
    net.nodes[0].engine.start_handshake(now, &public(2));
    let ours = net.intercept().remove(0);
    net.nodes[1].engine.start_handshake(now, &public(1));
    let theirs = net.intercept().remove(0);
    // The other one answers ours; meanwhile its own comes twice, with one timestamp.
    net.deliver(1, ours.from, &ours.bytes);
    let answer = net.intercept().remove(0);
    net.deliver(0, theirs.from, &theirs.bytes);
    net.deliver(0, theirs.from, &theirs.bytes);
    // What we have sent since is refused: our answers because it forgot its own, an initiation so soon as a flood.
    net.intercept();
    net.deliver(0, answer.from, &answer.bytes);
    net.run();
    assert!(net.connected(0) && net.connected(1));
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
}

#[test]
fn a_repeated_initiation_is_answered_later_when_ours_was_lost() {
    let mut net = relayed_pair();
    set_path(&mut net, 0, 2, Path::Relay(B));
    set_path(&mut net, 1, 1, Path::Relay(A));
    let now = net.now;
    net.nodes[0].engine.start_handshake(now, &public(2));
    net.intercept();
    net.nodes[1].engine.start_handshake(now, &public(1));
    let theirs = net.intercept().remove(0);
    net.deliver(0, theirs.from, &theirs.bytes);
    net.deliver(0, theirs.from, &theirs.bytes);
    net.intercept();
    net.advance(Duration::from_secs(1));
    assert!(net.connected(0) && net.connected(1), "long before WireGuard repeats its own");
}
