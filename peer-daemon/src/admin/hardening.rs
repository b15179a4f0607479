//! What confines the process, as metrics.

use std::fmt;

use peer_metrics::gauges;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

/// Asks the kernel at each scrape.
#[derive(Debug)]
pub(super) struct HardeningCollector;

impl Collector for HardeningCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let measures = peer_confine::look().map(|(measure, on)| ([("measure", measure.name())], u64::from(on)));
        let help = "1 while the kernel holds the process to this measure; 0: it has more than it needs.";
        gauges(&mut encoder, "peer_hardening", help, measures)
    }
}
