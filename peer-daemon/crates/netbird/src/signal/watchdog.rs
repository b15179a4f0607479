//! Whether the stream is alive: no I/O in here.

use std::time::{Duration, Instant};

/// Silence after which it is tested.
const SILENCE: Duration = Duration::from_secs(30);
/// How long the test may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to do about silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Quiet,
    /// Send ourselves a heartbeat through the server.
    Test,
    /// The stream is dead.
    Dead,
}

/// Watches one stream. Any message counts as life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watchdog {
    deadline: Instant,
    testing: bool,
}

impl Watchdog {
    pub(super) fn new(now: Instant) -> Self {
        Self { deadline: now + SILENCE, testing: false }
    }

    /// A message came.
    pub(super) fn received(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// When to call [`Self::handle_timeout`].
    pub(super) const fn poll_timeout(&self) -> Instant {
        self.deadline
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Verdict {
        if now < self.deadline {
            return Verdict::Quiet;
        }
        if self.testing {
            return Verdict::Dead;
        }
        *self = Self { deadline: now + PATIENCE, testing: true };
        Verdict::Test
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn silence_is_tested_then_deadly() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(start);
        assert_eq!(watchdog.handle_timeout(start + seconds(29)), Verdict::Quiet);
        assert_eq!(watchdog.poll_timeout(), start + seconds(30));
        assert_eq!(watchdog.handle_timeout(start + seconds(30)), Verdict::Test);
        assert_eq!(watchdog.handle_timeout(start + seconds(39)), Verdict::Quiet);
        assert_eq!(watchdog.handle_timeout(start + seconds(40)), Verdict::Dead);
    }

    #[test]
    fn any_message_is_life() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(start);
        watchdog.received(start + seconds(20));
        assert_eq!(watchdog.handle_timeout(start + seconds(49)), Verdict::Quiet);
        assert_eq!(watchdog.handle_timeout(start + seconds(50)), Verdict::Test);
        watchdog.received(start + seconds(51));
        assert_eq!(watchdog.handle_timeout(start + seconds(80)), Verdict::Quiet);
        assert_eq!(watchdog.handle_timeout(start + seconds(81)), Verdict::Test);
    }
}
