//! `cargo xtask setup`: what the other commands need, found or installed.
//!
//! Programs come from the system's packages. What the system has in no fitting version lies in `target/tools`, for this
//! checkout alone: the machine's own package sources are never changed.

pub(crate) mod cargo_deny;
mod kubernetes;
pub(crate) mod linker;
pub(crate) mod machines;
mod packages;
mod private_apt;
mod sources;
pub(crate) mod wireguard_go;

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::toolchain::{DEBIAN_LLVM, FIX, Toolchain};
use crate::workspace;
use packages::System;
use wireguard_go::WireguardGo;

/// Run-time tools of the demo and the scenarios: the program, and Debian's and Fedora's package of it.
const TOOLS: [(&str, &str, &str); 7] = [
    ("curl", "curl", "curl"),
    ("ip", "iproute2", "iproute"),
    ("iperf3", "iperf3", "iperf3"),
    ("iptables-save", "iptables", "iptables-nft"),
    ("nft", "nftables", "nftables"),
    ("setpriv", "util-linux", "util-linux"),
    ("wg", "wireguard-tools", "wireguard-tools"),
];

/// Debian's compiler with `core` for the eBPF target.
const DEBIAN_COMPILER: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// The command: says so when there was nothing to do.
pub(crate) fn command() -> Result<()> {
    let tools = ensure()?;
    match machines::impossible() {
        Some(why) => eprintln!("setup: no virtual machines: {why}"),
        None => drop(machines::ensure(&machines::KERNELS)?),
    }
    let toolchain = Toolchain::find().context(FIX)?;
    eprintln!("setup: complete; eBPF by {}, wireguard-go {}", toolchain.name(), tools.version);
    Ok(())
}

/// Everything but cargo-deny, which only `ci` needs, and virtual machines, which only the tests need. One line per thing done, none when all is there.
///
/// # Errors
/// When something is missing that cannot be installed here; the commands that do were printed.
pub(crate) fn ensure() -> Result<WireguardGo> {
    let _lock = workspace::lock("setup")?;
    let tools = workspace::tools();
    fs::create_dir_all(&tools).with_context(|| format!("cannot make {}", tools.display()))?;
    let system = System::find();
    let missing = missing(&system);
    if !missing.is_empty() {
        system.install(&missing)?;
    }
    let Some(toolchain) = Toolchain::find() else { bail!(FIX) };
    linker::ensure(&toolchain)?;
    kubernetes::ensure(&system)?;
    wireguard_go::ensure(&system)
}

/// Packages to install, by the system's own names.
fn missing(system: &System) -> Vec<String> {
    let mut missing: Vec<String> = TOOLS
        .iter()
        .filter(|(program, ..)| process::find(program).is_none())
        .map(|(_, debian, fedora)| (*if *system == System::Fedora { fedora } else { debian }).to_owned())
        .collect();
    if *system != System::Debian {
        return missing;
    }
    let toolchain = Toolchain::find();
    if toolchain.is_none() {
        missing.extend(DEBIAN_COMPILER.map(str::to_owned));
    }
    let toolchain = toolchain.unwrap_or(Toolchain::Debian);
    if toolchain.llvm() == DEBIAN_LLVM && linker::find(&toolchain).is_none() {
        missing.extend(system.absent(&linker::debian_packages()));
    }
    missing
}
