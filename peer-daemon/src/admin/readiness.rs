//! Readiness as metrics.

use std::fmt;

use peer_core::readiness::Report;
use peer_metrics::{gauge, gauges};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

/// Shows how it stood at the scrape.
#[derive(Debug)]
pub(super) struct ReadinessCollector(pub(super) Report);

impl Collector for ReadinessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ready = u64::from(self.0.ready);
        gauge(&mut encoder, "peer_ready", "1 while packets can flow; the body of /readyz says why not.", ready)?;
        let parts = self.0.parts.iter().map(|part| ([("part", part.name)], u64::from(part.ready)));
        gauges(&mut encoder, "peer_ready_part", "1 while this part of the daemon is ready; all must be.", parts)
    }
}
