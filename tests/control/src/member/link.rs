//! What a member knows of one other peer, and when it asks again. Knows no clock and no socket.

use std::time::{Duration, Instant};

/// First repetition of an offer that nobody answers.
const FIRST: Duration = Duration::from_secs(1);
/// Longest time between two offers.
const LONGEST: Duration = Duration::from_secs(10);
/// Time after which a lost path is asked for again.
const AFTER_LOSS: Duration = Duration::from_millis(800);
/// Time that the peer has to begin, where it is its turn.
const TURN: Duration = Duration::from_secs(5);

/// The connection with one peer.
#[derive(Debug)]
pub(crate) struct Link {
    /// It is our home relay where both meet, and our turn to begin.
    pub(crate) controller: bool,
    /// The relay where both meet, once known.
    pub(crate) relay: Option<String>,
    /// The peer is there.
    pub(crate) online: bool,
    /// Nothing is offered until somebody wants something.
    pub(crate) asleep: bool,
    next_offer: Option<Instant>,
    wait: Duration,
    take_turn: Option<Instant>,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// An offer.
    Offer,
    /// The first packet, though it is the peer's turn.
    Begin,
}

impl Link {
    pub(crate) fn new(own_key: &str, peer_key: &str, asleep: bool, now: Instant) -> Self {
        Self {
            controller: own_key > peer_key,
            relay: None,
            online: false,
            asleep,
            next_offer: (!asleep).then_some(now),
            wait: FIRST,
            take_turn: None,
        }
    }

    /// What is due now; each is told once.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Due> {
        if self.take_turn.is_some_and(|at| at <= now) {
            self.take_turn = None;
            return Some(Due::Begin);
        }
        if self.online || self.next_offer.is_none_or(|at| at > now) {
            return None;
        }
        self.next_offer = Some(now + self.wait);
        self.wait = (self.wait * 2).min(LONGEST);
        Some(Due::Offer)
    }

    /// Somebody wants something: the peer, or traffic for it.
    pub(crate) fn wake(&mut self, now: Instant) {
        if self.asleep {
            self.asleep = false;
            self.ask(now);
        }
    }

    /// The peer goes to sleep.
    pub(crate) fn sleep(&mut self) {
        (self.asleep, self.online, self.next_offer, self.take_turn) = (true, false, None, None);
    }

    /// Offers from now on.
    pub(crate) fn ask(&mut self, now: Instant) {
        (self.online, self.next_offer, self.wait) = (false, Some(now), FIRST);
    }

    /// The peer is at the relay. Returns whether it is our turn to begin.
    pub(crate) fn came(&mut self, now: Instant) -> bool {
        self.online = true;
        self.take_turn = (!self.controller).then_some(now + TURN);
        self.controller
    }

    /// The peer, or the relay, is gone.
    pub(crate) fn lost(&mut self, now: Instant) {
        self.take_turn = None;
        if !self.asleep {
            self.ask(now + AFTER_LOSS);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Due, Link};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn offers_until_the_peer_is_there() {
        let now = Instant::now();
        let mut link = Link::new("b", "a", false, now);
        assert!(link.controller);
        assert_eq!(link.due(now), Some(Due::Offer));
        assert_eq!(link.due(now), None);
        assert_eq!(link.due(now + SECOND), Some(Due::Offer));
        assert_eq!(link.due(now + SECOND * 2), None, "the next is due after two seconds");
        assert!(link.came(now), "the controller begins");
        assert_eq!(link.due(now + SECOND * 60), None);
        link.lost(now + SECOND * 60);
        assert_eq!(link.due(now + SECOND * 60), None);
        assert_eq!(link.due(now + SECOND * 61), Some(Due::Offer));
    }

    #[test]
    fn begins_out_of_turn_after_five_seconds() {
        let now = Instant::now();
        let mut link = Link::new("a", "b", false, now);
        assert!(!link.came(now));
        assert_eq!(link.due(now + SECOND * 4), None);
        assert_eq!(link.due(now + SECOND * 5), Some(Due::Begin));
        assert_eq!(link.due(now + SECOND * 6), None);
    }

    #[test]
    fn sleeps_until_woken() {
        let now = Instant::now();
        let mut link = Link::new("a", "b", true, now);
        assert_eq!(link.due(now), None);
        link.lost(now);
        assert_eq!(link.due(now + SECOND), None);
        link.wake(now);
        assert_eq!(link.due(now), Some(Due::Offer));
        link.sleep();
        assert_eq!(link.due(now + SECOND * 60), None);
    }
}
