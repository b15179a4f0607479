//! When offers are repeated.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt as _};

/// Offers in growing intervals, until something holds.
#[derive(Clone, Debug)]
pub(crate) struct Ramp {
    interval: Duration,
    cap: Duration,
    next: Instant,
    sent: u32,
}

impl Ramp {
    /// The first offer at `first`; the second `initial` later, and so on up to a cap that differs between peers.
    pub(crate) fn new(first: Instant, initial: Duration, rng: &mut impl Rng) -> Self {
        let cap = Duration::from_millis(rng.random_range(CAP_MS));
        Self { interval: initial, cap, next: first, sent: 0 }
    }

    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// An offer went out: twice the interval until the one after the next. `has_path`: it was for a better path than the one
    /// in use, which has time after a few.
    pub(crate) fn advance(&mut self, now: Instant, has_path: bool, rng: &mut impl Rng) {
        self.sent = self.sent.saturating_add(1);
        if has_path && self.sent >= OFFERS_WITH_PATH {
            self.next = now + PAUSE_WITH_PATH.mul_f64(rng.random_range(JITTER));
            return;
        }
        self.next = now + self.interval.mul_f64(rng.random_range(JITTER));
        self.interval = (self.interval * 2).min(self.cap);
    }
}

/// So many offers are made for a better path, then one in so long a time: as the official client does.
const OFFERS_WITH_PATH: u32 = 3;
pub(crate) const PAUSE_WITH_PATH: Duration = Duration::from_secs(3600);
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
            ramp.advance(now, false, &mut rng);
            let interval = ramp.next() - now;
            assert!(interval >= expected.mul_f64(0.9) && interval < expected.mul_f64(1.1), "{interval:?}");
            now = ramp.next();
            expected = (expected * 2).min(ramp.cap);
        }
        assert!(expected >= Duration::from_secs(30) && expected < Duration::from_secs(45));
    }

    #[test]
    fn for_a_better_path_three_are_made_and_then_one_an_hour() {
        let mut rng = StdRng::seed_from_u64(1);
        let start = Instant::now();
        let mut ramp = Ramp::new(start, Duration::from_secs(1), &mut rng);
        let mut times = Vec::new();
        for _ in 0..5 {
            times.push(ramp.next() - start);
            ramp.advance(ramp.next(), true, &mut rng);
        }
        assert!(times[2] < Duration::from_secs(4), "{times:?}");
        for pair in times[2..].windows(2) {
            let gap = pair[1] - pair[0];
            assert!(gap >= PAUSE_WITH_PATH.mul_f64(0.9) && gap < PAUSE_WITH_PATH.mul_f64(1.1), "{times:?}");
        }
    }
}
