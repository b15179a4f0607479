//! Metrics of maps and of the connections to peers.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use peer_mesh::{Mesh, State};
use peer_netmap::read::Work;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// What became of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MapResult {
    /// It is in force.
    Applied,
    /// It says what was in force already.
    Unchanged,
    /// It is older than the one in force.
    Stale,
    /// It could not be put in force; the one before it is.
    Refused,
}

impl MapResult {
    const ALL: [Self; 4] = [Self::Applied, Self::Unchanged, Self::Stale, Self::Refused];

    fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Stale => "stale",
            Self::Refused => "refused",
        }
    }
}

/// Figures of maps, shared by the agent and whoever reads them.
#[derive(Debug, Default)]
pub(super) struct MapStats {
    results: [AtomicU64; MapResult::ALL.len()],
    serial: AtomicU64,
    skipped: AtomicU64,
    unsupported: AtomicU64,
    apply_micros: AtomicU64,
    decoded: AtomicU64,
    reused: AtomicU64,
    received: Mutex<Option<(Instant, Duration)>>,
}

impl MapStats {
    pub(super) fn count(&self, result: MapResult) {
        self.results[result as usize].fetch_add(1, Relaxed);
    }

    /// A map is in force.
    pub(super) fn in_force(&self, serial: u64, skipped: u32, unsupported: usize, age: Duration) {
        self.serial.store(serial, Relaxed);
        self.skipped.store(skipped.into(), Relaxed);
        self.unsupported.store(unsupported as u64, Relaxed);
        *self.received.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), age));
    }

    /// What reading messages took so far.
    pub(super) fn read(&self, work: Work) {
        self.decoded.store(work.decoded, Relaxed);
        self.reused.store(work.reused, Relaxed);
    }

    pub(super) fn took(&self, time: Duration) {
        self.apply_micros.store(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    fn age(&self) -> Option<f64> {
        let received = *self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.map(|(at, age)| (at.elapsed() + age).as_secs_f64())
    }
}

/// Shows the figures at each scrape.
#[derive(Debug)]
pub(super) struct MeshCollector {
    pub(super) maps: Arc<MapStats>,
    pub(super) mesh: Arc<Mutex<Mesh>>,
}

impl Collector for MeshCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let maps = &self.maps;
        let mut results = encoder.encode_descriptor(
            "peer_maps",
            "Network maps received, by what became of them",
            None,
            MetricType::Counter,
        )?;
        for result in MapResult::ALL {
            let count = maps.results[result as usize].load(Relaxed);
            ConstCounter::new(count).encode(results.encode_family(&[("result", result.label())])?)?;
        }
        let help = "Entries of network maps: decoded, or as in the map before";
        let mut entries = encoder.encode_descriptor("peer_map_entries", help, None, MetricType::Counter)?;
        for (label, count) in [("decoded", &maps.decoded), ("reused", &maps.reused)] {
            ConstCounter::new(count.load(Relaxed)).encode(entries.encode_family(&[("how", label)])?)?;
        }
        let gauges = [
            ("peer_map_serial", "Serial of the network map in force", &maps.serial),
            ("peer_map_skipped", "Things in the map in force that could not be understood", &maps.skipped),
            ("peer_map_unsupported", "Things that the map in force wants and this node cannot do", &maps.unsupported),
        ];
        for (name, help, value) in gauges {
            let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value.load(Relaxed)).encode(descriptor)?;
        }
        let seconds = [
            ("peer_map_age_seconds", "Time since the map in force was received", maps.age().unwrap_or_default()),
            (
                "peer_map_apply_seconds",
                "How long the last change took, from the message's last byte until it was in force",
                Duration::from_micros(maps.apply_micros.load(Relaxed)).as_secs_f64(),
            ),
        ];
        for (name, help, value) in seconds {
            let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(descriptor)?;
        }
        self.peers(&mut encoder)
    }
}

impl MeshCollector {
    fn peers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut counts = [0_u64; 3];
        let index = |state| match state {
            State::Idle => 0,
            State::Connecting => 1,
            State::Connected => 2,
        };
        for (_, status) in self.mesh.lock().unwrap_or_else(PoisonError::into_inner).statuses() {
            counts[index(status.state)] += 1;
        }
        let mut peers = encoder.encode_descriptor(
            "peer_mesh_peers",
            "Peers of the network map, by state",
            None,
            MetricType::Gauge,
        )?;
        for (label, count) in ["idle", "connecting", "connected"].into_iter().zip(counts) {
            ConstGauge::new(count).encode(peers.encode_family(&[("state", label)])?)?;
        }
        Ok(())
    }
}
