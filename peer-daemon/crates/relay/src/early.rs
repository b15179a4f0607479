//! Messages that come before we know of their sender.
//!
//! A peer that is told of us first sends its handshake before we have opened a way to it. The handshake would be repeated
//! only 5 s later.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::peer_id::PeerId;

/// How long a message is worth keeping: by then it has been repeated.
const LIFETIME: Duration = Duration::from_secs(5);
/// Peers that may be early at once.
pub(crate) const MAX_PEERS: usize = 4096;
/// Longest message kept: WireGuard's handshake messages are, packets for which there can be no session are not.
const MAX_LEN: usize = 192;

/// The last early message of each peer.
#[derive(Debug, Default)]
pub(crate) struct Early {
    messages: HashMap<PeerId, (Instant, Vec<u8>)>,
}

impl Early {
    /// Keeps a copy of `payload`, in the place of an earlier one of the peer. `false`: it is too long, or there is no room.
    pub(crate) fn keep(&mut self, now: Instant, peer: PeerId, payload: &[u8]) -> bool {
        if payload.len() > MAX_LEN {
            return false;
        }
        if self.messages.len() >= MAX_PEERS && !self.messages.contains_key(&peer) {
            return false;
        }
        self.messages.insert(peer, (now, payload.to_vec()));
        true
    }

    /// The peer's message, if it is not too old.
    pub(crate) fn take(&mut self, now: Instant, peer: &PeerId) -> Option<Vec<u8>> {
        let (at, payload) = self.messages.remove(peer)?;
        (now.saturating_duration_since(at) < LIFETIME).then_some(payload)
    }

    /// Forgets what is too old.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.messages.retain(|_, (at, _)| now.saturating_duration_since(*at) < LIFETIME);
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: usize) -> PeerId {
        let mut id = PeerId([0; 36]);
        id.0[..8].copy_from_slice(&number.to_be_bytes());
        id
    }

    #[test]
    fn the_last_one_is_kept_for_a_while() {
        let t0 = Instant::now();
        let mut early = Early::default();
        assert!(early.keep(t0, peer(1), b"old") && early.keep(t0, peer(1), b"new"));
        assert_eq!(early.take(t0, &peer(1)), Some(b"new".to_vec()));
        assert_eq!(early.take(t0, &peer(1)), None);
        early.keep(t0, peer(1), b"late");
        assert_eq!(early.take(t0 + LIFETIME, &peer(1)), None);
    }

    #[test]
    fn it_is_bounded() {
        let t0 = Instant::now();
        let mut early = Early::default();
        let kept = (0..MAX_PEERS + 9).filter(|number| early.keep(t0, peer(*number), b"x")).count();
        assert_eq!((kept, early.len()), (MAX_PEERS, MAX_PEERS));
        assert!(early.keep(t0, peer(0), b"y"), "a known one may be replaced");
        assert!(!early.keep(t0, peer(0), &[0; MAX_LEN + 1]));
        early.expire(t0 + LIFETIME);
        assert_eq!(early.len(), 0);
    }
}
