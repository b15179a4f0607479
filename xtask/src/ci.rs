//! `cargo xtask ci`: what CI runs, on a laptop too.

use anyhow::{Result, bail};

use crate::setup::cargo_deny;
use crate::steps::Steps;
use crate::{build_ebpf, daemon, demo, image, process, setup, test, vmtest};

pub(crate) fn command() -> Result<()> {
    process::need_root("ci")?;
    let steps = Steps::of("ci");
    let wireguard_go = steps.run("setup", setup::ensure)?;
    steps.run("format", format)?;
    steps.run("licences and duplicates", deny)?;
    steps.run("build-ebpf", || build_ebpf::build(false))?;
    steps.run("clippy", clippy)?;
    steps.run("docs", docs)?;
    let daemon = steps.run("build the daemon", daemon::build)?;
    let other = steps.run("build a daemon of another layout", daemon::build_other_layout)?;
    let images = steps.run("images", || image::of_host(&daemon))?;
    steps.run("cargo test", || test::run(&daemon, &other, &images, &wireguard_go))?;
    vmtest::all(&steps, daemon.clone(), &wireguard_go)?;
    steps.run("demo", || match demo::run(demo::Options::for_ci(), daemon, wireguard_go)? {
        true => Ok(()),
        false => bail!("a check of the demo failed"),
    })?;
    steps.done();
    Ok(())
}

fn format() -> Result<()> {
    process::run_aside(process::cargo().args(["fmt", "--all", "--check"]))?;
    process::run_aside(process::cargo().args(["fmt", "--check", "--manifest-path", "peer-ebpf/Cargo.toml"]))
}

fn clippy() -> Result<()> {
    process::run_aside(process::cargo().args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "-Dwarnings",
    ]))
}

fn docs() -> Result<()> {
    let arguments = ["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"];
    process::run_aside(process::cargo().args(arguments).env("RUSTDOCFLAGS", "-Dwarnings"))
}

/// Advisories are left out: their database is a repository on the network, and CI's verdict on a commit must not
/// change with it, nor fail where only package registries are reached.
fn deny() -> Result<()> {
    let deny = cargo_deny::ensure()?;
    // The workspace's list of duplicates must be exact; peer-ebpf has but some of them.
    for (manifest, unmatched) in [("Cargo.toml", "--deny"), ("peer-ebpf/Cargo.toml", "--allow")] {
        let mut check = process::command(&deny);
        check.args(["--locked", "--config", "deny.toml", "--manifest-path", manifest, "check"]);
        check.args([unmatched, "unmatched-skip", "bans", "licenses", "sources"]);
        process::run_aside(&mut check)?;
    }
    Ok(())
}
