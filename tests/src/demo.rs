//! The main job, shown: a `WireGuard` client that we did not write reaches a LAN service through peer-daemon and eBPF.

mod checks;
mod compare;
mod figures;
mod machine;
mod path;
mod stage;
mod story;
mod teardown;
mod voice;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::lab::{Binaries, Capabilities, Container, ForeignProgram, Image, Tunnel};
use checks::Checks;
use figures::Figures;
use machine::Machine;
use stage::Stage;
use story::Story;
use voice::Voice;

/// Who tells the node what to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// A file.
    Static,
    /// Management, signal and relay.
    #[default]
    Netbird,
}

/// What to show, and with which programs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The result also as one JSON object, the last line of standard output; what is for people goes to standard error.
    pub json: bool,
    /// Who tells the node what to do.
    pub control: Control,
    /// Also run the same traffic through wireguard-go with iptables MASQUERADE, and print the ratio.
    pub compare: bool,
    /// `peer-daemon`.
    pub daemon: PathBuf,
    /// The same as an image, to be run by podman with what the `DaemonSet` has; `None`: as a program of this machine.
    pub image: Option<PathBuf>,
    /// `wireguard-go`.
    pub wireguard_go: PathBuf,
    /// Its version, as the package says it.
    pub wireguard_go_version: String,
}

/// Runs the demo; says whether all checks passed.
///
/// # Errors
/// The lab cannot be built. What fails in a lab that stands is a failed check.
pub fn run(options: &Options) -> Result<bool> {
    let voice = Voice { json: options.json };
    let start = Instant::now();
    let machine = Machine::look()?;
    let mut checks = Checks::default();
    let mut figures = Figures::default();
    figures.set("wireguard_go_version", options.wireguard_go_version.as_str());

    let deployed = options.compare || options.image.is_some();
    let capabilities = if deployed { Capabilities::Deployed } else { Capabilities::Minimal };
    let binaries =
        Binaries { daemon: options.daemon.clone(), tunnel: Tunnel::WireguardGo(options.wireguard_go.clone()) };
    let mut stage = Stage::prepare(options.control, capabilities, &binaries).context("build the lab")?;
    if let Some(archive) = &options.image {
        stage.node_mut().container = Some(Container::deployed(Image::load(archive)?));
    }
    voice.heading(stage.cast());
    let devices = stage.node().namespace.devices()?;
    // Attached before the daemon comes, as another agent of the node would be.
    let foreign = ForeignProgram::attach(&stage.node().namespace, "eth0")?;
    stage.up()?;
    figures.set("seconds_to_ready", start.elapsed().as_secs_f64());
    let form = if options.image.is_some() { "in a container, " } else { "" };
    voice.line(&format!("{form}ready after {:.1} s with {}", start.elapsed().as_secs_f64(), capabilities.names()));

    let foreign = Story { voice, checks: &mut checks, figures: &mut figures }.tell(&mut stage, foreign)?;
    if options.compare {
        let Stage::Static(lab) = &mut stage else { bail!("only what comes by UDP can be compared: --control static") };
        compare::run(voice, lab, options, &mut figures)?;
    }
    teardown::run(stage, foreign, &devices, &machine, &mut checks)?;

    figures.set("seconds", start.elapsed().as_secs_f64());
    voice.heading("Checks");
    voice.line(&checks.table());
    voice.result(&checks, &figures);
    Ok(checks.all_passed())
}
