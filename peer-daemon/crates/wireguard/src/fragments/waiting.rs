//! Fragments that wait: a pool of fixed size.

use std::collections::VecDeque;
use std::time::Instant;

use peer_core::batch::PacketBatch;

use super::part::{Key, Part};
use crate::limits::{DEFAULT_MTU, FRAGMENT_PATIENCE, WAITING_FRAGMENTS, WAITING_FRAGMENTS_OF_PEER};

/// Room beyond those that wait, for what has been let go and not been fetched yet: it is fetched after each batch.
const ON_THE_WAY: usize = 64;
const SLOTS: usize = WAITING_FRAGMENTS + ON_THE_WAY;

#[derive(Debug)]
pub(super) struct Waiting {
    /// A slot of `longest` bytes for each.
    bytes: Box<[u8]>,
    longest: usize,
    /// In the order of arrival.
    waiting: VecDeque<Held>,
    /// What has been let go, in the order in which it goes on: slots and lengths.
    ready: VecDeque<(usize, usize)>,
    free: Vec<usize>,
    /// How many of each peer wait, of those that have any.
    counts: Vec<(u32, usize)>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    peer: u32,
    part: Part,
    due: Instant,
    slot: usize,
    len: usize,
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// It waits.
    pub(super) held: bool,
    /// So many others had to make room.
    pub(super) evicted: u64,
}

impl Waiting {
    fn of(longest: usize) -> Self {
        Self {
            // Zeroed pages cost no memory until they are touched.
            bytes: vec![0; SLOTS * longest].into_boxed_slice(),
            longest,
            waiting: VecDeque::with_capacity(SLOTS),
            ready: VecDeque::with_capacity(SLOTS),
            free: (0..SLOTS).rev().collect(),
            counts: Vec::with_capacity(WAITING_FRAGMENTS),
        }
    }

    pub(super) fn set_longest(&mut self, bytes: usize) {
        if self.longest != bytes {
            *self = Self::of(bytes);
        }
    }

    /// How many wait. What has been let go does not count.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Keeps a fragment. A peer with its share full gives up its oldest; a full pool the oldest of the peer that has most. One
    /// for which there is no room, or that is longer than any may be, is not kept.
    pub(super) fn insert(&mut self, now: Instant, peer: u32, part: &Part, packet: &[u8]) -> Taken {
        let mut taken = Taken::default();
        if packet.len() > self.longest || self.free.is_empty() {
            return taken;
        }
        let own = self.count(peer);
        let gives_way = if own >= WAITING_FRAGMENTS_OF_PEER {
            Some(peer)
        } else if self.waiting.len() >= WAITING_FRAGMENTS {
            self.richest()
        } else {
            None
        };
        if let Some(loser) = gives_way
            && let Some(at) = self.waiting.iter().position(|held| held.peer == loser)
        {
            self.let_go(at);
            taken.evicted = 1;
        }
        let Some(slot) = self.free.pop() else { return taken };
        let (start, len) = (slot * self.longest, packet.len());
        self.bytes[start..start + len].copy_from_slice(packet);
        self.waiting.push_back(Held { peer, part: *part, due: now + FRAGMENT_PATIENCE, slot, len });
        match self.counts.iter_mut().find(|(other, _)| *other == peer) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((peer, 1)),
        }
        taken.held = true;
        taken
    }

    /// Lets go those that have waited for this packet's first, the nearest to it first. Returns how many.
    pub(super) fn release(&mut self, peer: u32, packet: &Key) -> u64 {
        let mut count = 0;
        loop {
            let of_it = |held: &Held| held.peer == peer && held.part.packet == *packet;
            let next =
                (0..).zip(&self.waiting).filter(|(_, held)| of_it(held)).min_by_key(|(_, held)| held.part.offset);
            let Some((at, _)) = next else { return count };
            self.let_go(at);
            count += 1;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        // All wait equally long.
        self.waiting.front().map(|held| held.due)
    }

    /// Lets go those that are due. Returns how many.
    pub(super) fn expire(&mut self, now: Instant) -> u64 {
        let mut count = 0;
        while self.deadline().is_some_and(|due| due <= now) {
            self.let_go(0);
            count += 1;
        }
        count
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Appends what has been let go, as long as there is room. Returns whether there is more.
    pub(super) fn drain_into(&mut self, packets: &mut PacketBatch) -> bool {
        while let Some(&(slot, len)) = self.ready.front() {
            let start = slot * self.longest;
            if !packets.push(&self.bytes[start..start + len], ()) {
                return true;
            }
            self.ready.pop_front();
            self.free.push(slot);
        }
        false
    }

    fn let_go(&mut self, at: usize) {
        let Some(Held { peer, slot, len, .. }) = self.waiting.remove(at) else { return };
        self.ready.push_back((slot, len));
        if let Some(at) = self.counts.iter().position(|(other, _)| *other == peer) {
            self.counts[at].1 -= 1;
            if self.counts[at].1 == 0 {
                self.counts.swap_remove(at);
            }
        }
    }

    fn count(&self, peer: u32) -> usize {
        self.counts.iter().find(|(other, _)| *other == peer).map_or(0, |(_, count)| *count)
    }

    fn richest(&self) -> Option<u32> {
        self.counts.iter().max_by_key(|(_, count)| *count).map(|(peer, _)| *peer)
    }
}

impl Default for Waiting {
    fn default() -> Self {
        Self::of(DEFAULT_MTU.into())
    }
}
