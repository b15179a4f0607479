//! The daemon as it is shipped.

use std::env;
use std::path::PathBuf;

use anyhow::Result;

use crate::process;
use crate::workspace;

/// Builds the release daemon; its path.
pub(crate) fn build() -> Result<PathBuf> {
    process::run_aside(process::cargo().args(["build", "--locked", "--release", "--package", "peer-daemon"]))?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Ok(workspace::root().join(target).join("release/peer-daemon"))
}
