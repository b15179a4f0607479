//! Paths that the control side sets: through relays, and away from them.

mod common;

use std::time::Duration;

use common::{Net, packet, peer, public, relayed};
use peer_core::path::{Path, RelayId};
use peer_core::shard::Engine as _;
use peer_wireguard::stats::Handshake;
use peer_wireguard::{DatagramError, Event, PacketError, Roaming};
use proptest::prelude::*;

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
fn where_the_control_side_chooses_a_peer_changes_its_address_and_not_the_kind_of_path() {
    let mut net = relayed_pair();
    net.nodes[1].engine.set_roaming(Roaming::WithinUdp);
    assert_eq!(path(&net, 1), None);
    set_path(&mut net, 0, 2, Path::Relay(B));
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
    assert_eq!(path(&net, 1), Some(Path::Relay(A)), "a peer without a path is where it was heard");
    let [first, second, late] = [1, 2, 3].map(|number| {
        net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, number));
        net.intercept().remove(0).bytes
    });
    let (direct, mapped) = (common::addr("203.0.113.77:7777"), common::addr("203.0.113.77:9999"));
    net.deliver(1, direct, &first);
    assert_eq!(path(&net, 1), Some(Path::Relay(A)), "the peer may have a direct path before we have");
    let udp = |remote| Path::Udp { remote, local: None };
    set_path(&mut net, 1, 1, udp(direct));
    net.deliver(1, relayed(A), &late);
    assert_eq!(path(&net, 1), Some(udp(direct)), "what comes late through the relay changes nothing");
    net.deliver(1, mapped, &second);
    assert!(
        matches!(path(&net, 1), Some(Path::Udp { remote, .. }) if remote == mapped),
        "its NAT has another port now"
    );
}

#[test]
fn a_second_initiation_by_the_new_path_is_answered_while_ours_is_the_old_one() {
    let mut net = relayed_pair();
    net.nodes[1].engine.set_roaming(Roaming::WithinUdp);
    set_path(&mut net, 1, 1, Path::Relay(A));
    set_path(&mut net, 0, 2, Path::Relay(B));
    let now = net.now;
    net.nodes[0].engine.start_handshake(now, &public(2));
    let initiation = net.intercept().remove(0);
    let direct = common::addr("203.0.113.77:7777");
    net.deliver(1, direct, &initiation.bytes);
    net.deliver(1, direct, &initiation.bytes);
    assert_eq!(
        net.nodes[1].engine.stats().handshakes(Handshake::Forced),
        1,
        "official clients send two of one timestamp"
    );
    assert_eq!(path(&net, 1), Some(Path::Relay(A)));
}

#[test]
fn a_peer_that_is_sent_to_and_not_heard_is_silent_until_it_is_heard() {
    const TIME: Duration = Duration::from_millis(250);
    let mut net = relayed_pair();
    set_path(&mut net, 0, 2, Path::Relay(B));
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
    // Beyond whatever the handshake left to be said.
    net.advance(Duration::from_secs(20));
    let silent = |net: &Net| net.nodes[0].engine.silent_peers(TIME, net.now);
    for millis in [0, 100, 100, 100] {
        net.advance(Duration::from_millis(millis));
        net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 7));
        net.intercept();
    }
    assert_eq!(silent(&net), [public(2)], "for 300 ms");
    net.advance(TIME);
    assert_eq!(silent(&net), [], "nothing goes there any more");
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 8));
    net.run();
    net.send(1, &packet("10.0.0.2", "10.0.0.1", 8, 9));
    net.run();
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 10));
    assert_eq!(silent(&net), [], "it has been heard since");
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
fn two_initiations_through_a_relay_end_in_a_session_soon() {
    let mut net = relayed_pair();
    set_path(&mut net, 0, 2, Path::Relay(B));
    let now = net.now;
    net.nodes[0].engine.start_handshake(now, &public(2));
    let first = net.intercept().remove(0);
    net.deliver(1, first.from, &first.bytes);
    // The answer is stale for an initiator that has sent a second initiation with the same timestamp. Official clients
    // answer ours at once; an engine of ours would wait a moment.
    net.intercept();
    net.now += SETTLED;
    net.deliver(1, first.from, &first.bytes);
    assert_eq!(net.nodes[1].engine.stats().handshakes(Handshake::Forced), 1);
    net.run();
    assert!(net.connected(0) && net.connected(1), "without a repetition");
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

/// Time in which whatever crosses has settled.
const SETTLED: Duration = Duration::from_millis(250);

/// When the nodes begin, and how long a message takes, by sender and kind.
#[derive(Clone, Copy, Debug)]
struct Crossing {
    begin: [u64; 2],
    initiation: [u64; 2],
    response: [u64; 2],
}

/// A message of node 0: when, of which type, and whether it had a session before.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Duration,
    kind: u8,
    connected: bool,
}

