//! When which peer wants to be looked at.

use std::collections::BTreeSet;
use std::time::Instant;

/// At most one deadline per peer; peers without one cost nothing.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    order: BTreeSet<(Instant, u32)>,
    of_peer: Vec<Option<Instant>>,
}

impl Deadlines {
    /// Sets, moves or removes the deadline of `peer`.
    pub(crate) fn set(&mut self, peer: u32, at: Option<Instant>) {
        let slot = peer as usize;
        if slot >= self.of_peer.len() {
            if at.is_none() {
                return;
            }
            self.of_peer.resize(slot + 1, None);
        }
        let old = std::mem::replace(&mut self.of_peer[slot], at);
        if old == at {
            return;
        }
        if let Some(old) = old {
            self.order.remove(&(old, peer));
        }
        if let Some(at) = at {
            self.order.insert((at, peer));
        }
    }

    /// The earliest.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out the earliest that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let (at, peer) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.set(peer, None);
        Some(peer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn due_ones_come_out_in_order_and_once() {
        let t0 = Instant::now();
        let at = |ms| t0 + Duration::from_millis(ms);
        let mut deadlines = Deadlines::default();
        deadlines.set(9, None);
        deadlines.set(3, Some(at(30)));
        deadlines.set(1, Some(at(10)));
        deadlines.set(2, Some(at(20)));
        deadlines.set(3, Some(at(5)));
        deadlines.set(2, None);
        assert_eq!(deadlines.next(), Some(at(5)));
        assert_eq!(deadlines.pop_due(at(4)), None);
        assert_eq!(deadlines.pop_due(at(10)), Some(3));
        assert_eq!(deadlines.pop_due(at(10)), Some(1));
        assert_eq!(deadlines.pop_due(at(99)), None);
        assert_eq!(deadlines.next(), None);
    }
}
