//! A token bucket per source of handshake messages that has proven its address: one loud host must not use up what all
//! proven sources share.
//!
//! Only proven sources are counted. Anybody can write a member's address on a datagram; counted there, such datagrams would
//! lock the member out.

use std::collections::HashMap;
use std::time::Instant;

use crate::budget::Budget;
use crate::limits::{SOURCE_BUCKETS, SOURCE_RATE};

/// Buckets by what one host commonly has to itself ([`Source`]), at most [`SOURCE_BUCKETS`]. Removed when full again. When
/// the table is full, further sources pass: what all of them share still holds.
#[derive(Debug, Default)]
pub(crate) struct SourceBuckets {
    buckets: HashMap<Source, Budget>,
}

/// An IPv4 address, an IPv6 /64, or a peer of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    V4(u32),
    V6(u64),
    Relay(u64),
}

impl SourceBuckets {
    /// Takes a token of `source`. `false`: it has none left.
    pub(crate) fn take(&mut self, now: Instant, source: Source) -> bool {
        if self.buckets.len() >= SOURCE_BUCKETS && !self.buckets.contains_key(&source) {
            return true;
        }
        self.buckets.entry(source).or_insert_with(|| Budget::new(SOURCE_RATE, now)).take(now)
    }

    /// Forgets buckets that are full again.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }

    pub(crate) fn len(&self) -> usize {
        self.buckets.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn others_are_untouched() {
        let t0 = Instant::now();
        let mut buckets = SourceBuckets::default();
        let passed = (0..300).filter(|_| buckets.take(t0, Source::V4(1))).count();
        assert_eq!(passed, 100);
        assert!(buckets.take(t0, Source::V4(2)));
        assert!(buckets.take(t0, Source::V6(1)) && buckets.take(t0, Source::Relay(1)));
        let later = t0 + Duration::from_secs(1);
        let passed = (0..300).filter(|_| buckets.take(later, Source::V4(1))).count();
        assert_eq!(passed, 50);
    }

    #[test]
    fn the_table_is_bounded_and_empties_itself() {
        let t0 = Instant::now();
        let mut buckets = SourceBuckets::default();
        for host in 0..SOURCE_BUCKETS as u32 + 500 {
            assert!(buckets.take(t0, Source::V4(host)));
        }
        assert_eq!(buckets.len(), SOURCE_BUCKETS);
        buckets.expire(t0);
        assert_eq!(buckets.len(), SOURCE_BUCKETS);
        buckets.expire(t0 + Duration::from_secs(2));
        assert_eq!(buckets.len(), 0);
    }
}
