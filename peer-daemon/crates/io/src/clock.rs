//! The clock of shards: it counts while the machine sleeps.
//!
//! WireGuard's timers are about what the other side has forgotten, and that goes on while we sleep. `Instant::now` stands
//! still then (`CLOCK_MONOTONIC`), this one does not (`CLOCK_BOOTTIME`). Both are `Instant`s, and until the first sleep the
//! same; after it, one of these is later than any of those: never mix them.

mod alarm;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

pub use self::alarm::Alarm;

/// Now.
#[must_use]
pub fn now() -> Instant {
    static FIRST: OnceLock<(Instant, Duration)> = OnceLock::new();
    let boot = since_boot();
    at(*FIRST.get_or_init(|| (Instant::now(), boot)), boot)
}

/// The time at `boot`, by a moment that both clocks have shown.
fn at((instant, at): (Instant, Duration), boot: Duration) -> Instant {
    instant + boot.saturating_sub(at)
}

/// Time since the kernel booted, sleep included; in a time namespace, since its own beginning.
#[must_use]
pub fn since_boot() -> Duration {
    // The kernel's times since boot are neither negative nor beyond what this holds.
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_while_the_machine_sleeps() {
        let (instant, boot) = (Instant::now(), Duration::from_secs(100));
        let hour = Duration::from_secs(3600);
        assert_eq!(at((instant, boot), boot), instant);
        assert_eq!(at((instant, boot), boot + hour), instant + hour, "asleep or awake");
        assert_eq!(at((instant, boot), boot - hour / 100), instant, "never before the first");
    }

    #[test]
    fn it_goes_on_and_never_back() {
        let first = now();
        let boot = since_boot();
        assert!(boot > Duration::ZERO);
        while since_boot() == boot {
            std::hint::spin_loop();
        }
        let second = now();
        assert!(second > first && second - first < Duration::from_secs(60));
    }
}
