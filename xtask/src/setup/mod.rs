//! `cargo xtask setup`: what the other commands need, found or installed.
//!
//! Programs come from the system's packages. What the system has in no fitting version lies in `target/tools`, for this
//! checkout alone: the machine's own package sources are never changed.

pub(crate) mod cargo_deny;
pub(crate) mod cross;
mod kubernetes;
pub(crate) mod linker;
pub(crate) mod machines;
mod packages;
mod private_apt;
mod prometheus;
mod sources;
pub(crate) mod wireguard_go;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::toolchain::{DEBIAN_LLVM, FIX, Toolchain};
use crate::workspace;
use packages::System;
use wireguard_go::WireguardGo;

/// Run-time tools of the demo and the scenarios, and what images have in them: the program, and Debian's and Fedora's
/// package of it.
const TOOLS: [(&str, &str, &str); 12] = [
    ("busybox", "busybox-static", "busybox"),
    ("conmon", "conmon", "conmon"),
    ("curl", "curl", "curl"),
    ("ip", "iproute2", "iproute"),
    ("iperf3", "iperf3", "iperf3"),
    ("iptables-save", "iptables", "iptables-nft"),
    ("nft", "nftables", "nftables"),
    ("podman", "podman", "podman"),
    ("runc", "runc", "runc"),
    ("setpriv", "util-linux", "util-linux"),
    ("systemd-analyze", "systemd", "systemd"),
    ("wg", "wireguard-tools", "wireguard-tools"),
];

/// What images have in them that is no program.
const ROOTS: [&str; 1] = ["ca-certificates"];

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
    prometheus::ensure(&system)?;
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
    // The daemon is linked statically; Debian's compilers bring what that takes.
    if *system == System::Fedora && !Path::new("/usr/lib64/libc.a").exists() {
        missing.push("glibc-static".to_owned());
    }
    if *system != System::Debian {
        return missing;
    }
    missing.extend(system.absent(&ROOTS));
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
