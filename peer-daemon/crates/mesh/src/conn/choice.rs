//! Which path is used: the best that is up.

use std::time::{Duration, Instant};

use peer_core::path::Path;

use super::watch::Watch;
use super::{CONTROLLER_HEADSTART, Conn, HANDSHAKE_PAUSES};
use crate::mesh::Shared;
use crate::types::{Action, PathKind};

impl Conn {
    pub(super) fn path_up(&mut self, shared: &mut Shared, (kind, path): (PathKind, Path), attempt: u32, now: Instant) {
        let news = match kind {
            PathKind::Relay => self.relay.up(attempt, kind, path),
            PathKind::Turn | PathKind::Direct => self.direct.up(attempt, kind, path),
        };
        // Else it is of an earlier attempt.
        if news {
            if kind != PathKind::Relay {
                self.ice.forgive();
            }
            self.choose(shared, now);
        }
    }

    pub(super) fn path_down(&mut self, shared: &mut Shared, kind: PathKind, attempt: u32, now: Instant) {
        if kind == PathKind::Relay {
            if self.relay.down(attempt) {
                self.choose(shared, now);
                self.retry(shared, now);
            }
            return;
        }
        let was_up = self.direct.path().is_some();
        if !self.direct.down(attempt) {
            return;
        }
        self.ice.ended();
        self.choose(shared, now);
        if was_up {
            // At once: the peer may not have noticed yet, and leaves a path that is dead when it hears of another session.
            self.retry_after(shared, Duration::ZERO, now);
        } else {
            self.ice.failed();
            self.retry(shared, now);
        }
    }

    /// No session is made by the path in use: it is not what it seems.
    pub(super) fn give_up_path(&mut self, shared: &mut Shared, now: Instant) {
        match self.path.or(self.best()) {
            Some((PathKind::Turn | PathKind::Direct, _)) => {
                self.close_ice(shared);
                self.ice.failed();
            }
            Some((PathKind::Relay, _)) | None => self.close_relay(shared),
        }
        self.choose(shared, now);
        self.retry(shared, now);
    }

    /// Opens the way through the relay at which both meet, unless it is open.
    pub(super) fn meet(&mut self, shared: &mut Shared) {
        let (Some(home), Some(remote)) = (&shared.home, &self.remote) else { return };
        let server = if self.controller { home } else { remote }.clone();
        if self.relay.target().is_some_and(|used| used.url == server.url) {
            return;
        }
        self.close_relay(shared);
        let attempt = self.relay.open(server.clone());
        shared.act(self.key, Action::OpenRelay { attempt, server });
    }

    pub(super) fn close_relay(&mut self, shared: &mut Shared) {
        if let Some(attempt) = self.relay.close() {
            shared.act(self.key, Action::CloseRelay { attempt });
        }
    }

    pub(super) fn close_ice(&mut self, shared: &mut Shared) {
        if let Some(attempt) = self.direct.close() {
            self.ice.ended();
            shared.act(self.key, Action::CloseIce { attempt });
        }
    }

    /// The best path that is up.
    pub(super) fn best(&self) -> Option<(PathKind, Path)> {
        self.relay.path().into_iter().chain(self.direct.path()).max_by_key(|(kind, _)| *kind)
    }

    /// Whether there is nothing to offer for: a path is up, and each kind that both can use is up or being opened.
    pub(super) fn is_complete(&self, shared: &Shared) -> bool {
        let by_relay = shared.home.is_some() && self.remote.is_some();
        let by_ice = shared.settings.ice && !self.ice.is_refused();
        self.best().is_some() && (!by_relay || self.relay.path().is_some()) && (!by_ice || self.direct.is_open())
    }

    /// Something about the paths changed.
    pub(super) fn choose(&mut self, shared: &mut Shared, now: Instant) {
        let Some(best) = self.best() else {
            self.leave(shared);
            return;
        };
        if self.path == Some(best) || self.hold.is_some() {
            return;
        }
        // A session goes on by another path as it is.
        let has_session = self.last_handshake.is_some_and(|at| now.saturating_duration_since(at) < SESSION);
        let goes_on = self.path.is_some() && has_session;
        if !goes_on {
            self.watch = Some(Watch::start(now));
        }
        if self.controller {
            self.use_best(shared);
            if !goes_on {
                self.begin_handshake(shared, now);
            }
        } else if self.path.is_some() {
            self.use_best(shared);
        } else {
            // The controller's handshake makes the engine find the path by itself, and two at once would cross.
            self.hold = Some(now + CONTROLLER_HEADSTART);
        }
    }

    pub(super) fn use_best(&mut self, shared: &mut Shared) {
        if let Some((kind, path)) = self.best() {
            if self.path.replace((kind, path)) != Some((kind, path)) {
                shared.stats.on_path(Some(kind));
            }
            shared.act(self.key, Action::SetPath(path));
        }
    }

    /// There is no path.
    pub(super) fn leave(&mut self, shared: &mut Shared) {
        // While the peer's handshake is waited for the engine may have learnt the path from it already.
        let had = self.path.take().is_some();
        if had {
            shared.stats.on_path(None);
        }
        if had | self.hold.take().is_some() {
            shared.act(self.key, Action::ClearPath);
        }
        self.watch = None;
        self.again = None;
    }

    pub(super) fn begin_handshake(&mut self, shared: &mut Shared, now: Instant) {
        self.handshake_begun = Some(now);
        self.again = Some((now + HANDSHAKE_PAUSES[0], &HANDSHAKE_PAUSES[1..]));
        shared.act(self.key, Action::Handshake);
    }
}

/// How long a session carries packets: Reject-After-Time (WireGuard paper §6.1).
const SESSION: Duration = Duration::from_secs(180);
