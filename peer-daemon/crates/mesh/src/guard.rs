//! When offers are repeated.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt as _};

/// Offers in growing intervals, until something holds.
#[derive(Clone, Debug)]
pub(crate) struct Ramp {
    interval: Duration,
    cap: Duration,
    next: Instant,
}

impl Ramp {
    /// The first offer at `first`; the second `initial` later, and so on up to a cap that differs between peers.
    pub(crate) fn new(first: Instant, initial: Duration, rng: &mut impl Rng) -> Self {
        let cap = Duration::from_millis(rng.random_range(CAP_MS));
        Self { interval: initial, cap, next: first }
    }

    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// An offer went out: twice the interval until the one after the next.
    pub(crate) fn advance(&mut self, now: Instant, rng: &mut impl Rng) {
        self.next = now + self.interval.mul_f64(rng.random_range(JITTER));
        self.interval = (self.interval * 2).min(self.cap);
    }
}

/// The official client's: 30 to 45 s.
const CAP_MS: std::ops::Range<u64> = 30_000..45_000;
const JITTER: std::ops::Range<f64> = 0.9..1.1;

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn intervals_double_up_to_the_cap() {
        let mut rng = StdRng::seed_from_u64(1);
        let start = Instant::now();
        let mut ramp = Ramp::new(start, Duration::from_secs(1), &mut rng);
        let mut now = start;
        let mut expected = Duration::from_secs(1);
        for _ in 0..12 {
            assert_eq!(ramp.next(), now);
            ramp.advance(now, &mut rng);
            let interval = ramp.next() - now;
            assert!(interval >= expected.mul_f64(0.9) && interval < expected.mul_f64(1.1), "{interval:?}");
            now = ramp.next();
            expected = (expected * 2).min(ramp.cap);
        }
        assert!(expected >= Duration::from_secs(30) && expected < Duration::from_secs(45));
    }
}
