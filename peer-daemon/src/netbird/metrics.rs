//! Metrics of maps and of the connections to peers.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use peer_mesh::{Mesh, State};
use peer_metrics::{counters, gauge, gauges, seconds};
use peer_netmap::read::Work;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

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

/// Kinds of what a map has.
const ENTRIES: [&str; 4] = ["peers", "offline", "routes", "rules"];

/// Figures of maps, shared by the agent and whoever reads them.
#[derive(Debug, Default)]
pub(super) struct MapStats {
    results: [AtomicU64; MapResult::ALL.len()],
    serial: AtomicU64,
    skipped: AtomicU64,
    unsupported: AtomicU64,
    entries: [AtomicU64; ENTRIES.len()],
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

    /// What it has, in the order of [`ENTRIES`].
    pub(super) fn has(&self, entries: [usize; ENTRIES.len()]) {
        for (figure, count) in self.entries.iter().zip(entries) {
            figure.store(count as u64, Relaxed);
        }
    }

    fn age(&self) -> Option<Duration> {
        let received = *self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.map(|(at, age)| at.elapsed() + age)
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
        let (maps, encoder) = (&self.maps, &mut encoder);
        let results = MapResult::ALL.map(|result| {
            let count = maps.results[result as usize].load(Relaxed);
            ([("result", result.label())], count)
        });
        counters(encoder, "peer_maps", "Network maps received, by what became of them.", results)?;
        let read = [("decoded", &maps.decoded), ("reused", &maps.reused)];
        let read = read.map(|(how, count)| ([("how", how)], count.load(Relaxed)));
        let help = "Entries of the network maps that were read: decoded, or as in the map before.";
        counters(encoder, "peer_map_entries_read", help, read)?;
        let singles = [
            ("peer_map_serial", "Serial of the network map in force.", &maps.serial),
            ("peer_map_skipped", "Things in the map in force that could not be understood.", &maps.skipped),
            ("peer_map_unsupported", "Things that the map in force wants and this node cannot do.", &maps.unsupported),
        ];
        for (name, help, value) in singles {
            gauge(encoder, name, help, value.load(Relaxed))?;
        }
        let entries = ENTRIES.iter().zip(&maps.entries);
        let entries = entries.map(|(kind, count)| ([("kind", *kind)], count.load(Relaxed)));
        let help = "What the map in force has, as far as this node serves it; offline: peers that are not there.";
        gauges(encoder, "peer_map_entries", help, entries)?;
        let help = "Time since the map in force was received.";
        seconds(encoder, "peer_map_age_seconds", help, maps.age().unwrap_or_default())?;
        let help = "How long the last change took, from the message's last byte until it was in force.";
        seconds(encoder, "peer_map_apply_seconds", help, Duration::from_micros(maps.apply_micros.load(Relaxed)))?;
        self.peers(encoder)
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
        let states = ["idle", "connecting", "connected"].into_iter().zip(counts);
        let states = states.map(|(state, count)| ([("state", state)], count));
        gauges(encoder, "peer_mesh_peers", "Peers of the network map, by state.", states)
    }
}
