//! Whether WireGuard sessions keep being made.

use std::time::{Duration, Instant};

/// A path that is in use, watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// A session is expected after this.
    after: Instant,
    due: Instant,
}

impl Watch {
    /// A path is in use from now on: a session must be made by it soon.
    pub(super) fn start(now: Instant) -> Self {
        Self { after: now, due: now + FIRST }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// It is due: whether the path is still good.
    pub(super) fn check(&mut self, last_handshake: Option<Instant>, now: Instant) -> bool {
        let Some(made) = last_handshake.filter(|made| *made >= self.after) else { return false };
        // From now on, one newer than this.
        self.after = made + Duration::from_nanos(1);
        self.due = made + NEXT;
        self.due > now
    }
}

/// Within this a new path must carry a handshake.
const FIRST: Duration = Duration::from_secs(30);
/// Sessions are made anew every two minutes while keepalives flow, and end after three.
const NEXT: Duration = Duration::from_secs(210);
