//! Figures of a stream that is kept open.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Whether it is open, and how often it was opened.
#[derive(Debug, Default)]
pub struct StreamStats {
    connected: AtomicBool,
    opened: AtomicU64,
}

impl StreamStats {
    /// Whether the stream is open.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// Streams opened so far.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    pub(crate) fn on_open(&self) {
        self.connected.store(true, Relaxed);
        self.opened.fetch_add(1, Relaxed);
    }

    pub(crate) fn on_over(&self) {
        self.connected.store(false, Relaxed);
    }
}
