//! First fragments that have gone by lately: what follows them need not wait.

use std::time::{Duration, Instant};

use super::part::Key;
use crate::limits::FIRST_FRAGMENTS;

/// First fragments remembered in each place. A peer has its place by its number; one that sends more forgets its own, and those of
/// one in 64 others.
const PER_PLACE: usize = 16;
const PLACES: usize = FIRST_FRAGMENTS / PER_PLACE;
/// As long as the programs remember them (RFC 791 §3.2).
const LIFE: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Firsts {
    /// Rings; the newest takes the place of the oldest.
    places: Box<[Place; PLACES]>,
    used: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    entries: [Option<First>; PER_PLACE],
    next: usize,
}

#[derive(Clone, Copy, Debug)]
struct First {
    peer: u32,
    packet: Key,
    seen: Instant,
}

impl Firsts {
    pub(super) fn insert(&mut self, now: Instant, peer: u32, packet: &Key) {
        let place = &mut self.places[peer as usize % PLACES];
        let same = place.entries.iter().position(|entry| entry.is_some_and(|first| first.is(peer, packet)));
        let at = same.unwrap_or(place.next);
        if same.is_none() {
            place.next = (place.next + 1) % PER_PLACE;
        }
        let old = place.entries[at].replace(First { peer, packet: *packet, seen: now });
        self.used += usize::from(old.is_none());
    }

    /// Entries in use, those included whose time is over.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    pub(super) fn contains(&self, now: Instant, peer: u32, packet: &Key) -> bool {
        let mut entries = self.places[peer as usize % PLACES].entries.iter().flatten();
        entries.any(|first| first.is(peer, packet) && now.saturating_duration_since(first.seen) <= LIFE)
    }
}

impl First {
    fn is(&self, peer: u32, packet: &Key) -> bool {
        self.peer == peer && self.packet == *packet
    }
}

impl Default for Firsts {
    fn default() -> Self {
        Self { places: Box::new([Place::default(); PLACES]), used: 0 }
    }
}
