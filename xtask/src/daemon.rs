//! The daemon as it is shipped.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace;

/// Builds the release daemon; its path.
pub(crate) fn build() -> Result<PathBuf> {
    process::run_aside(process::cargo().args(["build", "--locked", "--release", "--package", "peer-daemon"]))?;
    Ok(target().join("release/peer-daemon"))
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
