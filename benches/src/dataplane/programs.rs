//! Cost of the programs alone, nanoseconds.
//!
//! A plain repetition would translate a packet that is translated already, so each run first restores it and chooses its
//! flow; what that costs is measured by itself and subtracted.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use peer_common::layout::{DEFAULT_FLOWS, program};

use super::Scale;
use super::node::{Capabilities, Entries, Node, REDIRECT, Way, accept_all, rule_per_host};
use super::report::Report;

/// Flows of the small table, and of the hot set.
const SMALL: u32 = 1_000;
/// Hosts that the flows of a table go to: enough for every host to have NAT ports left.
const HOSTS: u32 = 500;

/// Hosts from one new flow to the next: a prime, so that all are visited, and far enough that no cache foresees it.
const STRIDE: u32 = 7919;

/// As long as flows are young, a mapping is looked after once a second.
pub(super) const YOUNG: Duration = Duration::from_secs(11);

/// A node whose table holds so many flows.
struct Table {
    name: String,
    flows: u32,
    _node: Node,
    entries: Entries,
}

impl Table {
    fn open(name: &str, capabilities: Capabilities, flows: u32) -> Result<Self> {
        let node = Node::start(name, capabilities, DEFAULT_FLOWS.max(flows + flows / 4))?;
        let mut entries = node.entries()?;
        entries.open_flows(flows, HOSTS)?;
        Ok(Self { name: name.to_owned(), flows, _node: node, entries })
    }

    /// One packet more of each flow both ways, so that every one is what an established flow is.
    fn settle(&mut self) -> Result<()> {
        for (way, entry) in [(Way::Out, program::BENCH_OUT), (Way::In, program::BENCH_IN)] {
            self.entries.plan(way, self.flows, (HOSTS, 1), true)?;
            self.entries.run(entry, self.flows)?;
        }
        Ok(())
    }

    /// A round of established flows, `among` of them: out, and in.
    fn round(&mut self, report: &mut Report, what: &str, among: u32, repeat: u32) -> Result<()> {
        for (way, prepare, entry, suffix) in [
            (Way::Out, program::BENCH_PREPARE, program::BENCH_OUT, "out"),
            (Way::In, program::BENCH_PREPARE_IN, program::BENCH_IN, "in"),
        ] {
            self.entries.plan(way, among, (HOSTS, 1), false)?;
            let (prepared, _) = self.entries.run(prepare, repeat)?;
            let (whole, verdict) = self.entries.run(entry, repeat)?;
            ensure!(verdict == REDIRECT, "{}: an established flow is forwarded, not {verdict}", self.name);
            report.add(&format!("{what}, {suffix}, ns"), whole - prepared);
        }
        let (nothing, _) = self.entries.run(program::BENCH_NOTHING, repeat)?;
        report.add("a program that does nothing, ns", nothing);
        Ok(())
    }
}

/// Established flows, out and in.
pub(super) fn flows(scale: &Scale, report: &mut Report) -> Result<()> {
    let [medium, large] = scale.large;
    let mut small = Table::open("small", Capabilities::Deployed, SMALL)?;
    let mut fenced = Table::open("fenced", Capabilities::Minimal, SMALL)?;
    let mut middle = Table::open("medium", Capabilities::Deployed, medium)?;
    let mut large = Table::open("large", Capabilities::Deployed, large)?;
    thread::sleep(YOUNG);
    for table in [&mut small, &mut fenced, &mut middle, &mut large] {
        table.settle()?;
    }
    for _ in 0..scale.rounds {
        small.round(report, "1k flows", SMALL, scale.repeat)?;
        fenced.round(report, "1k flows without PERFMON", SMALL, scale.repeat)?;
        middle.round(report, "100k flows", middle.flows, scale.repeat)?;
        large.round(report, "1M flows", large.flows, scale.repeat)?;
        large.round(report, "1k of 1M flows", SMALL, scale.repeat)?;
    }
    let established = report.median("1k flows, out, ns");
    let empty = report.median("a program that does nothing, ns");
    report.ratio("established_vs_empty", established / empty);
    report.paired("flows_100k_vs_1k", "100k flows, out, ns", "1k flows, out, ns");
    report.paired("flows_1m_vs_1k", "1M flows, out, ns", "1k flows, out, ns");
    report.paired("hot_1k_of_1m_vs_1k", "1k of 1M flows, out, ns", "1k flows, out, ns");
    report.paired("noperfmon_vs_perfmon", "1k flows without PERFMON, out, ns", "1k flows, out, ns");
    Ok(())
}

/// New flows under policies of different sizes, spread over all rules.
pub(super) fn policies(scale: &Scale, report: &mut Report) -> Result<()> {
    let node = Node::start("policy", Capabilities::Deployed, DEFAULT_FLOWS)?;
    let mut entries = node.entries()?;
    let flows = scale.repeat.min(20_000);
    let sizes = [(10, "10"), (1_000, "1k"), (scale.rules, "10k")];
    for _ in 0..scale.rounds {
        for (rules, name) in sizes {
            let took = node.rules(&rule_per_host(rules))?;
            report.add(&format!("{name} rules put in force, ms"), took.as_secs_f64() * 1e3);
            entries.clear()?;
            entries.plan(Way::Out, flows, (rules, STRIDE), true)?;
            let (prepared, _) = entries.run(program::BENCH_PREPARE, flows)?;
            entries.plan(Way::Out, flows, (rules, STRIDE), true)?;
            let (whole, verdict) = entries.run(program::BENCH_OUT, flows)?;
            ensure!(verdict == REDIRECT, "a new flow under {name} rules is forwarded, not {verdict}");
            report.add(&format!("new flow, {name} rules, ns"), whole - prepared);
        }
    }
    node.rules(&[accept_all()])?;
    report.paired("policy_10k_vs_10", "new flow, 10k rules, ns", "new flow, 10 rules, ns");
    Ok(())
}
