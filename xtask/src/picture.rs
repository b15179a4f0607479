//! `cargo xtask picture`: a picture of the lab under traffic, from what a Prometheus scraped.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use peer_tests::lab::{Binaries, Tunnel};

use crate::steps::Steps;
use crate::{build_ebpf, daemon, process, setup, workspace};

#[derive(Args)]
pub(crate) struct Options {
    /// Where to write it [default: docs/traffic.svg, the one of the README]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    process::need_root("picture")?;
    let steps = Steps::of("picture");
    let wireguard_go = steps.run("setup", setup::ensure)?;
    steps.run("build-ebpf", || build_ebpf::build(false))?;
    let daemon = steps.run("build the daemon", daemon::build)?;
    let out = options.out.clone().unwrap_or_else(|| workspace::root().join("docs/traffic.svg"));
    let binaries = Binaries { daemon, tunnel: Tunnel::WireguardGo(wireguard_go.binary) };
    steps.run("traffic", || peer_tests::picture::run(&binaries, &out))?;
    steps.done();
    Ok(())
}
