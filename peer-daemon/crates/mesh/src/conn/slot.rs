//! One kind of path to a peer: closed, being opened, or up.

use peer_core::path::Path;

use crate::types::PathKind;

/// A path, and what it is opened towards. Each attempt has a number, which its answers repeat: those of an earlier attempt
/// change nothing.
#[derive(Clone, Debug)]
pub(super) struct Slot<T> {
    attempt: u32,
    state: State<T>,
}

#[derive(Clone, Debug)]
enum State<T> {
    Closed,
    Opening(T),
    Up(T, PathKind, Path),
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { attempt: 0, state: State::Closed }
    }
}

impl<T> Slot<T> {
    /// Begins another attempt and returns its number. The caller has closed the previous one.
    pub(super) fn open(&mut self, target: T) -> u32 {
        self.attempt = self.attempt.wrapping_add(1);
        self.state = State::Opening(target);
        self.attempt
    }

    /// Ends the attempt, and returns its number if there was one.
    pub(super) fn close(&mut self) -> Option<u32> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Closed => None,
            State::Opening(_) | State::Up(..) => Some(self.attempt),
        }
    }

    /// The attempt has this path from now on. Returns whether that is news.
    pub(super) fn up(&mut self, attempt: u32, kind: PathKind, path: Path) -> bool {
        if attempt != self.attempt {
            return false;
        }
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Closed => false,
            State::Opening(target) | State::Up(target, ..) => {
                self.state = State::Up(target, kind, path);
                true
            }
        }
    }

    /// The attempt failed, or its path is gone. Returns whether that is news.
    pub(super) fn down(&mut self, attempt: u32) -> bool {
        attempt == self.attempt && self.close().is_some()
    }

    /// What it is opened towards.
    pub(super) fn target(&self) -> Option<&T> {
        match &self.state {
            State::Closed => None,
            State::Opening(target) | State::Up(target, ..) => Some(target),
        }
    }

    /// Whether it is up or may become so.
    pub(super) fn is_open(&self) -> bool {
        self.target().is_some()
    }

    /// The path, once it is up.
    pub(super) fn path(&self) -> Option<(PathKind, Path)> {
        match &self.state {
            State::Closed | State::Opening(_) => None,
            State::Up(_, kind, path) => Some((*kind, *path)),
        }
    }
}
