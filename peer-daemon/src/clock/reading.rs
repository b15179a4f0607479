//! One look at all clocks.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What the clocks say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Time since boot without sleep.
    pub(super) awake: Duration,
    /// Time since boot.
    pub(super) boot: Duration,
    /// Unix time.
    pub(super) wall: Duration,
}

impl Reading {
    pub(super) fn now() -> Self {
        // A wall clock before 1970 is taken for 1970: wrong enough.
        let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
        Self { awake: read(ClockId::Monotonic), boot: read(ClockId::Boottime), wall: read(ClockId::Realtime) }
    }
}
