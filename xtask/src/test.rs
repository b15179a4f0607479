//! `cargo xtask test`: everything that must pass.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::setup::wireguard_go::WireguardGo;
use crate::steps::Steps;
use crate::{build_ebpf, daemon, image, process, setup, vmtest};

pub(crate) fn command() -> Result<()> {
    process::need_root("test")?;
    let steps = Steps::of("test");
    let wireguard_go = steps.run("setup", setup::ensure)?;
    steps.run("build-ebpf", || build_ebpf::build(false))?;
    let daemon = steps.run("build the daemon", daemon::build)?;
    let other = steps.run("build a daemon of another layout", daemon::build_other_layout)?;
    let images = steps.run("images", || image::of_host(&daemon))?;
    steps.run("cargo test", || run(&daemon, &other, &images, &wireguard_go))?;
    vmtest::all(&steps, daemon, &wireguard_go)?;
    steps.done();
    Ok(())
}

/// Unit, property and program tests and the scenarios; these find the daemon, its images and wireguard-go by
/// environment.
pub(crate) fn run(daemon: &Path, other: &Path, images: &[PathBuf; 2], wireguard_go: &WireguardGo) -> Result<()> {
    process::run(
        process::cargo()
            .args(["test", "--locked", "--workspace"])
            .env("PEER_DAEMON_BIN", daemon)
            .env("PEER_DAEMON_OTHER_BIN", other)
            .env("PEER_IMAGE", &images[0])
            .env("PEER_IMAGE_TOOLS", &images[1])
            .env("PEER_WIREGUARD_GO", &wireguard_go.binary)
            .env("PEER_WIREGUARD_GO_VERSION", &wireguard_go.version),
    )
}
