//! Benches. Machines are shared and noisy: every figure is a median of interleaved runs, and what counts are ratios
//! against a peer in the same run.
#![forbid(unsafe_code)]

mod dataplane;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// What peer costs.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The eBPF programs alone, and single packets through the node against nft and iptables.
    Dataplane(Options),
}

#[derive(Debug, Args)]
struct Options {
    /// The results as the last line of output, one JSON object.
    #[arg(long)]
    json: bool,
    /// Smaller tables and fewer rounds: shows that it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// One part alone, for work on it; the ratios of the others are missing then.
    #[arg(long)]
    only: Option<Part>,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Established flows in tables of several sizes.
    Flows,
    /// New flows under policies of several sizes.
    Policy,
    /// Packets through the node, against nft and iptables.
    Forward,
    /// A random access to memory of several sizes: what lookups in large tables are to be compared with.
    Memory,
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Dataplane(options) => dataplane::run(options.json, options.quick, options.only),
    }
}
