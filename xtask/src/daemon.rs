//! The daemon as it is shipped: one static program, the same in images, in the demo and in the scenarios.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace;

/// What it is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    X86_64,
    Aarch64,
}

impl Target {
    pub(crate) fn of_host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// As rustc names it.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// A program of binutils or gcc that works on it.
    pub(crate) fn tool(self, name: &str) -> String {
        match self {
            _ if self == Self::of_host() => name.to_owned(),
            Self::X86_64 => format!("x86_64-linux-gnu-{name}"),
            Self::Aarch64 => format!("aarch64-linux-gnu-{name}"),
        }
    }

    /// The compiler driver that links for it.
    pub(crate) fn linker(self) -> String {
        self.tool(if self == Self::of_host() { "cc" } else { "gcc" })
    }
}

/// Builds the release daemon for this machine; its path.
pub(crate) fn build() -> Result<PathBuf> {
    build_for(Target::of_host())
}

/// Builds the release daemon; its path. It needs no library where it runs.
pub(crate) fn build_for(built_for: Target) -> Result<PathBuf> {
    let triple = built_for.triple();
    let mut cargo = process::cargo();
    cargo.args(["build", "--locked", "--release", "--package", "peer-daemon", "--target", triple]);
    // Of the shipped binary alone, whatever the user's environment or configuration says for others.
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        // Finds the debug information, which is kept apart.
        "-Clink-arg=-Wl,--build-id=sha1".to_owned(),
    ];
    flags.extend(workspace::remapped("--remap-path-prefix")?);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    // Whatever is written in C and assembler.
    let flags = workspace::remapped("-ffile-prefix-map")?.join(" ");
    cargo.env(format!("CFLAGS_{}", triple.replace('-', "_")), flags);
    let linker = format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase().replace('-', "_"));
    cargo.env(linker, built_for.linker());
    process::run_aside(&mut cargo)?;
    Ok(target().join(triple).join("release/peer-daemon"))
}

/// Builds a daemon that differs in the version and the layout of its maps alone, for tests of upgrade and rollback.
pub(crate) fn build_other_layout() -> Result<PathBuf> {
    const ABI: &str = "9999";
    let this = env::current_exe().context("find this program")?;
    process::run_aside(process::command(&this).arg("build-ebpf").env(ebpf_artifact::TEST_ABI, ABI))?;
    let target = target().join("other-layout");
    let mut cargo = process::cargo();
    cargo.args(["build", "--locked", "--package", "peer-daemon", "--target-dir"]).arg(&target);
    process::run_aside(cargo.env(ebpf_artifact::TEST_ABI, ABI))?;
    Ok(target.join("debug/peer-daemon"))
}

fn target() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace::root().join(target)
}