/// Lets both begin. Node 1 is as wireguard-go and the Linux module are: it knows one handshake at a time, and having
/// answered one of ours knows nothing of its own. Returns the net after `settle`, and what node 0 sent.
fn cross(crossing: Crossing, settle: Duration) -> (Net, Vec<Sent>) {
    let mut net = relayed_pair();
    set_path(&mut net, 0, 2, Path::Relay(B));
    set_path(&mut net, 1, 1, Path::Relay(A));
    let start = net.now;
    let at = |millis: u64| start + Duration::from_millis(millis);
    let mut begin = crossing.begin.map(|millis| Some(at(millis)));
    let (mut wire, mut sent, mut forgot) = (Vec::new(), Vec::new(), false);
    while net.now <= start + settle {
        let connected = net.connected(0);
        for node in 0..2 {
            if begin[node].take_if(|begin| *begin <= net.now).is_some() {
                let now = net.now;
                net.nodes[node].engine.start_handshake(now, &public(if node == 0 { 2 } else { 1 }));
            }
            if net.nodes[node].engine.poll_timeout().is_some_and(|at| at <= net.now) {
                let now = net.now;
                net.nodes[node].engine.handle_timeout(now);
            }
        }
        for datagram in net.intercept() {
            let from = usize::from(datagram.from == relayed(B));
            let kind = datagram.bytes[0];
            if from == 0 {
                sent.push(Sent { at: net.now - start, kind, connected });
            }
            let delay = match kind {
                1 => crossing.initiation[from],
                2 => crossing.response[from],
                _ => 1,
            };
            wire.push((net.now + Duration::from_millis(delay), datagram));
        }
        let (due, later) = wire.into_iter().partition(|(at, _)| *at <= net.now);
        wire = later;
        for (_, datagram) in due {
            let datagram: common::Datagram = datagram;
            let to = usize::from(datagram.from == relayed(A));
            forgot |= to == 1 && datagram.bytes[0] == 1;
            if !(to == 1 && datagram.bytes[0] == 2 && forgot) {
                net.deliver(to, datagram.from, &datagram.bytes);
            }
        }
        net.now += Duration::from_millis(1);
    }
    (net, sent)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn crossing_initiations_end_in_a_session_whatever_comes_first(
        begin in [0_u64..200, 0_u64..200],
        initiation in [1_u64..80, 1_u64..80],
        response in [1_u64..80, 1_u64..80],
    ) {
        let crossing = Crossing { begin, initiation, response };
        let (mut net, sent) = cross(crossing, Duration::from_millis(200 + 100 + 2 * 80) + SETTLED);
        prop_assert!(net.connected(0) && net.connected(1), "{sent:?}");
        net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
        net.assert_traffic(1, "10.0.0.2", 0, "10.0.0.1");
        // With a session nothing crosses: the peer has taken what came before.
        let handshakes: Vec<_> = sent.iter().filter(|message| message.kind < 3 && !message.connected).collect();
        for pair in handshakes.windows(2) {
            prop_assert!(pair[1].at - pair[0].at >= Duration::from_millis(100), "{handshakes:?}");
        }
    }
}

/// What node 0 sent of a kind.
fn count(sent: &[Sent], kind: u8) -> usize {
    sent.iter().filter(|message| message.kind == kind).count()
}

#[test]
fn an_initiation_that_crosses_ours_is_not_answered_when_ours_is() {
    let (net, sent) = cross(Crossing { begin: [140, 0], initiation: [5, 145], response: [5; 2] }, SETTLED * 2);
    assert!(net.connected(0) && net.connected(1));
    assert_eq!((count(&sent, 1), count(&sent, 2)), (1, 0), "{sent:?}");
    assert_eq!(net.nodes[0].engine.stats().handshakes(Handshake::Crossed), 1);
}

#[test]
fn an_initiation_that_crosses_ours_is_answered_a_little_later_when_ours_is_lost() {
    const LOST: u64 = 100_000;
    let (net, sent) = cross(Crossing { begin: [0, 0], initiation: [LOST, 5], response: [5; 2] }, SETTLED);
    assert!(net.connected(0) && net.connected(1));
    let answered = sent.iter().find(|message| message.kind == 2).expect("an answer");
    assert_eq!(answered.at.as_millis(), 100);
}

#[test]
fn ours_is_not_begun_while_the_peer_takes_our_answer() {
    let (net, sent) = cross(Crossing { begin: [10, 0], initiation: [5; 2], response: [20; 2] }, SETTLED);
    assert!(net.connected(0) && net.connected(1));
    assert_eq!((count(&sent, 1), count(&sent, 2)), (0, 1), "{sent:?}");
}

#[test]
fn ours_is_begun_a_little_later_when_our_answer_is_lost() {
    const LOST: u64 = 100_000;
    let (net, sent) = cross(Crossing { begin: [10, 0], initiation: [5; 2], response: [LOST, 5] }, SETTLED * 2);
    assert!(net.connected(0) && net.connected(1));
    let begun = sent.iter().find(|message| message.kind == 1).expect("an initiation");
    assert_eq!(begun.at.as_millis(), 105);
}

#[test]
fn a_repeated_initiation_does_not_cost_the_answer_to_ours() {
    let mut net = relayed_pair();
    set_path(&mut net, 0, 2, Path::Relay(B));
    set_path(&mut net, 1, 1, Path::Relay(A));
    let now = net.now;
    net.nodes[1].engine.start_handshake(now, &public(1));
    let theirs = net.intercept().remove(0);
    net.now += SETTLED;
    let now = net.now;
    net.nodes[0].engine.start_handshake(now, &public(2));
    let ours = net.intercept().remove(0);
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
