//! Metrics of the process itself, by the names that all Prometheus clients use.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime};

use peer_metrics::{describe, gauge, seconds};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// Reads `/proc/self` at each scrape; what cannot be read is left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessCollector {
    /// When the process started.
    pub(super) started: SystemTime,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        if let Some(usage) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Usage::parse) {
            let cpu = ConstCounter::new(usage.cpu.as_secs_f64());
            let help = "User and system CPU time.";
            cpu.encode(describe(encoder, "process_cpu_seconds", help, MetricType::Counter)?)?;
            gauge(encoder, "process_resident_memory_bytes", "Resident memory.", usage.resident)?;
            gauge(encoder, "process_virtual_memory_bytes", "Virtual memory.", usage.virtual_memory)?;
            gauge(encoder, "process_threads", "Threads.", usage.threads)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is that of the listing.
            let open = open.count().saturating_sub(1) as u64;
            gauge(encoder, "process_open_fds", "File descriptors that are open.", open)?;
        }
        let most = super::descriptors::limit() as u64;
        gauge(encoder, "process_max_fds", "File descriptors that may be open.", most)?;
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let help = "When the process started, Unix time.";
        seconds(encoder, "process_start_time_seconds", help, started)
    }
}

/// What `/proc/self/stat` says (`proc(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Usage {
    cpu: Duration,
    resident: u64,
    virtual_memory: u64,
    threads: u64,
}

impl Usage {
    fn parse(stat: &str) -> Option<Self> {
        // The name of the program, field 2, may contain anything; behind its parenthesis comes field 3.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = field(14)? + field(15)?;
        let per_second = rustix::param::clock_ticks_per_second();
        Some(Self {
            cpu: Duration::from_millis(ticks * 1000 / per_second.max(1)),
            threads: field(20)?,
            virtual_memory: field(23)?,
            resident: field(24)? * rustix::param::page_size() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_read_whatever_the_program_is_called() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 9 0 100 8192 3 18446744073709551615 1";
        let usage = Usage::parse(stat).expect("valid");
        let expected = Usage {
            cpu: Duration::from_millis(200 * 1000 / rustix::param::clock_ticks_per_second()),
            resident: 3 * rustix::param::page_size() as u64,
            virtual_memory: 8192,
            threads: 9,
        };
        assert_eq!(usage, expected);
        assert_eq!(Usage::parse("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_used_memory() {
        let stat = fs::read_to_string("/proc/self/stat").expect("proc");
        let usage = Usage::parse(&stat).expect("a line of the kernel");
        assert!(usage.resident > 1 << 20 && usage.virtual_memory > usage.resident && usage.threads > 0, "{usage:?}");
    }
}
