//! How old what the programs have stamped is, sleep included.
//!
//! The programs' clock (`CLOCK_MONOTONIC_COARSE`) stands still while the machine sleeps, and the other ends of its flows do not.
//! So the time asleep is added to the age of what was last seen before. When exactly a sleep began is not known: what was seen
//! since the look before it counts as seen after it, and so lives longer rather than shorter than its time.

use std::time::Duration;

/// Sleeps that are remembered. Of more the oldest are forgotten, and what was seen before them counts as younger by those.
const SLEEPS: usize = 8;
/// Less is no sleep: the coarse clock is late by a tick, and suspending takes some time itself. Nanoseconds.
const WORTH: u64 = 1_000_000_000;

/// Watches the clocks.
#[derive(Debug)]
pub(super) struct Ages {
    /// Programs' clock and time since boot at the last look.
    last: (u64, u64),
    sleeps: [Sleep; SLEEPS],
}

/// A moment from which on ages are counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// On the programs' clock, nanoseconds.
    at: u64,
    /// The newest first.
    sleeps: [Sleep; SLEEPS],
}

/// A sleep.
#[derive(Clone, Copy, Debug, Default)]
struct Sleep {
    /// What was last seen until then was seen before it; on the programs' clock.
    until: u64,
    lasted: u64,
}

impl Ages {
    /// `programs`: the programs' clock; `boot`: time since boot, sleep included. Both in nanoseconds.
    pub(super) fn new(programs: u64, boot: u64) -> Self {
        Self { last: (programs, boot), sleeps: Default::default() }
    }

    /// The moment to count from now.
    pub(super) fn look(&mut self, programs: u64, boot: u64) -> Now {
        let (last_programs, last_boot) = self.last;
        let slept = boot.saturating_sub(last_boot).saturating_sub(programs.saturating_sub(last_programs));
        if slept >= WORTH {
            self.sleeps.rotate_right(1);
            self.sleeps[0] = Sleep { until: last_programs, lasted: slept };
        }
        self.last = (programs, boot);
        Now { at: programs, sleeps: self.sleeps }
    }
}

impl Now {
    /// Time since `then` on the programs' clock.
    pub(super) fn age(&self, then: u64) -> Duration {
        let awake = self.at.saturating_sub(then);
        let before = self.sleeps.iter().take_while(|sleep| then <= sleep.until).map(|sleep| sleep.lasted);
        Duration::from_nanos(before.fold(awake, u64::saturating_add))
    }
}

/// A machine that has not slept.
#[cfg(test)]
impl From<u64> for Now {
    fn from(at: u64) -> Self {
        Self { at, sleeps: Default::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn time_asleep_counts_for_what_was_seen_before_it() {
        let mut ages = Ages::new(100 * SECOND, 100 * SECOND);
        let now = ages.look(110 * SECOND, 110 * SECOND);
        assert_eq!(now.age(100 * SECOND).as_secs(), 10);
        // Ten minutes asleep, and five seconds awake.
        let now = ages.look(115 * SECOND, 715 * SECOND);
        assert_eq!(now.age(110 * SECOND).as_secs(), 605, "before it");
        assert_eq!(now.age(112 * SECOND).as_secs(), 3, "perhaps after it");
        // And again.
        let now = ages.look(120 * SECOND, 1720 * SECOND);
        assert_eq!([110, 113, 118].map(|then| now.age(then * SECOND).as_secs()), [1610, 1007, 2]);
    }

    #[test]
    fn a_late_tick_is_no_sleep() {
        let mut ages = Ages::new(100 * SECOND, 100 * SECOND);
        let now = ages.look(110 * SECOND - SECOND / 100, 110 * SECOND);
        assert_eq!(now.age(100 * SECOND), Duration::from_millis(9990));
    }

    #[test]
    fn of_many_sleeps_the_last_count() {
        let mut ages = Ages::new(SECOND, SECOND);
        let mut boot = SECOND;
        let mut now = Now::from(0);
        for turn in 1..=20 {
            boot += 101 * SECOND;
            now = ages.look((turn + 1) * SECOND, boot);
        }
        assert_eq!(now.age(SECOND).as_secs(), 20 + 8 * 100, "younger by those that are forgotten");
        assert_eq!(now.age(20 * SECOND).as_secs(), 101);
    }
}
