//! The same traffic through the node and through its twin, in turns.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Options;
use super::figures::Figures;
use super::voice::Voice;
use crate::lab::{Baseline, Direction, GATEWAY, Lab, Namespace, Process, Throughput, iperf};

/// Runs of each of the two, each way.
const PAIRS: usize = 5;
/// Length of a run.
const SECONDS: u32 = 2;
/// A machine with less idle time than this share of one CPU is busy.
const IDLE_SHARE: f64 = 0.1;

/// One run.
#[derive(Clone, Copy, Debug)]
struct Run {
    gbit_per_second: f64,
    /// CPU seconds per second of wireguard-go in the remote.
    remote_load: f64,
    /// CPU seconds per second of the engine in the node.
    node_load: f64,
    /// Idle CPU seconds per second of the machine.
    idle: f64,
}

impl Run {
    /// The remote had taken what CPU there was, and more of it than the node.
    fn remote_bound(&self) -> bool {
        self.idle < IDLE_SHARE && self.remote_load > self.node_load
    }
}

/// Measures, prints, keeps the figures.
pub(crate) fn run(voice: Voice, lab: &mut Lab, options: &Options, figures: &mut Figures) -> Result<()> {
    let mut twin = Baseline::start(&options.wireguard_go).context("build node-baseline")?;
    lab.gateway.start_iperf()?;
    twin.gateway.start_iperf()?;
    let version = &options.wireguard_go_version;
    voice.heading(&format!(
        "peer-daemon {} against wireguard-go {version} with iptables MASQUERADE, {PAIRS} pairs of {SECONDS} s in turns",
        env!("CARGO_PKG_VERSION"),
    ));
    voice.line(&format!("the remote is wireguard-go {version} in both; everything shares this machine's CPUs"));
    for (name, direction) in [("upload", Direction::Upload), ("download", Direction::Download)] {
        let (mut peer, mut baseline) = (Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            peer.push(measure(&lab.clients[0].namespace, lab.clients[0].process()?, lab.node.daemon()?, direction)?);
            baseline.push(measure(&twin.client.namespace, twin.client.process()?, &twin.wireguard, direction)?);
        }
        report(voice, figures, name, &peer, &baseline);
    }
    Ok(())
}

fn measure(from: &Namespace, remote: &Process, node: &Process, direction: Direction) -> Result<Run> {
    let (start, remote_before, node_before) = (Instant::now(), remote.cpu()?, node.cpu()?);
    let Throughput { bits_per_second, .. } = iperf(from, GATEWAY, direction, SECONDS)?;
    let (took, remote_after, node_after) = (start.elapsed(), remote.cpu()?, node.cpu()?);
    let per_second = |time: Duration| time.as_secs_f64() / took.as_secs_f64();
    Ok(Run {
        gbit_per_second: bits_per_second / 1e9,
        remote_load: per_second(remote_after.process.saturating_sub(remote_before.process)),
        node_load: per_second(node_after.process.saturating_sub(node_before.process)),
        idle: per_second(node_after.idle.saturating_sub(node_before.idle)),
    })
}

fn report(voice: Voice, figures: &mut Figures, name: &str, peer: &[Run], baseline: &[Run]) {
    let of = |runs: &[Run], what: fn(&Run) -> f64| median(runs.iter().map(what).collect());
    let (ours, theirs) = (of(peer, |run| run.gbit_per_second), of(baseline, |run| run.gbit_per_second));
    let bound = peer.iter().filter(|run| run.remote_bound()).count() * 2 > peer.len();
    let loads =
        |runs: &[Run]| (of(runs, |run| run.remote_load), of(runs, |run| run.node_load), of(runs, |run| run.idle));
    for (who, rate, (remote, node, idle)) in [("peer", ours, loads(peer)), ("baseline", theirs, loads(baseline))] {
        voice.line(&format!(
            "{name:>8} {who:<8} median {rate:.2} Gbit/s   CPUs: remote {remote:.2}, node {node:.2}, idle {idle:.2}"
        ));
    }
    let yes = if bound { "yes" } else { "no" };
    voice.line(&format!("{name:>8} ratio {:.2}   remote-bound: {yes}", ours / theirs));
    let rates = |runs: &[Run]| runs.iter().map(|run| run.gbit_per_second).collect::<Vec<_>>();
    figures.set(
        &format!("compare_{name}"),
        json!({
            "ratio": ours / theirs,
            "peer_gbit_per_second": ours,
            "baseline_gbit_per_second": theirs,
            "peer_runs": rates(peer),
            "baseline_runs": rates(baseline),
            "remote_bound": bound,
            "peer_node_cpus": of(peer, |run| run.node_load),
            "baseline_node_cpus": of(baseline, |run| run.node_load),
        }),
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
