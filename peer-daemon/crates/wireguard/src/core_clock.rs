//! Time for the Noise core, and the timestamps of our handshake initiations.
//!
//! The core is built with boringtun's feature `mock-instant`: it reads a clock of the thread, and this file alone sets that
//! clock, from the time that our caller gives. So the core has no clock of its own, like the rest of this crate.
//!
//! A responder takes an initiation only if its TAI64N timestamp is greater than all that it has seen of the peer (WireGuard
//! paper §5.1). boringtun stamps with the wall clock at the making of the tunnel, plus the time since by its instants. A wall
//! clock that went back would make every later tunnel mute. Here the instant of the making is put so far into the past that
//! the stamp is what it has to be: never less than one that this engine, or an earlier run, can have sent.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mock_instant::MockClock;

/// The core's time when the engine is made. Far enough from zero that instants of the past exist: 2000 years.
const ORIGIN: Duration = Duration::from_secs(1 << 36);
/// Stamps of two initiations differ by this much at least, also at one moment of our caller.
const STEP: Duration = Duration::from_micros(1);
/// Longest that making a tunnel may take between two looks at the wall clock; beyond, the clock was set meanwhile.
const PROMPT: Duration = Duration::from_millis(10);
/// Looks at the wall clock until one counts as undisturbed.
const TRIES: usize = 8;

#[derive(Debug)]
pub(crate) struct CoreClock {
    made: Instant,
    /// The core's time, at its latest. It never goes back.
    latest: Duration,
    /// Unix time of the stamps at [`ORIGIN`].
    stamp: Duration,
}

impl CoreClock {
    /// No stamp will be earlier than `floor`, in Unix time.
    pub(crate) fn new(floor: Duration, now: Instant) -> Self {
        let clock = Self { made: now, latest: ORIGIN, stamp: floor.max(wall_clock()) };
        MockClock::set_time(clock.latest);
        clock
    }

    /// Sets the core's clock.
    pub(crate) fn set(&mut self, now: Instant) {
        self.latest = self.latest.max(ORIGIN + now.saturating_duration_since(self.made));
        MockClock::set_time(self.latest);
    }

    /// The core has stamped an initiation, perhaps: the next one will have a later stamp.
    pub(crate) fn stamped(&mut self) {
        self.latest += STEP;
    }

    /// Calls `make`, which makes a tunnel. Its stamps are those of [`Self::newest_stamp`].
    pub(crate) fn make<T>(&mut self, now: Instant, make: impl Fn() -> T) -> T {
        self.set(now);
        let mut tries = 0;
        loop {
            let wall = wall_clock();
            let stamp = self.newest_stamp();
            // The core adds what has passed since this instant to the wall clock, and cannot subtract.
            MockClock::set_time(self.latest - stamp.saturating_sub(wall));
            let made = make();
            let late = wall_clock().checked_sub(wall).filter(|late| *late <= PROMPT);
            tries += 1;
            if let Some(late) = late.or((tries >= TRIES).then_some(PROMPT)) {
                // The wall clock may have gone on by as much before the core looked at it.
                self.stamp += wall.saturating_sub(stamp) + late;
                MockClock::set_time(self.latest);
                return made;
            }
        }
    }

    /// Unix time of a stamp that would be made now; none was later.
    pub(crate) fn newest_stamp(&self) -> Duration {
        self.stamp + (self.latest - ORIGIN)
    }
}

fn wall_clock() -> Duration {
    // Before 1970 the core cannot stamp at all.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_wall_clock_behind_the_floor_makes_no_earlier_stamp() {
        let (now, ahead) = (Instant::now(), wall_clock() + HOUR);
        let mut clock = CoreClock::new(ahead, now);
        let before = clock.newest_stamp();
        assert_eq!(before, ahead);
        // What the core does: wall clock at the making, and its instant.
        let (wall, instant) = clock.make(now, || (wall_clock(), MockClock::time()));
        clock.set(now + HOUR);
        let stamp = wall + (MockClock::time() - instant);
        assert!(stamp >= ahead + HOUR && stamp <= clock.newest_stamp(), "{stamp:?}, {:?}", clock.newest_stamp());
    }

    #[test]
    fn a_wall_clock_ahead_is_followed_by_new_tunnels() {
        let now = Instant::now();
        let mut clock = CoreClock::new(Duration::ZERO, now);
        clock.stamp -= HOUR;
        clock.make(now, || ());
        assert!(
            clock.newest_stamp() >= wall_clock() - Duration::from_secs(1),
            "as if the wall clock had been set forward"
        );
    }

    #[test]
    fn time_and_stamps_never_go_back() {
        let now = Instant::now();
        let mut clock = CoreClock::new(Duration::ZERO, now);
        clock.set(now + HOUR);
        let late = clock.newest_stamp();
        assert_eq!(clock.newest_stamp(), late);
        clock.stamped();
        clock.set(now + HOUR);
        assert!(clock.newest_stamp() > late);
        assert_eq!(MockClock::time(), ORIGIN + HOUR + STEP);
    }
}
