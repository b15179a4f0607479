//! Under a flood of initiations most are dropped by the kernel before they are received.
//!
//! To receive a datagram costs a hundred times as much as not to look at it ([`crate::admission`]): waking up, a system call,
//! a copy. A flood that is only refused here takes from the traffic what receiving it costs. So the engine counts what comes,
//! and beyond [`PLAIN_FLOOD`] and [`MAC2_FLOOD`] hands the kernel a filter by which a random part of the
//! initiations passes. Everything else passes whole, and so do initiations from addresses from which members came lately
//! ([`crate::known`]), as far as a table of so many bits tells them.

mod program;

use std::time::{Duration, Instant};

use peer_core::filter::FilterChange;
use rand::{CryptoRng, RngExt as _};

use self::program::{Keep, KnownBits};
use crate::known::KnownAddresses;
use crate::limits::{MAC2_FLOOD, PLAIN_FLOOD};

/// How long is counted before a filter is made or changed.
const WINDOW: Duration = Duration::from_millis(100);
/// A filter is not made anew for less than a fifth of its part, nor more often than this for new addresses of members.
const REFRESH: Duration = Duration::from_secs(1);

/// Counts initiations from addresses that are not known, and says what the kernel shall do about them.
#[derive(Debug)]
pub(crate) struct Screen {
    window: Option<Instant>,
    plain: Class,
    with_mac2: Class,
    attached: Option<Attached>,
    change: Option<FilterChange>,
    refused: bool,
}

/// What the kernel was given last.
#[derive(Clone, Copy, Debug)]
struct Attached {
    at: Instant,
    keep: Keep,
    /// As [`KnownAddresses::changes`] had it.
    known: u64,
}

/// What is a flood, a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flood {
    /// Beyond so many it is one.
    pub(crate) from: u32,
    /// And about so many of it are received.
    pub(crate) received: u32,
}

/// Initiations of one kind.
#[derive(Clone, Copy, Debug)]
struct Class {
    flood: Flood,
    received: u32,
    /// The part that passes.
    keep: f64,
}

impl Screen {
    /// One has come.
    pub(crate) fn count(&mut self, now: Instant, has_mac2: bool) {
        if self.refused {
            return;
        }
        self.window.get_or_insert(now);
        let received = if has_mac2 { &mut self.with_mac2.received } else { &mut self.plain.received };
        *received += 1;
    }

    /// Whether there is a flood of initiations without a second MAC.
    pub(crate) fn is_flooded(&self) -> bool {
        self.plain.keep < 1.0
    }

    /// When [`Screen::handle_timeout`] wants to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.window.map(|start| start + WINDOW)
    }

    /// Looks at what has come in a window. Gives back how many initiations the kernel has dropped meanwhile, as far as what
    /// it let through tells.
    pub(crate) fn handle_timeout(&mut self, now: Instant, known: &KnownAddresses, rng: &mut impl CryptoRng) -> u64 {
        let Some(start) = self.window.filter(|start| *start + WINDOW <= now) else { return 0 };
        let lasted = now - start;
        let dropped = self.plain.next(lasted) + self.with_mac2.next(lasted);
        let keep = Keep { plain: self.plain.keep, with_mac2: self.with_mac2.keep };
        if keep == Keep::ALL {
            self.window = None;
            if self.attached.take().is_some() {
                self.change = Some(FilterChange::Detach);
            }
            return dropped;
        }
        self.window = Some(now);
        let is_current = self.attached.is_some_and(|attached| {
            let is_recent = now.saturating_duration_since(attached.at) < REFRESH;
            attached.keep.is_near(keep) && (attached.known == known.changes() || is_recent)
        });
        if is_current {
            // What the kernel has is what counts.
            let Keep { plain, with_mac2 } = self.attached.map_or(keep, |attached| attached.keep);
            (self.plain.keep, self.with_mac2.keep) = (plain, with_mac2);
        } else {
            // Odd, and drawn anew each time: nobody can choose addresses that pass.
            let bits = KnownBits::new(rng.random::<u32>() | 1, known.iter());
            self.attached = Some(Attached { at: now, keep, known: known.changes() });
            self.change = Some(FilterChange::Attach(program::filters(keep, &bits)));
        }
        dropped
    }

    /// The kernel takes no filter: nothing is counted any more.
    pub(crate) fn give_up(&mut self) {
        *self = Self { refused: true, ..Self::default() };
    }

    /// What the kernel is to be told.
    pub(crate) fn poll_filter(&mut self) -> Option<FilterChange> {
        self.change.take()
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            window: None,
            plain: Class::new(PLAIN_FLOOD),
            with_mac2: Class::new(MAC2_FLOOD),
            attached: None,
            change: None,
            refused: false,
        }
    }
}

impl Class {
    fn new(flood: Flood) -> Self {
        Self { flood, received: 0, keep: 1.0 }
    }

    /// Ends a window: how many were dropped in it.
    fn next(&mut self, lasted: Duration) -> u64 {
        let received = f64::from(std::mem::take(&mut self.received));
        let came = received / self.keep;
        let part = |per_second: u32| f64::from(per_second) * lasted.as_secs_f64() / came.max(1.0);
        if self.keep < 1.0 || part(self.flood.from) < 1.0 {
            // Down at once; up in steps, since few samples tell little.
            self.keep = part(self.flood.received).min(self.keep * 2.0).min(1.0);
        }
        (came - received) as u64
    }
}

#[cfg(test)]
mod tests;
