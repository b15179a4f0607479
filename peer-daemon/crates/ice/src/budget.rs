//! Token buckets.

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::limits::{SOURCE_BUCKETS, SOURCE_VERIFICATIONS_BURST, SOURCE_VERIFICATIONS_PER_SECOND};

/// Full at first; one token per `1 / per_second` comes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// When it will be full again; it is full if that has passed.
    full_at: Option<Instant>,
    burst: u32,
    per_second: u32,
}

impl Bucket {
    pub(crate) const fn new(per_second: u32, burst: u32) -> Self {
        Self { full_at: None, burst, per_second }
    }

    /// How long until there is a token; zero: now.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let missing = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        (missing + self.interval()).saturating_sub(self.interval() * self.burst)
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if !self.wait(now).is_zero() {
            return false;
        }
        self.full_at = Some(self.full_at.map_or(now, |at| at.max(now)) + self.interval());
        true
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.per_second
    }
}

/// One bucket per source, in a table of fixed size: sources with the same hash share one.
#[derive(Debug)]
pub(crate) struct Sources {
    buckets: Vec<Bucket>,
    hash: RandomState,
}

impl Sources {
    pub(crate) fn new() -> Self {
        let bucket = Bucket::new(SOURCE_VERIFICATIONS_PER_SECOND, SOURCE_VERIFICATIONS_BURST);
        Self { buckets: vec![bucket; SOURCE_BUCKETS], hash: RandomState::default() }
    }

    pub(crate) fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        let key = match source.to_canonical() {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            // A host has a /64 at least.
            IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
        };
        let slot = self.hash.hash_one(key) % self.buckets.len() as u64;
        self.buckets[usize::try_from(slot).expect("less than a length")].take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 5);
        let taken = (0..20).filter(|_| bucket.take(start)).count();
        assert_eq!(taken, 5);
        assert_eq!(bucket.wait(start), Duration::from_millis(100));
        assert!(!bucket.take(start + Duration::from_millis(99)));
        let taken = (0..1000).filter(|ms| bucket.take(start + Duration::from_millis(*ms))).count();
        assert_eq!(taken, 9, "the tenth comes at 1 s");
        let later = start + Duration::from_secs(100);
        assert_eq!((0..20).filter(|_| bucket.take(later)).count(), 5, "no more than the burst is saved");
    }

    #[test]
    fn sources_are_bounded_each() {
        let (mut sources, now) = (Sources::new(), Instant::now());
        let mut taken = |ip: &str| (0..1000).filter(|_| sources.take(ip.parse().expect("an address"), now)).count();
        assert_eq!(taken("192.0.2.1"), 256);
        assert_eq!(taken("2001:db8::1"), 256);
        assert_eq!(taken("2001:db8::ffff:1"), 0, "the same /64");
    }
}
