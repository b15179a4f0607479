//! `cargo xtask vmtest`: our binaries under Debian's kernels, in QEMU. Emulated, because stock kernels do not run under
//! every hypervisor's KVM; so it shows what works, not how fast.

mod archive;
mod built;
mod image;
mod modules;
mod qemu;
mod suites;

use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use peer_tests::guest::{Plan, Run};
use peer_tests::lab::PATIENCE;

use self::built::Built;
use self::suites::{LEFT_OUT, SUITES, Suite};
use crate::setup::machines::{self, KERNELS, Kernel, Machines, Release};
use crate::setup::wireguard_go::WireguardGo;
use crate::steps::Steps;
use crate::workspace;
use crate::{build_ebpf, daemon, process, setup};

/// How much longer than elsewhere what tests wait for may take, on an emulated CPU of a machine that has other work, too.
const SLOWNESS: u32 = 4;

#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Only this kernel; may be given more than once. All of them unless given
    #[arg(long = "kernel", value_name = "VERSION", value_parser = KERNELS.map(|kernel| kernel.version))]
    kernels: Vec<String>,
    /// Only suites whose names contain this; may be given more than once. All of them unless given
    #[arg(long = "suite", value_name = "PART")]
    suites: Vec<String>,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    process::need_root("vmtest")?;
    let suites = chosen(&options.suites)?;
    let asked =
        |release: &Release| options.kernels.is_empty() || options.kernels.iter().any(|it| it == release.version);
    let releases: Vec<_> = KERNELS.into_iter().filter(asked).collect();
    let steps = Steps::of("vmtest");
    let (wireguard_go, machines) = steps.run("setup", || Ok((setup::ensure()?, machines::ensure(&releases)?)))?;
    steps.run("build-ebpf", || build_ebpf::build(false))?;
    let daemon = steps.run("build the daemon", daemon::build)?;
    run(&steps, daemon, &wireguard_go, &machines, &suites)?;
    steps.done();
    Ok(())
}

/// As a part of `test`: all kernels, or a line that says why not.
pub(crate) fn all(steps: &Steps, daemon: PathBuf, wireguard_go: &WireguardGo) -> Result<()> {
    if let Some(why) = machines::impossible() {
        eprintln!("vmtest: left out: {why}");
        return Ok(());
    }
    let machines = steps.run("setup of virtual machines", || machines::ensure(&KERNELS))?;
    run(steps, daemon, wireguard_go, &machines, &chosen(&[])?)
}

/// The suites whose names contain any of `parts`; all without parts.
fn chosen(parts: &[String]) -> Result<Vec<&'static Suite>> {
    if let Some(part) = parts.iter().find(|part| !SUITES.iter().any(|suite| suite.name.contains(part.as_str()))) {
        let names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        bail!("--suite {part}: no suite has that in its name; there are: {}", names.join("; "));
    }
    let asked = |suite: &&Suite| parts.is_empty() || parts.iter().any(|part| suite.name.contains(part.as_str()));
    Ok(SUITES.iter().filter(asked).collect())
}

fn run(
    steps: &Steps,
    daemon: PathBuf,
    wireguard_go: &WireguardGo,
    machines: &Machines,
    suites: &[&Suite],
) -> Result<()> {
    let built = steps.run("build the tests", || Built::build(daemon, wireguard_go.binary.clone()))?;
    for (what, why) in LEFT_OUT {
        eprintln!("vmtest: left out: {what}: {why}");
    }
    let packages: Vec<_> = machines.kernels.iter().map(|kernel| kernel.package.as_str()).collect();
    steps.run(&format!("Linux {}", packages.join(" and ")), || boot_all(machines, &built, suites))
}

/// All at once: each machine has one CPU.
fn boot_all(machines: &Machines, built: &Built, suites: &[&Suite]) -> Result<()> {
    let folder = workspace::root().join("target/vmtest");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let verdicts: Vec<_> = thread::scope(|scope| {
        let folder = &folder;
        let running =
            machines.kernels.iter().map(|kernel| scope.spawn(move || boot(machines, kernel, built, suites, folder)));
        running.collect::<Vec<_>>().into_iter().map(ScopedJoinHandle::join).collect()
    });
    let mut failed = Vec::new();
    for (kernel, verdict) in machines.kernels.iter().zip(verdicts) {
        let version = kernel.release.version;
        match verdict.unwrap_or_else(|panic| resume_unwind(panic)) {
            Ok(true) => {}
            Ok(false) => failed.push(format!("Linux {version}: tests failed: see target/vmtest/{version}.log")),
            Err(error) => failed.push(format!("Linux {version}: {error:#}")),
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// Whether all passed.
fn boot(machines: &Machines, kernel: &Kernel, built: &Built, suites: &[&Suite], folder: &Path) -> Result<bool> {
    let version = kernel.release.version;
    let image = folder.join(format!("{version}.cpio"));
    let log = folder.join(format!("{version}.log"));
    image::write(&image, kernel, built, &mut plan(kernel.release, built, suites)?)?;
    let passed = qemu::run(&machines.qemu, kernel, &image, &log)?;
    fs::remove_file(&image).with_context(|| format!("cannot remove {}", image.display()))?;
    Ok(passed)
}

fn plan(release: Release, built: &Built, suites: &[&Suite]) -> Result<Plan> {
    let daemon = image::in_machine(&built.daemon);
    let wireguard_go = image::in_machine(&built.wireguard_go);
    let variables = [
        ("PATH", "/usr/bin".to_owned()),
        ("PEER_DAEMON_BIN", daemon.display().to_string()),
        ("PEER_WIREGUARD_GO", wireguard_go.display().to_string()),
        ("PEER_MEMBER", release.member.to_owned()),
        (PATIENCE, SLOWNESS.to_string()),
    ];
    let environment = variables.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let suites = suites.iter().filter(|suite| suite.on.holds(release.has_tcx));
    let runs = suites.map(|suite| test_run(suite, built)).collect::<Result<_>>()?;
    Ok(Plan { modules: Vec::new(), environment, runs })
}

fn test_run(suite: &Suite, built: &Built) -> Result<Run> {
    // One CPU, and tests that load it: one after the other.
    let mut arguments = vec!["--test-threads=1".to_owned()];
    arguments.extend(suite.only.iter().map(ToString::to_string));
    arguments.extend(suite.skip.iter().flat_map(|test| ["--skip", test]).map(str::to_owned));
    Ok(Run {
        name: suite.name.to_owned(),
        program: image::in_machine(&built.test(suite.binary)?),
        arguments,
        limit_seconds: suite.limit_seconds,
    })
}
