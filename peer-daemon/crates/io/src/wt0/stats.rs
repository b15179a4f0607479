//! What has been put right about the device.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use peer_metrics::counters;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::state::{Change, Deviation};

/// Repairs since the start, by what was changed.
#[derive(Debug, Default)]
pub struct RepairStats([AtomicU64; Change::ALL.len()]);

impl RepairStats {
    /// How often something of this kind was put right.
    #[must_use]
    pub fn get(&self, change: Change) -> u64 {
        self.0[change as usize].load(Ordering::Relaxed)
    }

    /// One repair of each kind that is among `found`.
    pub(super) fn count(&self, found: &[Deviation]) {
        for change in Change::ALL {
            if found.iter().any(|deviation| deviation.change == change) {
                self.0[change as usize].fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The repairs as a metric.
#[derive(Debug)]
pub struct RepairCollector(pub Arc<RepairStats>);

impl Collector for RepairCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let repairs = Change::ALL.map(|change| ([("what", change.name())], self.0.get(change)));
        let help = "Times that something of the mesh device was put right which somebody else had changed.";
        counters(&mut encoder, "peer_mesh_device_repairs", help, repairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repair_counts_once_for_each_kind() {
        let stats = RepairStats::default();
        let found = |change| Deviation { change, what: String::new() };
        stats.count(&[found(Change::Address), found(Change::Address), found(Change::Down)]);
        let counted = Change::ALL.map(|change| stats.get(change));
        assert_eq!(counted, [1, 0, 0, 0, 1, 0]);
    }
}
