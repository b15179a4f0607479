//! What has happened between two readings. Pure.

use std::time::Duration;

use super::reading::Reading;

/// Less is not worth a word: time servers set clocks by fractions of a second, and suspending takes some itself.
const WORTH: Duration = Duration::from_secs(2);

/// What was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Noticed {
    /// How long the machine has slept.
    pub(crate) slept: Option<Duration>,
    /// The wall clock was set: by how much, forward or back.
    pub(crate) set: Option<Set>,
}

/// How a wall clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// It was behind.
    Forward(Duration),
    /// It was ahead.
    Back(Duration),
}

impl Noticed {
    /// Says so.
    pub(super) fn log(&self) {
        if let Some(slept) = self.slept {
            tracing::info!(seconds = slept.as_secs(), "the machine has slept: sessions are judged by the whole time");
        }
        match self.set {
            Some(Set::Forward(by)) => tracing::info!(seconds = by.as_secs(), "the wall clock was set forward"),
            Some(Set::Back(by)) => tracing::warn!(
                seconds = by.as_secs(),
                "the wall clock was set back: handshakes go on from where they were, and so they will after a restart"
            ),
            None => {}
        }
    }
}

#[derive(Debug)]
pub(super) struct Watch {
    last: Reading,
}

impl Watch {
    pub(super) fn new(now: Reading) -> Self {
        Self { last: now }
    }

    /// What has happened since the last look, if it is worth a word. What is not adds up.
    pub(super) fn look(&mut self, now: Reading) -> Option<Noticed> {
        let last = self.last;
        let passed = now.boot.saturating_sub(last.boot);
        let slept = passed.saturating_sub(now.awake.saturating_sub(last.awake));
        let expected = last.wall + passed;
        let (ahead, behind) = (now.wall.saturating_sub(expected), expected.saturating_sub(now.wall));
        let noticed = Noticed {
            slept: (slept >= WORTH).then_some(slept),
            set: match (ahead >= WORTH, behind >= WORTH) {
                (true, _) => Some(Set::Forward(ahead)),
                (_, true) => Some(Set::Back(behind)),
                _ => None,
            },
        };
        let worth = noticed.slept.is_some() || noticed.set.is_some();
        if worth {
            self.last = now;
        }
        worth.then_some(noticed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    const START: Reading = Reading { awake: seconds(100), boot: seconds(130), wall: seconds(1_790_000_000) };

    /// The clocks after so many seconds awake and asleep, the wall clock set by so many.
    fn after(reading: Reading, awake: u64, asleep: u64, set: i64) -> Reading {
        let passed = seconds(awake + asleep);
        let wall = reading.wall + passed;
        let wall = if set < 0 { wall.saturating_sub(seconds(set.unsigned_abs())) } else { wall + seconds(set as u64) };
        Reading { awake: reading.awake + seconds(awake), boot: reading.boot + passed, wall }
    }

    #[test]
    fn time_that_passes_is_nothing() {
        let mut watch = Watch::new(START);
        assert_eq!(watch.look(after(START, 86_400, 0, 0)), None);
        assert_eq!(watch.look(after(START, 86_401, 1, 0)), None, "a second asleep");
    }

    #[test]
    fn sleep_is_noticed_once_and_is_no_setting_of_the_clock() {
        let mut watch = Watch::new(START);
        let woken = after(START, 10, 3600, 0);
        assert_eq!(watch.look(woken), Some(Noticed { slept: Some(seconds(3600)), set: None }));
        assert_eq!(watch.look(after(woken, 5, 0, 0)), None);
    }

    #[test]
    fn a_clock_that_is_set_is_noticed_either_way() {
        let mut watch = Watch::new(START);
        let forward = after(START, 1, 0, 50);
        assert_eq!(watch.look(forward), Some(Noticed { slept: None, set: Some(Set::Forward(seconds(50))) }));
        let back = after(forward, 1, 0, -7200);
        assert_eq!(watch.look(back), Some(Noticed { slept: None, set: Some(Set::Back(seconds(7200))) }));
        let both = after(back, 1, 60, -1_000_000_000);
        let noticed = Noticed { slept: Some(seconds(60)), set: Some(Set::Back(seconds(1_000_000_000))) };
        assert_eq!(watch.look(both), Some(noticed));
    }

    #[test]
    fn many_small_steps_add_up() {
        let mut watch = Watch::new(START);
        let first = after(START, 10, 0, 1);
        assert_eq!(watch.look(first), None);
        let second = after(first, 10, 0, 1);
        assert_eq!(watch.look(second), Some(Noticed { slept: None, set: Some(Set::Forward(seconds(2))) }));
    }
}
