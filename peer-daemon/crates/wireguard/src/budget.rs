//! A token bucket.

use std::time::{Duration, Instant};

/// How many events per second, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Nanoseconds that an event costs.
    cost: u64,
    /// Nanoseconds after which an empty budget is full.
    full: u64,
}

impl Rate {
    pub(crate) const fn new(per_second: u32, burst: u32) -> Self {
        let cost = 1_000_000_000 / per_second as u64;
        Self { cost, full: cost * burst as u64 }
    }
}

/// What is left of a [`Rate`]. Depends on nothing but the times at which it is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    rate: Rate,
    /// Nanoseconds' worth of events, at most `rate.full`.
    credit: u64,
    at: Instant,
}

impl Budget {
    /// A full one.
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, credit: rate.full, at: now }
    }

    /// Takes one event. `false`: nothing is left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.take_as(1, now)
    }

    /// Takes an event that counts as so many.
    pub(crate) fn take_as(&mut self, count: u64, now: Instant) -> bool {
        self.credit = self.credit_at(now);
        self.at = self.at.max(now);
        let rest = self.credit.checked_sub(self.rate.cost * count);
        self.credit = rest.unwrap_or(self.credit);
        rest.is_some()
    }

    /// Whether it has filled up: it says nothing any more.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.credit_at(now) == self.rate.full
    }

    fn credit_at(&self, now: Instant) -> u64 {
        let since: Duration = now.saturating_duration_since(self.at);
        let since = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        self.credit.saturating_add(since).min(self.rate.full)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate::new(50, 100);

    fn taken(budget: &mut Budget, now: Instant, tries: u32) -> usize {
        (0..tries).filter(|_| budget.take(now)).count()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let t0 = Instant::now();
        let mut budget = Budget::new(RATE, t0);
        assert_eq!(taken(&mut budget, t0, 300), 100);
        assert_eq!(taken(&mut budget, t0 + Duration::from_secs(1), 300), 50);
        assert!(!budget.is_full(t0 + Duration::from_millis(2999)));
        assert!(budget.is_full(t0 + Duration::from_secs(3)));
        assert_eq!(taken(&mut budget, t0 + Duration::from_secs(3600), 300), 100, "no more than a burst is saved up");
    }

    proptest! {
        /// However the tries are spread, no span of time lets through more than a burst and its rate.
        #[test]
        fn never_more_than_a_burst_and_the_rate(pauses in prop::collection::vec(0_u64..40_000, 1..400)) {
            let start = Instant::now();
            let (mut budget, mut now, mut through) = (Budget::new(RATE, start), start, 0_u64);
            for pause in pauses {
                now += Duration::from_micros(pause);
                through += u64::from(budget.take(now));
            }
            let fair = 100 + 50 * (now - start).as_micros() as u64 / 1_000_000;
            prop_assert!(through <= fair + 1, "{} of {}", through, fair);
        }
    }
}
