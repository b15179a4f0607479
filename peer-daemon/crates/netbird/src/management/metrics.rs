//! Metrics of the management connection.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peer_metrics::{Figures, counter, counters, gauge, seconds};
use prometheus_client::encoding::DescriptorEncoder;

use super::{Class, Error};
use crate::stream::StreamStats;

/// Figures of the connection, shared by the task and whoever reads them.
#[derive(Debug, Default)]
pub struct ManagementStats {
    /// The stream.
    pub stream: StreamStats,
    logins: AtomicU64,
    registrations: AtomicU64,
    updates: AtomicU64,
    update_bytes: AtomicU64,
    /// Milliseconds since the Unix epoch.
    last_update: AtomicU64,
    errors: [AtomicU64; Class::ALL.len()],
}

impl ManagementStats {
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

    pub(crate) fn on_update(&self, bytes: usize) {
        self.updates.fetch_add(1, Relaxed);
        self.update_bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_update.store(u64::try_from(now.as_millis()).unwrap_or_default(), Relaxed);
    }

    pub(crate) fn on_error(&self, error: &Error) {
        self.errors[error.class() as usize].fetch_add(1, Relaxed);
    }
}

impl Figures for ManagementStats {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let connected = u64::from(self.stream.connected());
        gauge(encoder, "peer_management_connected", "1 while the stream of network maps is open.", connected)?;
        counter(encoder, "peer_management_streams", "Streams of network maps opened.", self.stream.opened())?;
        counter(encoder, "peer_management_updates", "Messages received by them.", self.updates())?;
        let bytes = self.update_bytes.load(Relaxed);
        counter(encoder, "peer_management_update_bytes", "Bytes of these messages, sealed.", bytes)?;
        let help = "When the last of these messages came, Unix time; 0: none has.";
        let last = Duration::from_millis(self.last_update.load(Relaxed));
        seconds(encoder, "peer_management_last_update_timestamp_seconds", help, last)?;
        let logins = [("known", &self.logins), ("setup_key", &self.registrations)];
        let logins = logins.map(|(kind, count)| ([("kind", kind)], count.load(Relaxed)));
        counters(encoder, "peer_management_logins", "Logins that succeeded.", logins)?;
        let errors = Class::ALL.iter().map(|class| ([("class", class.label())], self.errors(*class)));
        counters(encoder, "peer_management_errors", "Calls and streams that failed.", errors)
    }
}
