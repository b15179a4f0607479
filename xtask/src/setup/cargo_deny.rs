//! cargo-deny, for `ci`: licences, duplicates and sources of the dependencies.

use std::path::PathBuf;

use anyhow::Result;

use crate::process::{self, command};
use crate::workspace;

const VERSION: &str = "0.20.2";

/// The tool, built into `target/tools` unless it is there or on PATH.
pub(crate) fn ensure() -> Result<PathBuf> {
    let _lock = workspace::lock("setup")?;
    let root = workspace::tools().join("cargo-deny");
    let ours = root.join("bin/cargo-deny");
    let candidates = [Some(ours.clone()), process::find("cargo-deny")];
    if let Some(found) = candidates.into_iter().flatten().find(is_right) {
        return Ok(found);
    }
    eprintln!("setup: building cargo-deny {VERSION}");
    let arguments = ["install", "--quiet", "cargo-deny", "--version", VERSION, "--locked", "--root"];
    process::run_aside(process::cargo().args(arguments).arg(root))?;
    Ok(ours)
}

fn is_right(deny: &PathBuf) -> bool {
    deny.exists()
        && process::output(command(deny).arg("--version"))
            .is_ok_and(|version| version.split_whitespace().nth(1) == Some(VERSION))
}
