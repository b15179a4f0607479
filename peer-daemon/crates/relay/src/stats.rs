//! What relay connections have done. Datagrams are counted where they pass, by the shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter, or the sum of what several connections have.
#[derive(Debug, Default)]
pub struct Figure(AtomicU64);

impl Figure {
    /// The value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn sub(&self, value: u64) {
        self.0.fetch_sub(value, Ordering::Relaxed);
    }
}

/// Figures of all connections.
#[derive(Debug, Default)]
pub struct RelayStats {
    /// Connections to relays that let us in.
    pub connected: Figure,
    /// Ways to peers, open or being opened.
    pub ways: Figure,
    /// Messages kept that came before their sender was known.
    pub early: Figure,
    /// Such messages that were not kept.
    pub early_dropped: Figure,
    /// Connections that were made.
    pub connects: Figure,
    /// Attempts that failed.
    pub failures: Figure,
    /// Connections that broke.
    pub breaks: Figure,
    /// Health checks of relays, each answered.
    pub health_checks: Figure,
    /// Tokens that management gave.
    pub tokens: Figure,
    /// Messages that could not be read, and were ignored.
    pub malformed: Figure,
    /// Datagrams that came in parts for which there was no room.
    pub no_room: Figure,
}

/// One connection's part of a sum; it leaves with it.
#[derive(Debug)]
pub(crate) struct Share {
    stats: Arc<RelayStats>,
    figure: fn(&RelayStats) -> &Figure,
    value: u64,
}

impl Share {
    pub(crate) fn new(stats: &Arc<RelayStats>, figure: fn(&RelayStats) -> &Figure) -> Self {
        Self { stats: Arc::clone(stats), figure, value: 0 }
    }

    pub(crate) fn set(&mut self, value: usize) {
        let figure = (self.figure)(&self.stats);
        figure.add(value as u64);
        figure.sub(std::mem::replace(&mut self.value, value as u64));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_leave() {
        let stats = Arc::new(RelayStats::default());
        let (mut a, mut b) = (Share::new(&stats, |stats| &stats.ways), Share::new(&stats, |stats| &stats.ways));
        a.set(5);
        b.set(3);
        a.set(2);
        assert_eq!(stats.ways.get(), 5);
        drop(a);
        assert_eq!(stats.ways.get(), 3);
    }
}
