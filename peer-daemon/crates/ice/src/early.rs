//! Candidates that came before their session. Signalling keeps no order, and a peer may send candidates before its answer.

use std::collections::VecDeque;
use std::time::Instant;

use foldhash::{HashMap, HashMapExt as _};
use peer_core::key::PublicKey;

use crate::candidate::Candidate;
use crate::limits::{EARLY_PEERS, EARLY_PER_PEER, EARLY_TTL};

/// What the last seconds brought, by peer.
#[derive(Debug)]
pub(crate) struct Early {
    peers: HashMap<PublicKey, Vec<(Instant, Candidate)>>,
    /// In the order of their arrival.
    ages: VecDeque<(Instant, PublicKey)>,
    count: usize,
}

impl Early {
    pub(crate) fn new() -> Self {
        Self { peers: HashMap::new(), ages: VecDeque::new(), count: 0 }
    }

    /// Whether there was room.
    pub(crate) fn push(&mut self, peer: PublicKey, candidate: Candidate, now: Instant) -> bool {
        self.expire(now);
        if self.peers.len() >= EARLY_PEERS && !self.peers.contains_key(&peer) {
            return false;
        }
        let candidates = self.peers.entry(peer).or_default();
        if candidates.len() >= EARLY_PER_PEER {
            return false;
        }
        candidates.push((now, candidate));
        self.count += 1;
        self.ages.push_back((now, peer));
        true
    }

    /// Those of a peer with this fragment; the peer's others are dropped.
    pub(crate) fn take(&mut self, peer: &PublicKey, ufrag: &str, now: Instant) -> Vec<Candidate> {
        self.expire(now);
        let candidates = self.peers.remove(peer).unwrap_or_default();
        self.count -= candidates.len();
        let candidates = candidates.into_iter().map(|(_, candidate)| candidate);
        candidates.filter(|candidate| candidate.ufrag.as_deref().is_none_or(|of| of == ufrag)).collect()
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((at, peer)) = self.ages.front().copied().filter(|(at, _)| now >= *at + EARLY_TTL) {
            self.ages.pop_front();
            if let Some(candidates) = self.peers.get_mut(&peer) {
                self.count -= candidates.len();
                candidates.retain(|(since, _)| *since > at);
                self.count += candidates.len();
                if candidates.is_empty() {
                    self.peers.remove(&peer);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::candidate::Kind;

    fn candidate(ufrag: &str) -> Candidate {
        let address = "192.0.2.1:51820".parse().expect("an address");
        Candidate { ufrag: Some(ufrag.to_owned()), ..Candidate::new(Kind::Host, address, None) }
    }

    fn peer(number: usize) -> PublicKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(number as u64).to_be_bytes());
        PublicKey(key)
    }

    #[test]
    fn kept_for_a_while_and_by_fragment() {
        let (mut early, start) = (Early::new(), Instant::now());
        let late = start + EARLY_TTL - Duration::from_millis(1);
        assert!(early.push(peer(1), candidate("a"), start));
        assert!(early.push(peer(2), candidate("a"), start));
        assert!(early.push(peer(2), candidate("a"), late));
        assert!(early.push(peer(1), candidate("b"), late));
        assert_eq!(early.take(&peer(1), "a", late), [candidate("a")]);
        assert!(early.take(&peer(1), "b", late).is_empty(), "the rest went with it");
        assert_eq!(early.take(&peer(2), "a", start + EARLY_TTL).len(), 1, "the first is too old");
    }

    #[test]
    fn bounded() {
        let (mut early, now) = (Early::new(), Instant::now());
        let kept = (0..100).filter(|_| early.push(peer(0), candidate("a"), now)).count();
        assert_eq!(kept, EARLY_PER_PEER);
        let kept = (1..2 * EARLY_PEERS).filter(|number| early.push(peer(*number), candidate("a"), now)).count();
        assert_eq!(kept, EARLY_PEERS - 1);
        early.expire(now + EARLY_TTL);
        assert_eq!((early.len(), early.ages.len()), (0, 0));
    }
}
