//! Metrics of the management connection.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Class, Error};

/// Figures of the connection, shared by the task and whoever reads them.
#[derive(Debug, Default)]
pub struct ManagementStats {
    connected: AtomicBool,
    logins: AtomicU64,
    registrations: AtomicU64,
    streams: AtomicU64,
    updates: AtomicU64,
    update_bytes: AtomicU64,
    errors: [AtomicU64; Class::ALL.len()],
}

impl ManagementStats {
    /// Whether the stream is open.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// Streams opened so far.
    #[must_use]
    pub fn streams(&self) -> u64 {
        self.streams.load(Relaxed)
    }

    /// Messages of the stream so far.
    #[must_use]
    pub fn updates(&self) -> u64 {
        self.updates.load(Relaxed)
    }

    /// Failures of a class so far.
    #[must_use]
    pub fn errors(&self, class: Class) -> u64 {
        self.errors[class as usize].load(Relaxed)
    }

    pub(crate) fn on_login(&self, by_setup_key: bool) {
        let counter = if by_setup_key { &self.registrations } else { &self.logins };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn on_stream(&self) {
        self.connected.store(true, Relaxed);
        self.streams.fetch_add(1, Relaxed);
    }

    pub(crate) fn on_update(&self, bytes: usize) {
        self.updates.fetch_add(1, Relaxed);
        self.update_bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn on_stream_over(&self) {
        self.connected.store(false, Relaxed);
    }

    pub(crate) fn on_error(&self, error: &Error) {
        self.errors[error.class() as usize].fetch_add(1, Relaxed);
    }
}

/// Shows the figures at each scrape.
#[derive(Clone, Debug)]
pub struct ManagementCollector {
    stats: Arc<ManagementStats>,
}

impl ManagementCollector {
    /// Of these figures.
    #[must_use]
    pub const fn new(stats: Arc<ManagementStats>) -> Self {
        Self { stats }
    }
}

impl Collector for ManagementCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.stats;
        ConstGauge::new(i64::from(stats.connected())).encode(encoder.encode_descriptor(
            "peer_management_connected",
            "1 while the stream of network maps is open",
            None,
            MetricType::Gauge,
        )?)?;
        let counters = [
            ("peer_management_streams", "Streams of network maps opened", &stats.streams),
            ("peer_management_updates", "Messages received by them", &stats.updates),
            ("peer_management_update_bytes", "Bytes of these messages, sealed", &stats.update_bytes),
        ];
        for (name, help, counter) in counters {
            let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(counter.load(Relaxed)).encode(descriptor)?;
        }
        let mut logins =
            encoder.encode_descriptor("peer_management_logins", "Logins that succeeded", None, MetricType::Counter)?;
        for (kind, counter) in [("known", &stats.logins), ("setup_key", &stats.registrations)] {
            ConstCounter::new(counter.load(Relaxed)).encode(logins.encode_family(&[("kind", kind)])?)?;
        }
        let mut errors = encoder.encode_descriptor(
            "peer_management_errors",
            "Calls and streams that failed",
            None,
            MetricType::Counter,
        )?;
        for class in Class::ALL {
            ConstCounter::new(stats.errors(class)).encode(errors.encode_family(&[("class", class.label())])?)?;
        }
        Ok(())
    }
}
