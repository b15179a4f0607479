//! What is known of pairs that answered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::limits::PAIRS;

/// A candidate pair by its addresses; the local one is that of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// A pair that answered at least once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Track {
    pub(super) pair: Pair,
    /// When the last response came.
    pub(super) response: Instant,
    /// When the first check was sent that has no response, nor has a later one.
    pub(super) unanswered: Option<Instant>,
    pub(super) round_trip: Duration,
    /// Our address as the peer sees it.
    pub(super) mapped: SocketAddr,
}

/// All of a session; of too many, the one that has been silent for longest goes.
#[derive(Debug, Default)]
pub(super) struct Tracks(Vec<Track>);

impl Tracks {
    pub(super) fn get(&self, pair: Pair) -> Option<&Track> {
        self.0.iter().find(|track| track.pair == pair)
    }

    /// The pair that answered last, this one left out.
    pub(super) fn latest_but(&self, pair: Pair) -> Option<&Track> {
        self.0.iter().filter(|track| track.pair != pair).max_by_key(|track| track.response)
    }

    /// A check was sent.
    pub(super) fn sent(&mut self, pair: Pair, now: Instant) {
        if let Some(track) = self.0.iter_mut().find(|track| track.pair == pair) {
            track.unanswered.get_or_insert(now);
        }
    }

    /// A response came; whether it is the pair's first.
    pub(super) fn answered(&mut self, pair: Pair, mapped: SocketAddr, round_trip: Duration, now: Instant) -> bool {
        let track = Track { pair, response: now, unanswered: None, round_trip, mapped };
        if let Some(known) = self.0.iter_mut().find(|known| known.pair == pair) {
            *known = track;
            return false;
        }
        if self.0.len() >= PAIRS
            && let Some((oldest, _)) = self.0.iter().enumerate().min_by_key(|(_, track)| track.response)
        {
            self.0.swap_remove(oldest);
        }
        self.0.push(track);
        true
    }

    pub(super) fn remove_local(&mut self, local: SocketAddr) {
        self.0.retain(|track| track.pair.local != local);
    }
}
