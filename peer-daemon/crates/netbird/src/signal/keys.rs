//! Keys between us and other peers, kept: each costs an X25519 operation, which is more than all else of a message.
//!
//! Anybody can send us anything, in the name of any number of keys. So what is received makes nobody forget the keys of
//! peers that we send to: keys of senders are in a small table of their own until they are answered, and of what does not
//! open nothing is kept. No I/O in here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peer_core::key::{PrivateKey, PublicKey};

use super::SignalStats;
use crate::sealed::{OpenError, Plaintext, Sealer};

/// Peers that we sent to, whose keys are kept. More than a network has.
const MAX_SENT: usize = 16_384;
/// Senders that we did not answer yet. More than events can wait for their reader.
const MAX_OPENED: usize = 512;
/// Keys kept at most.
pub(super) const MAX_KEYS: usize = MAX_SENT + MAX_OPENED;

/// The keys between ourselves and others.
pub(super) struct Keys {
    own: PrivateKey,
    kept: Mutex<Kept>,
    stats: Arc<SignalStats>,
}

struct Kept {
    sent: Table,
    opened: Table,
}

impl Keys {
    pub(super) fn new(own: PrivateKey, stats: Arc<SignalStats>) -> Self {
        let kept = Kept { sent: Table::new(MAX_SENT), opened: Table::new(MAX_OPENED) };
        Self { own, kept: Mutex::new(kept), stats }
    }

    /// Seals what we send to `peer`.
    pub(super) fn seal(&self, peer: &PublicKey, plaintext: &[u8]) -> Vec<u8> {
        let kept = self.kept().sent.get(peer);
        let sealer = kept.unwrap_or_else(|| {
            let opened = self.kept().opened.get(peer);
            let sealer = opened.unwrap_or_else(|| self.derive(peer));
            self.keep(|kept| kept.sent.insert(peer, &sealer));
            sealer
        });
        sealer.seal(plaintext)
    }

    /// Opens what came in the name of `peer`, which proves that it sent it.
    pub(super) fn open(&self, peer: &PublicKey, body: Vec<u8>) -> Result<Plaintext, OpenError> {
        let kept = self.kept().get(peer);
        if let Some(sealer) = kept {
            return sealer.open(body);
        }
        let sealer = self.derive(peer);
        let plaintext = sealer.open(body)?;
        self.keep(|kept| kept.opened.insert(peer, &sealer));
        Ok(plaintext)
    }

    fn derive(&self, peer: &PublicKey) -> Sealer {
        self.stats.on_key_derived();
        Sealer::new(&self.own, peer)
    }

    fn keep(&self, insert: impl FnOnce(&mut Kept)) {
        let mut kept = self.kept();
        insert(&mut kept);
        self.stats.set_keys(kept.len());
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A table does not panic between two changes that belong together.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn get(&mut self, peer: &PublicKey) -> Option<Sealer> {
        self.sent.get(peer).or_else(|| self.opened.get(peer))
    }

    fn len(&self) -> usize {
        self.sent.entries.len() + self.opened.entries.len()
    }
}

/// Keys by peer. Once it is full, a new one takes the place of one that was not asked for since the hand last came by.
struct Table {
    size: usize,
    places: HashMap<PublicKey, usize>,
    entries: Vec<Entry>,
    hand: usize,
}

struct Entry {
    peer: PublicKey,
    sealer: Sealer,
    used: bool,
}

impl Table {
    fn new(size: usize) -> Self {
        Self { size, places: HashMap::new(), entries: Vec::new(), hand: 0 }
    }

    fn get(&mut self, peer: &PublicKey) -> Option<Sealer> {
        let entry = &mut self.entries[*self.places.get(peer)?];
        entry.used = true;
        Some(entry.sealer.clone())
    }

    fn insert(&mut self, peer: &PublicKey, sealer: &Sealer) {
        if self.places.contains_key(peer) {
            return;
        }
        let entry = Entry { peer: *peer, sealer: sealer.clone(), used: false };
        let place = if self.entries.len() < self.size {
            // All at once: a vector that grows leaves copies of its secrets behind.
            self.entries.reserve_exact(self.size - self.entries.len());
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let place = self.unused();
            self.places.remove(&self.entries[place].peer);
            self.entries[place] = entry;
            place
        };
        self.places.insert(*peer, place);
    }

    /// The next place that was not used; those before it have until the next turn.
    fn unused(&mut self) -> usize {
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.size;
            if !std::mem::take(&mut self.entries[place].used) {
                return place;
            }
        }
    }
}

#[cfg(test)]
mod tests;
