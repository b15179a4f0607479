//! Which compiler builds the eBPF programs.
//!
//! No stable toolchain of rustup ships `core` for `bpfel-unknown-none`. A nightly with `rust-src` builds it; Debian
//! packages a stable compiler with a prebuilt one.

use std::path::Path;
use std::process::Command;

use crate::process::{self, command};

/// Debian's compiler and the LLVM that it is built with.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
pub(crate) const DEBIAN_LLVM: u32 = 22;

/// The one line for a machine that has neither compiler.
pub(crate) const FIX: &str = "no compiler for eBPF: run `cargo xtask setup` (Debian, as root) or \
                              `rustup toolchain install nightly --component rust-src`";

/// A compiler that can build for `bpfel-unknown-none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// A rustup nightly with `rust-src`, by name; `core` is built from source.
    Nightly { name: String, llvm: u32 },
    /// Debian's `rustc-web` with `libstd-rust-web-dev-bpf`.
    Debian,
}

impl Toolchain {
    /// The nightly first, because most people have one; then Debian's.
    pub(crate) fn find() -> Option<Self> {
        nightly().or_else(debian)
    }

    /// Major version of the LLVM whose bitcode it emits: the linker must read it.
    pub(crate) fn llvm(&self) -> u32 {
        match self {
            Self::Nightly { llvm, .. } => *llvm,
            Self::Debian => DEBIAN_LLVM,
        }
    }

    /// For messages.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Nightly { name, .. } => name,
            Self::Debian => "Debian's compiler",
        }
    }

    /// `cargo build` for the eBPF target, profile and folders still to be added.
    pub(crate) fn cargo_build(&self) -> Command {
        let mut cargo = match self {
            Self::Nightly { name, .. } => {
                let mut rustup = rustup();
                rustup.args(["run", name, "cargo", "build", "-Zbuild-std=core"]);
                rustup
            }
            Self::Debian => {
                let mut cargo = process::cargo();
                cargo.arg("build").env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        };
        cargo.args(["--target", "bpfel-unknown-none"]);
        cargo
    }
}

fn nightly() -> Option<Toolchain> {
    let list = process::output(rustup().args(["toolchain", "list"])).ok()?;
    list.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| name.starts_with("nightly")).find_map(
        |name| {
            let sysroot = process::output(rustup().args(["run", name, "rustc", "--print", "sysroot"])).ok()?;
            let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
            let version = source.exists().then(|| process::output(rustup().args(["run", name, "rustc", "-vV"])))?;
            Some(Toolchain::Nightly { name: name.to_owned(), llvm: llvm_major(&version.ok()?)? })
        },
    )
}

fn debian() -> Option<Toolchain> {
    let target =
        process::output(command(DEBIAN_RUSTC).args(["--print", "target-libdir", "--target", "bpfel-unknown-none"]));
    let has_core = std::fs::read_dir(target.ok()?.trim()).ok()?.flatten().any(|file| {
        let name = file.file_name();
        name.to_string_lossy().starts_with("libcore-")
    });
    has_core.then_some(Toolchain::Debian)
}

/// Never lets rustup download a toolchain behind our back.
fn rustup() -> Command {
    let mut rustup = command("rustup");
    rustup.env("RUSTUP_AUTO_INSTALL", "0").env_remove("RUSTUP_TOOLCHAIN");
    rustup
}

fn llvm_major(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::llvm_major;

    #[test]
    fn llvm_major_is_read_from_the_verbose_version() {
        let text = "rustc 1.97.0-nightly\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.4\n";
        assert_eq!(llvm_major(text), Some(22));
        assert_eq!(llvm_major("rustc 1.97.0\n"), None);
    }
}
