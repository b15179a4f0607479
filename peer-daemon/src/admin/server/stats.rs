//! Figures of listeners.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use peer_metrics::{counters, gauges};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::slots::Why;

/// Why the daemon ended a connection before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// All places were taken.
    Full,
    /// Its source had all that one source may have.
    Source,
    /// No request came in time.
    Request,
    /// The answer was not taken in time.
    Answer,
    /// The process had no descriptor left.
    Descriptors,
}

/// What one listener has done.
#[derive(Debug)]
pub(crate) struct ListenerStats {
    name: &'static str,
    open: AtomicU64,
    max: AtomicUsize,
    accepted: AtomicU64,
    accept_errors: AtomicU64,
    cut: [AtomicU64; Cut::ALL.len()],
}

/// Shows listeners as metrics.
#[derive(Debug)]
pub(crate) struct ListenerCollector(pub(crate) [Arc<ListenerStats>; 2]);

impl From<Why> for Cut {
    fn from(why: Why) -> Self {
        match why {
            Why::Source => Self::Source,
            Why::Full => Self::Full,
        }
    }
}

impl Cut {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Full, "full"),
        (Self::Source, "source"),
        (Self::Request, "request_timeout"),
        (Self::Answer, "answer_timeout"),
        (Self::Descriptors, "descriptors"),
    ];
}

impl ListenerStats {
    pub(crate) fn new(name: &'static str) -> Arc<Self> {
        let (open, max, accepted, accept_errors, cut) = Default::default();
        Arc::new(Self { name, open, max, accepted, accept_errors, cut })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn set_max(&self, places: usize) {
        self.max.store(places, Relaxed);
    }

    pub(super) fn opened(&self) {
        self.open.fetch_add(1, Relaxed);
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    pub(super) fn accept_failed(&self) {
        self.accept_errors.fetch_add(1, Relaxed);
    }

    pub(super) fn cut(&self, why: Cut) {
        self.cut[why as usize].fetch_add(1, Relaxed);
    }

    #[cfg(test)]
    pub(super) fn cuts(&self, why: Cut) -> u64 {
        self.cut[why as usize].load(Relaxed)
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }
}

impl Collector for ListenerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Nobody listens where there is no place.
        let listeners: Vec<_> = self.0.iter().filter(|stats| stats.max.load(Relaxed) > 0).collect();
        let of = |value: fn(&ListenerStats) -> u64| {
            listeners.iter().map(move |stats| ([("listener", stats.name)], value(stats))).collect::<Vec<_>>()
        };
        let encoder = &mut encoder;
        let help = "Connections that are open; listener: health, or control (the control socket).";
        gauges(encoder, "peer_listener_connections", help, of(|stats| stats.open.load(Relaxed)))?;
        let help = "Connections that may be open; a further one takes the place of the one that has waited longest.";
        gauges(encoder, "peer_listener_connections_max", help, of(|stats| stats.max.load(Relaxed) as u64))?;
        counters(encoder, "peer_listener_accepted", "Connections accepted.", of(|stats| stats.accepted.load(Relaxed)))?;
        let help = "Connections that could not be accepted, for want of descriptors for instance.";
        counters(encoder, "peer_listener_accept_errors", help, of(|stats| stats.accept_errors.load(Relaxed)))?;
        let cut = |stats: &&Arc<ListenerStats>| {
            let name = stats.name;
            let counts = stats.cut.each_ref().map(|count| count.load(Relaxed));
            Cut::ALL.map(move |(cut, reason)| ([("listener", name), ("reason", reason)], counts[cut as usize]))
        };
        let help = "Connections that the daemon ended: full or source, to make room for another; request_timeout, no whole \
                    request came; answer_timeout, the answer was not read; descriptors, none was left.";
        counters(encoder, "peer_listener_cut", help, listeners.iter().flat_map(|&stats| cut(&stats)))
    }
}
