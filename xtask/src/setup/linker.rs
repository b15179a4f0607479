//! bpf-linker: links LLVM bitcode into a BPF object. It must know the bitcode of the compiler's LLVM.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process::{self, command};
use crate::toolchain::{DEBIAN_LLVM, Toolchain};
use crate::workspace;

const VERSION: &str = "0.13.0";

/// What its build needs on Debian.
pub(crate) fn debian_packages() -> [&'static str; 4] {
    const { assert!(DEBIAN_LLVM == 22, "the names below carry the version") };
    ["llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"]
}

/// The linker for a compiler: our own, or one on PATH of the same version.
pub(crate) fn find(toolchain: &Toolchain) -> Option<PathBuf> {
    let ours = folder(toolchain).join("bin/bpf-linker");
    if is_right(&ours) {
        return Some(ours);
    }
    process::find("bpf-linker").filter(|linker| is_right(linker))
}

/// Builds the linker unless it is there; its path.
pub(crate) fn ensure(toolchain: &Toolchain) -> Result<PathBuf> {
    if let Some(found) = find(toolchain) {
        return Ok(found);
    }
    let llvm = toolchain.llvm();
    eprintln!("setup: building bpf-linker {VERSION} for LLVM {llvm}");
    let mut install = process::cargo();
    install.args(["install", "--quiet", "bpf-linker", "--version", VERSION, "--locked", "--no-default-features"]);
    install.args(["--features", &format!("llvm-{llvm}"), "--root"]).arg(folder(toolchain));
    let prefix = format!("/usr/lib/llvm-{llvm}");
    if Path::new(&prefix).exists() {
        install.env("LLVM_PREFIX", prefix);
    }
    process::run_aside(&mut install).with_context(|| {
        format!(
            "cannot build bpf-linker for {}: it needs the development files of LLVM {llvm} (on Debian, `cargo xtask setup` \
             installs them), or put bpf-linker {VERSION} on PATH",
            toolchain.name()
        )
    })?;
    Ok(folder(toolchain).join("bin/bpf-linker"))
}

/// One per LLVM: a linker does not read the bitcode of a newer one.
fn folder(toolchain: &Toolchain) -> PathBuf {
    workspace::tools().join(format!("bpf-linker-llvm-{}", toolchain.llvm()))
}

fn is_right(linker: &Path) -> bool {
    linker.exists()
        && process::output(command(linker).arg("--version"))
            .is_ok_and(|version| version.split_whitespace().nth(1) == Some(VERSION))
}
