//! The programs under test: built by the project or fetched by its setup.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::tunnel::Tunnel;

/// Programs that a lab starts.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `peer-daemon`.
    pub daemon: PathBuf,
    /// What makes the members' tunnels.
    pub tunnel: Tunnel,
}

impl Binaries {
    /// Finds both, as [`find_daemon`] and [`Tunnel::find`].
    ///
    /// # Errors
    /// One is not there; the message says how to get it.
    pub fn find() -> Result<Self> {
        Ok(Self { daemon: find_daemon()?, tunnel: Tunnel::find()? })
    }
}

/// `$PEER_DAEMON_BIN`, or the newest of the release builds, the static one of `cargo xtask` included, and the debug build.
///
/// # Errors
/// There is none; the message says how to get it.
pub fn find_daemon() -> Result<PathBuf> {
    if let Some(path) = named_by("PEER_DAEMON_BIN")? {
        return Ok(path);
    }
    let shipped = format!("{}-unknown-linux-gnu/release", env::consts::ARCH);
    let built = [&shipped, "release", "debug"].map(|profile| target_directory().join(profile).join("peer-daemon"));
    let newest = built.into_iter().filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path))).max();
    match newest {
        Some((_, path)) => Ok(path),
        None => bail!("no peer-daemon: run `cargo build --release -p peer-daemon`, or name one in PEER_DAEMON_BIN"),
    }
}

/// A daemon that differs in the version and the layout of its maps alone: `$PEER_DAEMON_OTHER_BIN`, or built now with
/// `PEER_TEST_ABI`, programs and all, into a target folder of its own.
///
/// # Errors
/// cargo fails.
pub fn find_daemon_of_other_layout() -> Result<PathBuf> {
    const ABI: &str = "9999";
    if let Some(path) = named_by("PEER_DAEMON_OTHER_BIN")? {
        return Ok(path);
    }
    let target = target_directory().join("other-layout");
    let cargo = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).env("PEER_TEST_ABI", ABI);
        let output = command.output().context("start cargo")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cargo {}: {errors}", arguments.join(" "));
        Ok(())
    };
    cargo(&["run", "--quiet", "--package", "xtask", "--", "build-ebpf"])?;
    let folder = target.to_string_lossy();
    cargo(&["build", "--quiet", "--locked", "--package", "peer-daemon", "--target-dir", &folder])?;
    Ok(target.join("debug/peer-daemon"))
}

/// `$PEER_WIREGUARD_GO`, or what `cargo xtask setup` unpacked, or the one on `PATH`.
///
/// # Errors
/// There is none; the message says how to get it.
pub fn find_wireguard_go() -> Result<PathBuf> {
    if let Some(path) = named_by("PEER_WIREGUARD_GO")? {
        return Ok(path);
    }
    let unpacked = target_directory().join("tools/wireguard-go/usr/bin/wireguard-go");
    let on_path = env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    std::iter::once(unpacked)
        .chain(on_path.map(|directory| directory.join("wireguard-go")))
        .find(|path| path.is_file())
        .context("no wireguard-go: run `cargo xtask setup`, or name one in PEER_WIREGUARD_GO")
}

pub(crate) fn named_by(variable: &str) -> Result<Option<PathBuf>> {
    let Some(path) = env::var_os(variable).map(PathBuf::from) else { return Ok(None) };
    let path = path.canonicalize().with_context(|| format!("{variable}={}", path.display()))?;
    Ok(Some(path))
}

pub(crate) fn target_directory() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("/"));
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), |path| workspace.join(path))
}
