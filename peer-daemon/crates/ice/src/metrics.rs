//! The figures in Prometheus' terms.

use std::fmt;
use std::sync::Arc;

use peer_metrics::{counter, counters, gauge};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::stats::{Figure, IceStats};

/// Shows the figures at each scrape.
#[derive(Clone, Debug)]
pub struct IceCollector(Arc<IceStats>);

type Pick = fn(&IceStats) -> &Figure;
type Named = (&'static str, &'static str, Pick);
type Family = (&'static str, &'static str, &'static [(&'static str, Pick)]);

const GAUGES: [Named; 5] = [
    ("peer_ice_sessions", "ICE sessions.", |stats| &stats.sessions),
    ("peer_ice_connected", "ICE sessions with a selected candidate pair.", |stats| &stats.connected),
    ("peer_ice_transactions", "Connectivity checks that wait for a response.", |stats| &stats.transactions),
    ("peer_ice_early_candidates", "Remote candidates kept for a session to come.", |stats| &stats.early),
    ("peer_ice_local_candidates", "Own addresses that peers may try.", |stats| &stats.local_candidates),
];

const COUNTERS: [Named; 8] = [
    ("peer_ice_opened", "ICE sessions that were opened.", |stats| &stats.opened),
    ("peer_ice_selected", "Candidate pairs that were selected.", |stats| &stats.selected),
    ("peer_ice_checks_sent", "Connectivity checks sent.", |stats| &stats.checks_sent),
    ("peer_ice_checks_received", "Valid connectivity checks received.", |stats| &stats.checks_received),
    ("peer_ice_responses", "Valid responses to connectivity checks.", |stats| &stats.responses),
    ("peer_ice_stun_requests", "Requests to STUN servers.", |stats| &stats.server_requests),
    ("peer_ice_stun_answers", "Answers of STUN servers.", |stats| &stats.server_answers),
    ("peer_ice_stun_failures", "STUN servers that did not answer in time.", |stats| &stats.server_failures),
];

const FAMILIES: [Family; 3] = [
    (
        "peer_ice_down",
        "ICE sessions that ended by themselves, by reason.",
        &[
            ("unreachable", |stats| &stats.down.unreachable),
            ("lost", |stats| &stats.down.lost),
            ("address_gone", |stats| &stats.down.address_gone),
            ("exhausted", |stats| &stats.down.exhausted),
            ("credentials", |stats| &stats.down.credentials),
            ("limit", |stats| &stats.down.limit),
        ],
    ),
    (
        "peer_ice_datagrams_dropped",
        "STUN datagrams that were dropped, by reason.",
        &[
            ("malformed", |stats| &stats.dropped.malformed),
            ("source", |stats| &stats.dropped.source),
            ("unknown", |stats| &stats.dropped.unknown),
            ("unexpected", |stats| &stats.dropped.unexpected),
            ("local", |stats| &stats.dropped.local),
            ("integrity", |stats| &stats.dropped.integrity),
            ("budget", |stats| &stats.dropped.budget),
            ("queue", |stats| &stats.dropped.queue),
        ],
    ),
    (
        "peer_ice_candidates_refused",
        "Remote candidates that were refused, by reason.",
        &[
            ("malformed", |stats| &stats.refused.malformed),
            ("address", |stats| &stats.refused.address),
            ("limit", |stats| &stats.refused.limit),
        ],
    ),
];

impl IceCollector {
    /// Of these figures.
    #[must_use]
    pub fn new(stats: Arc<IceStats>) -> Self {
        Self(stats)
    }
}

impl Collector for IceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, figure) in GAUGES {
            gauge(&mut encoder, name, help, figure(&self.0).get())?;
        }
        for (name, help, figure) in COUNTERS {
            counter(&mut encoder, name, help, figure(&self.0).get())?;
        }
        for (name, help, reasons) in FAMILIES {
            let values = reasons.iter().map(|(reason, figure)| ([("reason", *reason)], figure(&self.0).get()));
            counters(&mut encoder, name, help, values)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn text_has_the_figures() {
        let stats = Arc::new(IceStats::default());
        stats.sessions.set(2);
        stats.dropped.integrity.add(7);
        stats.down.lost.add(1);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(IceCollector::new(stats)));
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a string");
        for line in [
            "peer_ice_sessions 2",
            "peer_ice_datagrams_dropped_total{reason=\"integrity\"} 7",
            "peer_ice_down_total{reason=\"lost\"} 1",
            "peer_ice_candidates_refused_total{reason=\"limit\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
