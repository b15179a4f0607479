//! A token bucket per source address, before the device-wide limiter: one loud source must not bring cookies upon all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::limits::{SOURCE_BUCKETS, SOURCE_BURST, SOURCE_RATE};

/// Time to fill an empty bucket: a bucket that was idle for so long says nothing any more.
const REFILL: Duration = Duration::from_millis(1000 * SOURCE_BURST as u64 / SOURCE_RATE as u64);

/// Buckets by IPv4 address or IPv6 /64 (what one host commonly has to itself), at most [`SOURCE_BUCKETS`]. When the
/// table is full, further sources pass: then the cookies of the device-wide limiter tell real ones from invented ones.
#[derive(Debug, Default)]
pub(crate) struct SourceBuckets {
    buckets: HashMap<IpAddr, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Time worth of tokens, at most [`REFILL`].
    credit: Duration,
    at: Instant,
}

impl SourceBuckets {
    /// Takes a token of `source`. `false`: it has none left.
    pub(crate) fn take(&mut self, now: Instant, source: IpAddr) -> bool {
        const COST: Duration = Duration::from_millis(1000 / SOURCE_RATE as u64);
        let source = group(source);
        if self.buckets.len() >= SOURCE_BUCKETS && !self.buckets.contains_key(&source) {
            return true;
        }
        let bucket = self.buckets.entry(source).or_insert(Bucket { credit: REFILL, at: now });
        bucket.credit = (bucket.credit + now.saturating_duration_since(bucket.at)).min(REFILL);
        bucket.at = now;
        let rest = bucket.credit.checked_sub(COST);
        bucket.credit = rest.unwrap_or(bucket.credit);
        rest.is_some()
    }

    /// Forgets buckets that are full again.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.buckets.retain(|_, bucket| bucket.credit + now.saturating_duration_since(bucket.at) < REFILL);
    }

    pub(crate) fn len(&self) -> usize {
        self.buckets.len()
    }
}

fn group(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn a_burst_then_the_rate_and_others_are_untouched() {
        let t0 = Instant::now();
        let mut buckets = SourceBuckets::default();
        let passed = (0..SOURCE_BURST * 3).filter(|_| buckets.take(t0, v4(1))).count();
        assert_eq!(passed, SOURCE_BURST as usize);
        assert!(buckets.take(t0, v4(2)));
        let later = t0 + Duration::from_secs(1);
        let passed = (0..SOURCE_BURST * 3).filter(|_| buckets.take(later, v4(1))).count();
        assert_eq!(passed, SOURCE_RATE as usize);
    }

    #[test]
    fn one_ipv6_network_is_one_source() {
        let t0 = Instant::now();
        let mut buckets = SourceBuckets::default();
        let passed = (0..SOURCE_BURST * 2)
            .filter(|host| buckets.take(t0, Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(*host)).into()))
            .count();
        assert_eq!((passed, buckets.len()), (SOURCE_BURST as usize, 1));
    }

    #[test]
    fn the_table_is_bounded_and_empties_itself() {
        let t0 = Instant::now();
        let mut buckets = SourceBuckets::default();
        for host in 0..SOURCE_BUCKETS as u32 + 500 {
            assert!(buckets.take(t0, IpAddr::V4(host.into())));
        }
        assert_eq!(buckets.len(), SOURCE_BUCKETS);
        buckets.expire(t0);
        assert_eq!(buckets.len(), SOURCE_BUCKETS);
        buckets.expire(t0 + REFILL);
        assert_eq!(buckets.len(), 0);
    }
}
