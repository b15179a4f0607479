//! Exponential backoff with jitter, without a clock.

use std::time::Duration;

use rand::RngExt as _;

/// How waits grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The first wait, before jitter.
    pub initial: Duration,
    /// Factor from one to the next.
    pub multiplier: f64,
    /// The longest, before jitter.
    pub cap: Duration,
    /// Share by which a wait is moved at most, up or down: 0.5 makes 0.5 to 1.5 times of it.
    pub jitter: f64,
}

impl Schedule {
    /// For servers that are away. The official client goes up to 10 s with full jitter, so to 20 s; ours is back within
    /// 10 s of the server's return, its attempt's own time included.
    pub const RECONNECT: Self =
        Self { initial: Duration::from_millis(800), multiplier: 1.7, cap: Duration::from_secs(4), jitter: 0.5 };

    /// For a server that says no: somebody has to change something first.
    pub const REFUSED: Self =
        Self { initial: Duration::from_secs(5), multiplier: 2.0, cap: Duration::from_secs(60), jitter: 0.2 };
}

/// Waits of a [`Schedule`], one after the other.
#[derive(Clone, Debug)]
pub struct Backoff {
    schedule: Schedule,
    next: Duration,
}

impl Backoff {
    /// At its first wait.
    #[must_use]
    pub const fn new(schedule: Schedule) -> Self {
        Self { schedule, next: schedule.initial }
    }

    /// The wait before the next attempt.
    pub fn wait(&mut self, rng: &mut impl rand::Rng) -> Duration {
        let Schedule { multiplier, cap, jitter, .. } = self.schedule;
        let wait = self.next.mul_f64(rng.random_range(1.0 - jitter..=1.0 + jitter));
        self.next = self.next.mul_f64(multiplier).min(cap);
        wait
    }

    /// Starts over, after a success.
    pub const fn reset(&mut self) {
        self.next = self.schedule.initial;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_over() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Schedule { jitter: 0.0, ..Schedule::RECONNECT });
        let waits: Vec<_> = (0..5).map(|_| backoff.wait(&mut rng).as_millis()).collect();
        assert_eq!(waits, [800, 1360, 2312, 3930, 4000]);
        backoff.reset();
        assert_eq!(backoff.wait(&mut rng).as_millis(), 800);
    }

    #[test]
    fn jitter_stays_in_its_bounds_and_is_there() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut backoff = Backoff::new(Schedule::RECONNECT);
        let waits: Vec<_> = (0..1000).map(|_| backoff.wait(&mut rng)).skip(5).collect();
        assert!(waits.iter().all(|wait| (Duration::from_secs(2)..=Duration::from_secs(6)).contains(wait)));
        assert!(waits.iter().any(|wait| *wait < Duration::from_millis(2500)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_millis(5500)));
    }
}
