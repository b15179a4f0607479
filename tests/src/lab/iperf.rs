//! TCP throughput by iperf3.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::command::run;
use super::gateway::IPERF_PORT;
use super::namespace::Namespace;

/// Which way the data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to service.
    Upload,
    /// Service to client.
    Download,
}

/// What iperf3 measured.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// Received by the other end, bits per second.
    pub bits_per_second: f64,
    /// Received, bytes.
    pub bytes: f64,
    /// Segments sent again.
    pub retransmits: u64,
}

/// Measures for some seconds. The server must run.
///
/// # Errors
/// iperf3 fails.
pub fn iperf(from: &Namespace, service: IpAddr, direction: Direction, seconds: u32) -> Result<Throughput> {
    let (service, port, seconds) = (service.to_string(), IPERF_PORT.to_string(), seconds.to_string());
    let mut command = from.command("iperf3");
    command.args(["--client", &service, "--port", &port, "--time", &seconds, "--json", "--connect-timeout", "5000"]);
    if direction == Direction::Download {
        command.arg("--reverse");
    }
    let finished = run(&mut command)?;
    let report: Value = serde_json::from_str(&finished.stdout).context("iperf3 said no JSON")?;
    ensure!(finished.status.success(), "iperf3: {}", report["error"]);
    let received = |field| report["end"]["sum_received"][field].as_f64();
    let received = |field| received(field).with_context(|| format!("iperf3: {field}: {report}"));
    Ok(Throughput {
        bits_per_second: received("bits_per_second")?,
        bytes: received("bytes")?,
        retransmits: report["end"]["sum_sent"]["retransmits"].as_u64().unwrap_or_default(),
    })
}
