//! Figures of relay connections in Prometheus' terms.

use std::fmt;
use std::sync::Arc;

use peer_metrics::{counter, counters, gauge};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::stats::{Figure, RelayStats};

/// Collects from all connections; no labels.
#[derive(Debug)]
pub struct RelayMetrics(Arc<RelayStats>);

type Pick = fn(&RelayStats) -> &Figure;
type Named = (&'static str, &'static str, Pick);

const GAUGES: [Named; 3] = [
    ("peer_relay_connected", "Connections to relays that let us in.", |stats| &stats.connected),
    ("peer_relay_ways", "Ways to peers through relays, open or being opened.", |stats| &stats.ways),
    ("peer_relay_early_messages", "Messages kept that came before their sender was known.", |stats| &stats.early),
];

const COUNTERS: [Named; 5] = [
    ("peer_relay_connects", "Connections to relays that were made.", |stats| &stats.connects),
    ("peer_relay_connect_failures", "Attempts to connect to a relay that failed.", |stats| &stats.failures),
    ("peer_relay_breaks", "Connections to relays that broke.", |stats| &stats.breaks),
    ("peer_relay_health_checks", "Health checks of relays, each answered.", |stats| &stats.health_checks),
    ("peer_relay_tokens", "Tokens for relays that management gave; each takes the place of the last.", |stats| {
        &stats.tokens
    }),
];

const DROPPED: &str = "Messages of relays that were dropped: malformed, they could not be read; early, their senders were \
                       not known; no_room, they came in parts for which there was no room.";

const DROPS: [(&str, Pick); 3] = [
    ("malformed", |stats| &stats.malformed),
    ("early", |stats| &stats.early_dropped),
    ("no_room", |stats| &stats.no_room),
];

impl RelayMetrics {
    /// Of these figures.
    #[must_use]
    pub fn new(stats: Arc<RelayStats>) -> Self {
        Self(stats)
    }
}

impl Collector for RelayMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, figure) in GAUGES {
            gauge(&mut encoder, name, help, figure(&self.0).get())?;
        }
        for (name, help, figure) in COUNTERS {
            counter(&mut encoder, name, help, figure(&self.0).get())?;
        }
        let dropped = DROPS.map(|(reason, figure)| ([("reason", reason)], figure(&self.0).get()));
        counters(&mut encoder, "peer_relay_messages_dropped", DROPPED, dropped)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn text_has_every_figure() {
        let stats = Arc::new(RelayStats::default());
        stats.connected.add(2);
        stats.early_dropped.add(7);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(RelayMetrics::new(stats)));
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a string");
        for line in [
            "peer_relay_connected 2",
            "peer_relay_messages_dropped_total{reason=\"early\"} 7",
            "peer_relay_breaks_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
