//! A picture of a minute and a half of the lab, drawn from what a Prometheus has scraped.

mod chart;

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};

use crate::lab::{
    BEHIND, Binaries, Capabilities, Datagram, Direction, Found, GATEWAY, Lab, Plan, Prometheus, RuleEntry,
    client_overlay, forge, iperf, random_flows,
};
use chart::{Chart, Line};

/// What is shown of the run.
const SHOWN: Duration = Duration::from_secs(90);
/// Flows that fit: so few that there is pressure.
const MAX_FLOWS: &str = "12288";
/// Datagrams of a flow each. What arrives of them is more than 80 % of the table, at which old ones begin to give way.
const FLOWS: u64 = 14_500;
/// A port that a rule of the lab closes.
const CLOSED: u16 = 9;

const BLUE: &str = "#2563eb";
const ORANGE: &str = "#ea580c";
const GREEN: &str = "#16a34a";
const RED: &str = "#dc2626";
const GREY: &str = "#6b7280";

/// Runs the lab, scrapes it, and writes the picture.
///
/// # Errors
/// A program is missing, the lab cannot be built, or a query has no data.
pub fn run(binaries: &Binaries, out: &Path) -> Result<()> {
    let plan = Plan { capabilities: Capabilities::Deployed, ..Plan::default() };
    let mut lab = Lab::prepare(&plan, binaries).context("build the lab")?;
    lab.node.config.rules.push(RuleEntry::new("drop", "udp", &[&format!("{BEHIND}/32")], &[CLOSED]));
    lab.node.arguments = ["--max-flows", MAX_FLOWS, "--peer-flows", MAX_FLOWS].map(str::to_owned).to_vec();
    lab.up()?;
    let prometheus = Prometheus::start(&lab.node, r#"{"groups": []}"#)?;
    // Rates want some scrapes before the first moment that is shown.
    sleep(Duration::from_secs(5));
    let from = unix_now()?;
    traffic(&mut lab)?;
    let charts = charts(&prometheus, from, from + SHOWN.as_secs_f64())?;
    let title = "The lab's node, as Prometheus saw it";
    fs::write(out, chart::picture(title, SHOWN, &charts)).with_context(|| format!("write {}", out.display()))
}

/// Downloads, many flows, uploads, and packets that a rule drops.
fn traffic(lab: &mut Lab) -> Result<()> {
    let begun = Instant::now();
    let until = |seconds: u64| sleep((begun + Duration::from_secs(seconds)).saturating_duration_since(Instant::now()));
    let (IpAddr::V4(source), IpAddr::V4(network)) = (client_overlay(0), BEHIND) else { bail!("IPv4 addresses") };
    until(4);
    lab.gateway.start_iperf()?;
    iperf(&lab.client().namespace, GATEWAY, Direction::Download, 14)?;
    until(22);
    for part in 0..10 {
        random_flows(&lab.client().namespace, source, network, part * FLOWS / 10..(part + 1) * FLOWS / 10)?;
        sleep(Duration::from_millis(400));
    }
    until(30);
    lab.gateway.start_iperf()?;
    iperf(&lab.client().namespace, GATEWAY, Direction::Upload, 14)?;
    until(50);
    let packet = Datagram::udp((source.into(), 4000), (BEHIND, CLOSED), b"closed");
    while begun.elapsed() < Duration::from_secs(62) {
        forge(&lab.client().namespace, "wg0", &vec![packet.clone(); 500])?;
        sleep(Duration::from_millis(250));
    }
    until(68);
    lab.gateway.start_iperf()?;
    iperf(&lab.client().namespace, GATEWAY, Direction::Download, 12)?;
    until(SHOWN.as_secs());
    Ok(())
}

fn charts(prometheus: &Prometheus, from: f64, to: f64) -> Result<Vec<Chart>> {
    let line = |name: &str, color: &'static str, expression: &str| -> Result<Line> {
        let found = prometheus.query_range(expression, from, to, 1)?;
        let [Found { points, .. }] = &found[..] else { bail!("{} series for {expression}", found.len()) };
        let points: Vec<_> = points.iter().map(|(time, value)| (time - from, *value)).collect();
        ensure!(points.iter().any(|(_, value)| *value > 0.0), "only zeros for {expression}");
        Ok(Line { name: name.to_owned(), color, points })
    };
    let bits = |direction| format!("sum(rate(peer_route_bytes_total{{direction=\"{direction}\"}}[4s])) * 8");
    let packets = |path| format!("sum(rate(peer_packets_total{{path=\"{path}\"}}[4s]))");
    let dropped = r#"sum(rate(peer_dropped_packets_total{reason="policy_rule"}[4s]))"#;
    Ok(vec![
        Chart {
            title: "Forwarded, bits per second".to_owned(),
            lines: vec![line("to the mesh", BLUE, &bits("in"))?, line("from the mesh", ORANGE, &bits("out"))?],
        },
        Chart {
            title: "Forwarded, packets per second".to_owned(),
            lines: vec![
                line("to the mesh", BLUE, &packets("forwarded_in"))?,
                line("from the mesh", ORANGE, &packets("forwarded_out"))?,
            ],
        },
        Chart {
            title: "Dropped by a rule, packets per second".to_owned(),
            lines: vec![line("dropped", RED, dropped)?],
        },
        Chart {
            title: "Flows in the NAT table, which gives up old ones above 80 %".to_owned(),
            lines: vec![line("flows that fit", GREY, "sum(peer_flows_max)")?, line("flows", GREEN, "sum(peer_flows)")?],
        },
        Chart {
            title: "CPU of the daemon, cores".to_owned(),
            lines: vec![line("user and system", BLUE, "sum(rate(process_cpu_seconds_total[4s]))")?],
        },
    ])
}

fn unix_now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}
