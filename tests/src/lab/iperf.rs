//! TCP throughput by iperf3.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::command::run;
use super::gateway::IPERF_PORT;
use super::namespace::Namespace;
use super::traffic::patient;

/// Longest that the server may be busy with the client before.
const LIMIT: Duration = Duration::from_secs(5);

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

/// Measures for some seconds. The server must run; one that is still busy with the client before is asked again.
///
/// # Errors
/// iperf3 fails, or says nothing that was measured.
pub fn iperf(from: &Namespace, service: IpAddr, direction: Direction, seconds: u32) -> Result<Throughput> {
    let mut report = measure(from, service, direction, seconds)?;
    let deadline = Instant::now() + patient(LIMIT);
    while is_between_clients(&report) && Instant::now() < deadline {
        report = measure(from, service, direction, seconds)?;
    }
    let received = |field| report["end"]["sum_received"][field].as_f64();
    let received = |field| received(field).with_context(|| format!("iperf3: {field}: {report}"));
    Ok(Throughput {
        bits_per_second: received("bits_per_second")?,
        bytes: received("bytes")?,
        retransmits: report["end"]["sum_sent"]["retransmits"].as_u64().unwrap_or_default(),
    })
}

fn measure(from: &Namespace, service: IpAddr, direction: Direction, seconds: u32) -> Result<Value> {
    let (service, port, seconds) = (service.to_string(), IPERF_PORT.to_string(), seconds.to_string());
    let mut command = from.command("iperf3");
    command.args(["--client", &service, "--port", &port, "--time", &seconds, "--json", "--connect-timeout", "5000"]);
    if direction == Direction::Download {
        command.arg("--reverse");
    }
    let finished = run(&mut command)?;
    let report: Value = serde_json::from_str(&finished.stdout).context("iperf3 said no JSON")?;
    ensure!(finished.status.success(), "iperf3: {}", report["error"]);
    Ok(report)
}

/// The server takes one client at a time, and opens its socket anew for the next: who comes in between is refused, reset or
/// told that it is busy, and iperf3 calls that success.
fn is_between_clients(report: &Value) -> bool {
    let nothing_begun = report["start"]["connected"].as_array().is_none_or(Vec::is_empty);
    let said = report["error"].as_str().unwrap_or_default();
    nothing_begun && ["busy running a test", "unable to connect"].iter().any(|reason| said.contains(reason))
}
