//! `cargo xtask build-ebpf`: compiles the eBPF programs and puts the object where the daemon's build looks for it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::process;
use crate::setup::linker;
use crate::toolchain::{self, Toolchain};
use crate::workspace;

#[derive(Args, Clone, Copy)]
pub(crate) struct Options {
    /// Accepted for symmetry with cargo: the programs have one optimisation profile, because the verifier's verdict
    /// holds only for the instructions that it saw
    #[arg(long)]
    release: bool,
    /// Build although the object is fresh
    #[arg(long)]
    force: bool,
}

/// The command: says what it did.
pub(crate) fn command(options: Options) -> Result<()> {
    let Options { release: _, force } = options;
    if !build(force)? {
        eprintln!("build-ebpf: {} is fresh", shown(&ebpf_artifact::object(workspace::root())));
    }
    Ok(())
}

/// Makes the object fresh; false when it was.
pub(crate) fn build(force: bool) -> Result<bool> {
    let root = workspace::root();
    let _lock = workspace::lock("ebpf")?;
    if !force && ebpf_artifact::is_fresh(root) {
        return Ok(false);
    }
    let Some(toolchain) = Toolchain::find() else { bail!(toolchain::FIX) };
    let linker = linker::ensure(&toolchain)?;
    // Taken first: a source that changes during the build leaves a stale stamp, never a false one.
    let fingerprint = ebpf_artifact::fingerprint(root).context("cannot read the sources of the eBPF programs")?;
    let started = Instant::now();
    eprintln!("build-ebpf: compiling with {}", toolchain.name());
    let folder = root.join("target/ebpf");
    let mut cargo = toolchain.cargo_build();
    cargo.current_dir(root.join("peer-ebpf")).args(["--release", "--locked", "--target-dir"]).arg(folder.join("build"));
    process::run_aside(with_flags(&mut cargo, &linker)?)?;
    publish(root, &folder.join("build/bpfel-unknown-none/release/peer-ebpf"), &fingerprint)?;
    let object = ebpf_artifact::object(root);
    eprintln!("build-ebpf: {} in {:.1} s", shown(&object), started.elapsed().as_secs_f64());
    Ok(true)
}

/// The flags of this target alone, whatever the user's environment or configuration says for others.
fn with_flags<'a>(cargo: &'a mut Command, linker: &Path) -> Result<&'a mut Command> {
    let mut flags = vec![
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        // Otherwise clearing memory becomes a call of a byte-wise loop, which the verifier refuses without CAP_PERFMON.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
    ];
    flags.extend(workspace::remapped("--remap-path-prefix")?);
    for name in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    Ok(cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")))
}

/// Object and stamp appear whole. The old stamp goes first, so that it never vouches for an object it does not know.
fn publish(root: &Path, built: &Path, fingerprint: &str) -> Result<()> {
    let (object, stamp) = (ebpf_artifact::object(root), ebpf_artifact::stamp(root));
    if stamp.exists() {
        fs::remove_file(&stamp).with_context(|| format!("cannot remove {}", stamp.display()))?;
    }
    let (new_object, new_stamp) = (object.with_extension("o.new"), stamp.with_extension("stamp.new"));
    fs::copy(built, &new_object).with_context(|| format!("cannot copy {}", built.display()))?;
    fs::rename(&new_object, &object).with_context(|| format!("cannot write {}", object.display()))?;
    fs::write(&new_stamp, fingerprint).with_context(|| format!("cannot write {}", new_stamp.display()))?;
    fs::rename(&new_stamp, &stamp).with_context(|| format!("cannot write {}", stamp.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace::root()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::publish;
    use std::fs;

    #[test]
    fn a_published_object_carries_the_fingerprint_it_was_built_from() {
        let root = tempfile::tempdir().expect("temp folder");
        fs::create_dir_all(root.path().join("target/ebpf")).expect("folder");
        let built = root.path().join("built");
        for round in ["first", "second"] {
            fs::write(&built, round).expect("built");
            publish(root.path(), &built, round).expect("publish");
            assert_eq!(fs::read_to_string(ebpf_artifact::object(root.path())).expect("object"), round);
            assert_eq!(fs::read_to_string(ebpf_artifact::stamp(root.path())).expect("stamp"), round);
        }
        assert_eq!(fs::read_dir(root.path().join("target/ebpf")).expect("folder").count(), 2, "no leftover");
    }

    #[test]
    fn a_failed_publish_leaves_no_stamp() {
        let root = tempfile::tempdir().expect("temp folder");
        fs::create_dir_all(root.path().join("target/ebpf")).expect("folder");
        fs::write(ebpf_artifact::stamp(root.path()), "old").expect("stamp");
        publish(root.path(), &root.path().join("not-there"), "new").expect_err("nothing to copy");
        assert!(!ebpf_artifact::stamp(root.path()).exists());
    }
}
