//! The first process of a virtual machine of `cargo xtask vmtest`: makes the kernel usable, runs test binaries, says on
//! the console how they ended, and ends the machine.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::sys::{machine, namespace, process};

/// Where the plan lies in the machine.
pub const PLAN: &str = "/vmtest/plan.json";
/// How a line of ours begins on the console.
pub const MARK: &str = "vmtest: ";
/// The last line of ours when everything has passed, after [`MARK`].
pub const PASSED: &str = "verdict: passed";
/// As above, when something has failed.
pub const FAILED: &str = "verdict: failed";

/// File systems of the machine, and where they are mounted.
const MOUNTS: [(&CStr, &str); 4] =
    [(c"devtmpfs", "/dev"), (c"proc", "/proc"), (c"sysfs", "/sys"), (c"bpf", "/sys/fs/bpf")];
/// Folders that programs expect.
const FOLDERS: [&str; 3] = ["/run", "/tmp", "/var"];

/// What a machine is to do.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Plan {
    /// Kernel modules, each after those that it needs.
    pub modules: Vec<PathBuf>,
    /// Environment of the test binaries.
    pub environment: Vec<(String, String)>,
    /// One after the other.
    pub runs: Vec<Run>,
}

/// One test binary.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Run {
    /// For people.
    pub name: String,
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What it may take; then it is killed and has failed.
    pub limit_seconds: u64,
}

/// Does the work of the first process and ends the machine. Returns only when that cannot be done.
///
/// # Errors
/// The kernel refuses to end the machine.
pub fn main() -> io::Result<()> {
    let passed = work().unwrap_or_else(|error| {
        say(&format!("{error:#}"));
        false
    });
    say(if passed { PASSED } else { FAILED });
    machine::restart()
}

/// Whether all runs passed.
fn work() -> Result<bool> {
    for (kind, at) in MOUNTS {
        fs::create_dir_all(at).with_context(|| format!("make {at}"))?;
        namespace::mount(kind, Path::new(at)).with_context(|| format!("mount {at}"))?;
    }
    for folder in FOLDERS {
        fs::create_dir_all(folder).with_context(|| format!("make {folder}"))?;
    }
    // Where wireguard-go and wg meet.
    symlink("/run", "/var/run").context("link /var/run")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    say(&format!("Linux {}", release.trim()));
    let plan: Plan = serde_json::from_str(&fs::read_to_string(PLAN).context(PLAN)?).context(PLAN)?;
    for module in &plan.modules {
        machine::load_module(module).with_context(|| format!("load {}", module.display()))?;
    }
    ensure!(!plan.runs.is_empty(), "nothing to run");
    let mut all = true;
    for run in &plan.runs {
        let start = Instant::now();
        say(&format!("run {}", run.name));
        let status = finish(run, &plan.environment).with_context(|| format!("run {}", run.name))?;
        let seconds = start.elapsed().as_secs_f64();
        if status.is_some_and(|status| status.success()) {
            say(&format!("passed {} in {seconds:.1} s", run.name));
        } else {
            let how = status.map_or_else(|| "not over in time".to_owned(), |status| status.to_string());
            say(&format!("failed {} in {seconds:.1} s: {how}", run.name));
            all = false;
        }
    }
    Ok(all)
}

/// Runs a binary to its end, `None`: it had to be killed. Orphans that end meanwhile are laid to rest.
fn finish(run: &Run, environment: &[(String, String)]) -> Result<Option<ExitStatus>> {
    let mut command = Command::new(&run.program);
    command.args(&run.arguments).envs(environment.iter().cloned()).stdin(Stdio::null());
    let child = command.spawn()?.id();
    let deadline = Instant::now() + Duration::from_secs(run.limit_seconds);
    let mut killed = false;
    loop {
        match machine::ended_child()? {
            Some((pid, _)) if pid == child && killed => return Ok(None),
            Some((pid, status)) if pid == child => return Ok(Some(ExitStatus::from_raw(status))),
            Some(_) => {}
            None if Instant::now() > deadline && !killed => {
                process::signal(child, libc::SIGKILL)?;
                killed = true;
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn say(text: &str) {
    println!("{MARK}{text}");
}
