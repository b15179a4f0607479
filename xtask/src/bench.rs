//! `cargo xtask bench`: what things cost, as ratios.

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};

use crate::steps::Steps;
use crate::{build_ebpf, process, setup};

#[derive(Args, Clone, Copy)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Copy)]
enum What {
    /// The eBPF programs alone, and single packets through the node against nft and iptables
    Dataplane {
        /// End with one JSON object on stdout
        #[arg(long)]
        json: bool,
        /// Small tables and few rounds: shows that it works, not what it costs
        #[arg(long)]
        quick: bool,
        /// One part alone: flows, policy, forward or memory
        #[arg(long)]
        only: Option<Part>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    Flows,
    Policy,
    Forward,
    Memory,
}

pub(crate) fn command(options: Options) -> Result<()> {
    process::need_root("bench")?;
    let steps = Steps::of("bench");
    steps.run("setup", setup::ensure)?;
    steps.run("build-ebpf", || build_ebpf::build(false))?;
    let What::Dataplane { json, quick, only } = options.what;
    let mut cargo = process::cargo();
    cargo.args(["run", "--quiet", "--locked", "--release", "--package", "peer-benches", "--", "dataplane"]);
    cargo.args(json.then_some("--json")).args(quick.then_some("--quick"));
    if let Some(part) = only.and_then(|part| part.to_possible_value()) {
        cargo.args(["--only", part.get_name()]);
    }
    steps.run("dataplane", || process::run(&mut cargo))
}
