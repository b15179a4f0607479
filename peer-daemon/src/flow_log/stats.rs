//! What the flow log has written, and what it has lost.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use peer_metrics::{counter, counters};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

/// Counters, shared by whoever tells, writes and reads.
#[derive(Debug, Default)]
pub(crate) struct FlowLogStats {
    opened: AtomicU64,
    closed: AtomicU64,
    denied: AtomicU64,
    queue: AtomicU64,
    writing: AtomicU64,
    reopened: AtomicU64,
}

/// Collects them.
#[derive(Debug)]
pub(crate) struct FlowLogCollector(pub(crate) Arc<FlowLogStats>);

impl FlowLogStats {
    pub(super) fn opened(&self) {
        add(&self.opened, 1);
    }

    pub(super) fn closed(&self) {
        add(&self.closed, 1);
    }

    pub(super) fn denied(&self) {
        add(&self.denied, 1);
    }

    pub(super) fn lost_in_queue(&self) {
        add(&self.queue, 1);
    }

    pub(super) fn lost_in_writing(&self, records: u64) {
        add(&self.writing, records);
    }

    pub(super) fn reopened(&self) {
        add(&self.reopened, 1);
    }
}

impl Collector for FlowLogCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (stats, encoder) = (&self.0, &mut encoder);
        let help = "Records of the flow log, whether they could be written or not.";
        let events = [("open", &stats.opened), ("close", &stats.closed), ("denied", &stats.denied)];
        let events = events.map(|(event, count)| ([("event", event)], read(count)));
        counters(encoder, "peer_flow_log_records", help, events)?;
        let help =
            "Records that the flow log has lost: queue, more came than were written; write, the file refused them.";
        let lost = [("queue", &stats.queue), ("write", &stats.writing)];
        let lost = lost.map(|(reason, count)| ([("reason", reason)], read(count)));
        counters(encoder, "peer_flow_log_lost", help, lost)?;
        let help = "Times that the file of the flow log was opened anew.";
        counter(encoder, "peer_flow_log_reopened", help, read(&stats.reopened))
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
