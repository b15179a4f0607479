//! `cargo xtask demo`: the main job, end to end, in network namespaces of this machine.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::setup::wireguard_go::WireguardGo;
use crate::steps::Steps;
use crate::{build_ebpf, daemon, image, process, setup};

#[derive(Args, Clone, Copy)]
pub(crate) struct Options {
    /// Run the daemon as a container: the image, by podman, with what the DaemonSet gives it
    #[arg(long)]
    image: bool,
    /// End with one JSON object on stdout
    #[arg(long)]
    json: bool,
    /// Who tells the node what to do: a NetBird control plane of our own, or a file [default: netbird; static with
    /// --compare]
    #[arg(long, value_enum)]
    control: Option<Control>,
    /// Also measure wireguard-go with iptables MASQUERADE, interleaved, and print the ratio
    #[arg(long)]
    compare: bool,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Control {
    /// Management, signal and relay: packets come through the relay
    Netbird,
    /// A configuration file: packets come by UDP
    Static,
}

impl Options {
    pub(crate) fn for_ci() -> Self {
        Self { image: false, json: true, control: None, compare: false }
    }
}

/// Whether every check passed.
pub(crate) fn command(options: Options) -> Result<bool> {
    process::need_root("demo")?;
    let steps = Steps::of("demo");
    let wireguard_go = steps.run("setup", setup::ensure)?;
    steps.run("build-ebpf", || build_ebpf::build(false))?;
    let daemon = steps.run("build the daemon", daemon::build)?;
    run(options, daemon, wireguard_go)
}

/// The demo itself, with everything built.
pub(crate) fn run(options: Options, daemon: PathBuf, wireguard_go: WireguardGo) -> Result<bool> {
    let Options { image, json, control, compare } = options;
    let control = control.unwrap_or(if compare { Control::Static } else { Control::Netbird });
    ensure!(
        !compare || control == Control::Static,
        "--compare is about packets that come by UDP: not with --control netbird"
    );
    let control = match control {
        Control::Netbird => peer_tests::demo::Control::Netbird,
        Control::Static => peer_tests::demo::Control::Static,
    };
    let image = image.then(|| image::of_host(&daemon).map(|[minimal, _]| minimal)).transpose()?;
    peer_tests::demo::run(&peer_tests::demo::Options {
        json,
        control,
        compare,
        image,
        daemon,
        wireguard_go: wireguard_go.binary,
        wireguard_go_version: wireguard_go.version,
    })
}
