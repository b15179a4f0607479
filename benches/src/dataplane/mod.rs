//! `dataplane`: cost of the programs by `BPF_PROG_TEST_RUN`, and packets per second through the node.

mod forward;
mod memory;
mod node;
mod programs;
mod report;

use std::process::ExitCode;

use anyhow::Result;

use self::report::Report;
use crate::Part;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Rounds of interleaved runs; the median counts.
    pub(crate) rounds: usize,
    /// Runs of a program in one measurement.
    pub(crate) repeat: u32,
    /// Flows of the large tables.
    pub(crate) large: [u32; 2],
    /// Rules of the large policy.
    pub(crate) rules: u32,
    /// Interleaved turns of forwarding.
    pub(crate) turns: usize,
    /// Packets written in one turn.
    pub(crate) packets: u32,
}

impl Scale {
    fn of(quick: bool) -> Self {
        if quick {
            return Self { rounds: 3, repeat: 2_000, large: [5_000, 20_000], rules: 1_000, turns: 3, packets: 5_000 };
        }
        Self { rounds: 9, repeat: 100_000, large: [100_000, 1_000_000], rules: 10_000, turns: 60, packets: 20_000 }
    }
}

/// Runs all of it, or one part, and prints what it found.
pub(crate) fn run(json: bool, quick: bool, only: Option<Part>) -> Result<ExitCode> {
    let scale = Scale::of(quick);
    let mut report = Report::new(scale);
    for (part, measure) in [
        (Part::Flows, programs::flows as fn(&Scale, &mut Report) -> Result<()>),
        (Part::Policy, programs::policies),
        (Part::Forward, forward::measure),
        (Part::Memory, memory::measure),
    ] {
        if only.is_none_or(|only| only == part) {
            measure(&scale, &mut report)?;
        }
    }
    report.print(json);
    Ok(ExitCode::SUCCESS)
}
