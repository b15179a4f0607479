//! Who may be connected, and who gives way. Sans-IO.
//!
//! A new connection is always let in: a probe must be answered whoever holds the places. What it takes the place of is the
//! connection that has waited longest without asking anything, first of its own source if that has all it may have, else of
//! the sources that have most. Connections that are being answered give way last.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Instant;

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// This machine's: it comes from a loopback address or from the very address that it goes to. Nobody else can have it.
    Own,
    /// A host's, or an IPv6 network's.
    Foreign(IpAddr),
}

/// How many places there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// For connections of this machine.
    pub(crate) own: usize,
    /// For all others together.
    pub(crate) foreign: usize,
    /// For one of the others.
    pub(crate) per_source: usize,
}

/// Why a connection had to give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its source has all that one source may have.
    Source,
    /// All places were taken.
    Full,
}

/// A connection's place, unique in the life of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u64);

/// Connections, each with the `H` by which it is ended.
#[derive(Debug)]
pub(super) struct Slots<H> {
    places: Places,
    next: u64,
    held: BTreeMap<Slot, Held<H>>,
    by_source: HashMap<Source, usize>,
}

#[derive(Debug)]
struct Held<H> {
    source: Source,
    answering: bool,
    /// Since when it has waited, or has been answered.
    since: Instant,
    handle: H,
}

impl Places {
    pub(crate) fn total(&self) -> usize {
        self.own + self.foreign
    }
}

impl<H> Slots<H> {
    pub(super) fn new(places: Places) -> Self {
        Self { places, next: 0, held: BTreeMap::new(), by_source: HashMap::new() }
    }

    /// Lets a connection in. Returns as well the handle of the one that has to go for it.
    pub(super) fn admit(&mut self, source: Source, now: Instant, handle: H) -> (Slot, Option<(H, Why)>) {
        let gone = self.room_for(source).and_then(|(slot, why)| Some((self.leave(slot)?, why)));
        let slot = Slot(self.next);
        self.next += 1;
        self.held.insert(slot, Held { source, answering: false, since: now, handle });
        *self.by_source.entry(source).or_default() += 1;
        (slot, gone)
    }

    /// A request has come whole, or its answer has been taken. Nothing for a connection that has given way already.
    pub(super) fn set_answering(&mut self, slot: Slot, answering: bool, now: Instant) {
        if let Some(held) = self.held.get_mut(&slot) {
            (held.answering, held.since) = (answering, now);
        }
    }

