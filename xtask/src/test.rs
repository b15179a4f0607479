//! `cargo xtask test`: everything that must pass.

use std::path::Path;

use anyhow::Result;

use crate::setup::wireguard_go::WireguardGo;
use crate::steps::Steps;
use crate::{build_ebpf, daemon, process, setup, vmtest};

/// The engine with a clock that tests move. Apart from the rest: with this feature a daemon's timers stand still.
pub(crate) const MOCK_CLOCK: [&str; 4] = ["--package", "peer-wireguard", "--features", "mock-clock"];

pub(crate) fn command() -> Result<()> {
    process::need_root("test")?;
    let steps = Steps::of("test");
    let wireguard_go = steps.run("setup", setup::ensure)?;
    steps.run("build-ebpf", || build_ebpf::build(false))?;
    let daemon = steps.run("build the daemon", daemon::build)?;
    let other = steps.run("build a daemon of another layout", daemon::build_other_layout)?;
    steps.run("cargo test", || run(&daemon, &other, &wireguard_go))?;
    vmtest::all(&steps, daemon, &wireguard_go)?;
    steps.done();
    Ok(())
}

/// Unit, property and program tests and the scenarios; these find the daemon and wireguard-go by environment.
pub(crate) fn run(daemon: &Path, other: &Path, wireguard_go: &WireguardGo) -> Result<()> {
    process::run(
        process::cargo()
            .args(["test", "--locked", "--workspace"])
            .env("PEER_DAEMON_BIN", daemon)
            .env("PEER_DAEMON_OTHER_BIN", other)
            .env("PEER_WIREGUARD_GO", &wireguard_go.binary)
            .env("PEER_WIREGUARD_GO_VERSION", &wireguard_go.version),
    )?;
    process::run(process::cargo().args(["test", "--locked"]).args(MOCK_CLOCK).args(["--test", "clock"]))
}
