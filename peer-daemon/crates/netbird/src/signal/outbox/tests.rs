use proptest::prelude::*;

use super::super::Description;
use super::*;

fn peer(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn candidate(n: usize) -> Message {
    Message::Candidate(n.to_string())
}

fn offer(version: &str) -> Message {
    let version = version.to_owned();
    Message::Offer(Description { ice: None, listen_port: 1, version, session: None, relay: None, relay_ip: None })
}

fn online() -> Outbox {
    let mut outbox = Outbox::default();
    outbox.set_online(true);
    outbox
}

#[test]
fn one_at_a_time_for_a_peer_others_do_not_wait() {
    let mut outbox = online();
    for (to, n) in [(1, 0), (1, 1), (2, 2)] {
        outbox.push(peer(to), candidate(n)).expect("room");
    }
    assert_eq!(outbox.pop(), Some((peer(1), candidate(0))));
    assert_eq!(outbox.pop(), Some((peer(2), candidate(2))));
    assert_eq!(outbox.pop(), None);
    outbox.done(&peer(1));
    assert_eq!(outbox.pop(), Some((peer(1), candidate(1))));
    assert_eq!((outbox.pop(), outbox.queued()), (None, 0));
}

#[test]
fn nothing_waits_while_offline() {
    let mut outbox = Outbox::default();
    assert_eq!(outbox.push(peer(1), candidate(0)), Err(NotSent::Offline));
    outbox.set_online(true);
    outbox.push(peer(1), candidate(0)).expect("room");
    outbox.set_online(false);
    outbox.set_online(true);
    assert_eq!((outbox.pop(), outbox.queued()), (None, 0));
}

#[test]
fn a_newer_offer_takes_the_place_of_one_that_waits() {
    let mut outbox = online();
    for message in [offer("old"), candidate(1), offer("new")] {
        outbox.push(peer(1), message).expect("room");
    }
    assert_eq!(outbox.pop(), Some((peer(1), offer("new"))));
    outbox.done(&peer(1));
    assert_eq!(outbox.pop(), Some((peer(1), candidate(1))));
    assert_eq!((outbox.superseded, outbox.queued()), (1, 0));
}

#[test]
fn the_oldest_goes_when_a_peer_has_too_many() {
    let mut outbox = online();
    for n in 0..=QUEUE_PER_PEER {
        outbox.push(peer(1), candidate(n)).expect("room");
    }
    assert_eq!((outbox.pop(), outbox.superseded), (Some((peer(1), candidate(1))), 1));
}

#[test]
fn there_is_a_limit_for_all() {
    let mut outbox = online();
    let key = |n: usize| PublicKey(std::array::from_fn(|at| n.to_le_bytes().get(at).copied().unwrap_or(0)));
    for n in 0..MAX_QUEUED {
        outbox.push(key(n), candidate(n)).expect("room");
    }
    assert_eq!(outbox.push(key(MAX_QUEUED), candidate(0)), Err(NotSent::Full));
    assert_eq!(outbox.queues.len(), MAX_QUEUED);
    let sent = std::iter::from_fn(|| outbox.pop()).count();
    assert_eq!(sent, MAX_IN_FLIGHT);
    assert_eq!(outbox.push(key(MAX_QUEUED), candidate(0)), Ok(()));
}

proptest! {
    /// Whatever comes in whatever order: order is kept for each peer, nothing is lost or doubled, nothing stays behind.
    #[test]
    fn order_is_kept(steps in prop::collection::vec((0..4_u8, 0..3_u8), 0..300)) {
        let mut outbox = online();
        let mut in_flight: Vec<(PublicKey, Message)> = Vec::new();
        let mut received: [Vec<usize>; 4] = Default::default();
        let mut receive = |to: &PublicKey, message: &Message| {
            let Message::Candidate(text) = message else { panic!("{message:?}") };
            received[usize::from(to.0[0])].push(text.parse().expect("a number"));
        };
        let mut pushed = 0;
        for (n, (to, step)) in steps.into_iter().enumerate() {
            match step {
                0 => {
                    outbox.push(peer(to), candidate(n)).expect("room");
                    pushed += 1;
                }
                1 => in_flight.extend(outbox.pop()),
                _ if !in_flight.is_empty() => {
                    let (to, message) = in_flight.swap_remove(usize::from(to) % in_flight.len());
                    receive(&to, &message);
                    outbox.done(&to);
                }
                _ => {}
            }
        }
        loop {
            in_flight.extend(std::iter::from_fn(|| outbox.pop()));
            let Some((to, message)) = in_flight.pop() else { break };
            receive(&to, &message);
            outbox.done(&to);
        }
        prop_assert!(received.iter().all(|numbers| numbers.is_sorted()));
        prop_assert_eq!(received.iter().map(Vec::len).sum::<usize>() as u64 + outbox.superseded, pushed);
        prop_assert_eq!((outbox.queued(), outbox.queues.len(), outbox.ready.len(), outbox.in_flight.len()), (0, 0, 0, 0));
    }
}
