//! Readiness: latches that many parts hold and that can fall back.
//!
//! Each part of the daemon holds a [`Latch`] and says by it whether packets can flow through the part. The whole is
//! ready while every latch is, and no drain has begun.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// All latches. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

impl Readiness {
    /// No latch yet, so not ready. Make all latches before the first becomes ready: [`Report::started`] counts those
    /// that exist.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A latch for the part `name`, not ready because it is "starting". It takes the place of a stopped one of that
    /// name, so that parts that come and go do not pile up.
    #[must_use]
    pub fn latch(&self, name: &'static str) -> Latch {
        let mut state = self.lock();
        let slot = Slot { name, status: Status::NotReady("starting".to_owned()), was_ready: false };
        let stopped = |old: &Slot| old.name == name && old.status == Status::Stopped;
        let index = match state.slots.iter().position(stopped) {
            Some(index) => {
                state.slots[index] = slot;
                index
            }
            None => {
                state.slots.push(slot);
                state.slots.len() - 1
            }
        };
        Latch { readiness: self.clone(), index }
    }

    /// How it stands.
    #[must_use]
    pub fn report(&self) -> Report {
        let state = self.lock();
        let mut parts: Vec<_> = state.slots.iter().map(Slot::part).collect();
        if state.draining {
            parts.insert(0, Part { name: "drain", ready: false, reason: "draining".to_owned() });
        }
        let ready = !parts.is_empty() && parts.iter().all(|part| part.ready);
        Report { ready, started: state.started, parts }
    }

    /// Not ready from now on, whatever the latches say.
    pub fn drain(&self) {
        self.lock().draining = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a single assignment: a panic of a holder leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One part's say. Dropped, it is not ready ("stopped").
#[derive(Debug)]
pub struct Latch {
    readiness: Readiness,
    index: usize,
}

impl Latch {
    /// Packets can flow.
    pub fn ready(&self) {
        let mut state = self.readiness.lock();
        let slot = &mut state.slots[self.index];
        slot.status = Status::Ready;
        slot.was_ready = true;
        if !state.started {
            state.started = state.slots.iter().all(|slot| slot.was_ready);
        }
    }

    /// They cannot, or no longer; `reason` is for the operator.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Status::NotReady(reason.into()));
    }

    fn set(&self, status: Status) {
        self.readiness.lock().slots[self.index].status = status;
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.set(Status::Stopped);
    }
}

/// How it stands. Displayed, it is the body of `/readyz`: one line for each part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Every part is ready, there is at least one, and no drain has begun.
    pub ready: bool,
    /// Every part has been ready at least once, for `/startupz`: stays true from then on.
    pub started: bool,
    /// The parts in the order of their latches; while draining a part "drain" stands first.
    pub parts: Vec<Part>,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Whether packets can flow.
    pub ready: bool,
    /// Why they cannot; empty while they can.
    pub reason: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parts.is_empty() {
            writeln!(f, "not ready: no part has started")?;
        }
        self.parts.iter().try_for_each(|part| writeln!(f, "{part}"))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ready {
            return write!(f, "{}: ready", self.name);
        }
        write!(f, "{}: not ready: ", self.name)?;
        // A reason may come from elsewhere; the body stays one line for each part.
        let one_line = self.reason.split(char::is_control).filter(|piece| !piece.is_empty());
        one_line.enumerate().try_for_each(|(i, piece)| {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(piece)
        })
    }
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Slot>,
    started: bool,
    draining: bool,
}

#[derive(Debug)]
struct Slot {
    name: &'static str,
    status: Status,
    was_ready: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Status {
    Ready,
    NotReady(String),
    Stopped,
}

impl Slot {
    fn part(&self) -> Part {
        let reason = match &self.status {
            Status::Ready => "",
            Status::NotReady(reason) => reason,
            Status::Stopped => "stopped",
        };
        Part { name: self.name, ready: self.status == Status::Ready, reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests;
