//! What building for another processor than this machine's needs. Asked for by `image --arch`, not by setup.

use anyhow::{Context as _, Result, bail};

use super::packages::System;
use crate::daemon::Target;
use crate::process::{self, command};
use crate::workspace;

/// Makes sure of a linker and of Rust's standard library.
///
/// # Errors
/// When something is missing that cannot be installed here; the commands that do were printed.
pub(crate) fn ensure(target: Target) -> Result<()> {
    if target == Target::of_host() {
        return Ok(());
    }
    let _lock = workspace::lock("setup")?;
    if process::find(&target.linker()).is_none() {
        let (compiler, library) = match target {
            Target::Aarch64 => ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"),
            Target::X86_64 => ("gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"),
        };
        System::find().install(&[compiler.to_owned(), library.to_owned()])?;
    }
    if !has_library(target)? {
        eprintln!("setup: rustup target add {}", target.triple());
        process::output(command("rustup").args(["target", "add", target.triple()]))
            .with_context(|| format!("this compiler has no standard library for {}", target.triple()))?;
        if !has_library(target)? {
            bail!("rustup added {} to another toolchain than the one that runs this", target.triple());
        }
    }
    Ok(())
}

fn has_library(target: Target) -> Result<bool> {
    let mut rustc = command(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let folder = process::output(rustc.args(["--print", "target-libdir", "--target", target.triple()]))?;
    Ok(std::fs::read_dir(folder.trim()).is_ok_and(|mut files| files.next().is_some()))
}
