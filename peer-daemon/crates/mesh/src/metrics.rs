//! Metrics of connections to peers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use peer_metrics::{counters, describe};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;

use crate::types::PathKind;

/// Upper bounds of the times to a path, seconds: from a relay that is connected already to an offer that has to be repeated
/// many times.
const BUCKETS: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Figures of all connections, shared by the mesh and whoever reads them.
#[derive(Debug)]
pub struct MeshStats {
    relay: AtomicU64,
    turn: AtomicU64,
    direct: AtomicU64,
    none: AtomicU64,
    connect: Histogram,
}

impl MeshStats {
    /// The engine was told another path to a peer, or that there is none.
    pub(crate) fn on_path(&self, kind: Option<PathKind>) {
        let counter = match kind {
            Some(PathKind::Relay) => &self.relay,
            Some(PathKind::Turn) => &self.turn,
            Some(PathKind::Direct) => &self.direct,
            None => &self.none,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// A connection that was wanted has a path after this time.
    pub(crate) fn on_connected(&self, after: Duration) {
        self.connect.observe(after.as_secs_f64());
    }
}

impl Default for MeshStats {
    fn default() -> Self {
        let [relay, turn, direct, none] = Default::default();
        Self { relay, turn, direct, none, connect: Histogram::new(BUCKETS) }
    }
}

/// Shows the figures at each scrape.
#[derive(Clone, Debug)]
pub struct PathCollector(Arc<MeshStats>);

impl PathCollector {
    /// Of these figures.
    #[must_use]
    pub fn new(stats: Arc<MeshStats>) -> Self {
        Self(stats)
    }
}

impl Collector for PathCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = &self.0;
        let changes =
            [("relay", &stats.relay), ("turn", &stats.turn), ("direct", &stats.direct), ("none", &stats.none)];
        let changes = changes.map(|(path, count)| ([("path", path)], count.load(Relaxed)));
        let help = "Times that the path to a peer changed, by what it is since; none: it was lost or given up.";
        counters(&mut encoder, "peer_mesh_path_changes", help, changes)?;
        let help = "Time from the wish for a path to a peer until there was one.";
        stats.connect.encode(describe(&mut encoder, "peer_mesh_connect_seconds", help, MetricType::Histogram)?)
    }
}