    /// The connection has ended; its handle, unless it had given way before.
    pub(super) fn leave(&mut self, slot: Slot) -> Option<H> {
        let held = self.held.remove(&slot)?;
        if let Some(count) = self.by_source.get_mut(&held.source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&held.source);
            }
        }
        Some(held.handle)
    }

    /// Takes the one that has waited longest, whosever it is.
    pub(super) fn take_longest_waiting(&mut self) -> Option<H> {
        let slot = self.longest_waiting(|_| true)?;
        self.leave(slot)
    }

    /// Who has to go before one of `source` comes.
    fn room_for(&self, source: Source) -> Option<(Slot, Why)> {
        let of = |source: &Source| self.by_source.get(source).copied().unwrap_or_default();
        if source == Source::Own {
            let full = of(&source) >= self.places.own;
            return full
                .then(|| self.longest_waiting(|&other| other == source))
                .flatten()
                .map(|slot| (slot, Why::Full));
        }
        if of(&source) >= self.places.per_source {
            return self.longest_waiting(|&other| other == source).map(|slot| (slot, Why::Source));
        }
        if self.held.len() - of(&Source::Own) < self.places.foreign {
            return None;
        }
        let foreign = |(&source, &count): (&Source, &usize)| (source != Source::Own).then_some(count);
        let most = self.by_source.iter().filter_map(foreign).max()?;
        self.longest_waiting(|other| *other != Source::Own && of(other) == most).map(|slot| (slot, Why::Full))
    }

    fn longest_waiting(&self, of: impl Fn(&Source) -> bool) -> Option<Slot> {
        let candidates = self.held.iter().filter(|(_, held)| of(&held.source));
        candidates.min_by_key(|(slot, held)| (held.answering, held.since, **slot)).map(|(slot, _)| *slot)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const PLACES: Places = Places { own: 2, foreign: 4, per_source: 3 };

    fn host(last: u8) -> Source {
        Source::Foreign([192, 0, 2, last].into())
    }

    struct Clocked {
        slots: Slots<&'static str>,
        now: Instant,
    }

    impl Clocked {
        fn new() -> Self {
            Self { slots: Slots::new(PLACES), now: Instant::now() }
        }

        fn admit(&mut self, source: Source, name: &'static str) -> (Slot, Option<(&'static str, Why)>) {
            self.now += Duration::from_millis(1);
            self.slots.admit(source, self.now, name)
        }

        fn answering(&mut self, slot: Slot, answering: bool) {
            self.now += Duration::from_millis(1);
            self.slots.set_answering(slot, answering, self.now);
        }
    }

    #[test]
    fn a_source_with_all_its_places_gives_up_its_own() {
        let mut table = Clocked::new();
        let (other, _) = table.admit(host(9), "other");
        let (first, _) = table.admit(host(1), "first");
        table.admit(host(1), "second");
        table.admit(host(1), "third");
        table.answering(first, true);
        assert_eq!(table.admit(host(1), "fourth").1, Some(("second", Why::Source)), "the first is being answered");
        table.answering(first, false);
        assert_eq!(table.admit(host(1), "fifth").1, Some(("third", Why::Source)), "the first has asked since");
        assert_eq!(table.slots.leave(other), Some("other"), "it has waited longest of all and is untouched");
    }

    #[test]
    fn when_all_places_are_taken_those_who_have_most_give_way() {
        let mut table = Clocked::new();
        table.admit(host(9), "alone");
        for name in ["a", "b", "c"] {
            assert_eq!(table.admit(host(1), name).1, None);
        }
        assert_eq!(table.admit(host(2), "probe").1, Some(("a", Why::Full)));
        assert_eq!(table.admit(Source::Own, "kubelet").1, None, "it has places of its own");
        assert_eq!(table.admit(Source::Own, "doctor").1, None);
        assert_eq!(table.admit(Source::Own, "again").1, Some(("kubelet", Why::Full)));
    }

    #[test]
    fn the_last_resort_is_one_that_is_being_answered() {
        let mut table = Clocked::new();
        for (last, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
            let (slot, _) = table.admit(host(last), name);
            table.answering(slot, true);
        }
        assert_eq!(table.admit(host(5), "new").1, Some(("a", Why::Full)));
    }

    #[test]
    fn one_that_has_given_way_has_no_say() {
        let mut table = Clocked::new();
        let (slot, _) = table.admit(host(1), "a");
        assert_eq!(table.slots.take_longest_waiting(), Some("a"));
        table.answering(slot, true);
        assert_eq!((table.slots.leave(slot), table.slots.held.len(), table.slots.by_source.len()), (None, 0, 0));
    }

    proptest! {
        #[test]
        fn places_are_never_more_and_a_newcomer_never_waits(
            steps in prop::collection::vec((0_u8..8, any::<bool>(), any::<prop::sample::Index>()), 1..300),
        ) {
            let mut slots = Slots::new(PLACES);
            let mut now = Instant::now();
            let mut known = Vec::new();
            for (who, comes, which) in steps {
                now += Duration::from_millis(1);
                let source = if who == 0 { Source::Own } else { host(who) };
                if comes || known.is_empty() {
                    let (slot, _) = slots.admit(source, now, ());
                    prop_assert!(slots.held.contains_key(&slot));
                    known.push(slot);
                } else if who % 2 == 0 {
                    slots.set_answering(known[which.index(known.len())], who % 4 == 0, now);
                } else {
                    slots.leave(known.swap_remove(which.index(known.len())));
                }
                let own = slots.by_source.get(&Source::Own).copied().unwrap_or_default();
                prop_assert!(own <= PLACES.own && slots.held.len() - own <= PLACES.foreign);
                for (source, count) in &slots.by_source {
                    prop_assert!(*source == Source::Own || *count <= PLACES.per_source);
                    prop_assert_eq!(slots.held.values().filter(|held| held.source == *source).count(), *count);
                }
            }
        }
    }
}
