//! Memory of a process: how much it has, and how much it may have.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::traffic::wait_for;

/// Where memory is limited on machines with control groups of the first version, and of the second.
const HIERARCHIES: [(&str, &str); 2] =
    [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
/// The group is empty so long after its process has ended.
const LIMIT: Duration = Duration::from_secs(5);

/// Resident memory of a process, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Now.
    pub now: u64,
    /// The most since [`Resident::forget_peak`].
    pub peak: u64,
}

/// A control group whose processes the kernel kills when they take more than a limit. Drop it after them.
#[derive(Debug)]
pub struct MemoryLimit {
    group: PathBuf,
}

impl Resident {
    /// Of a process.
    ///
    /// # Errors
    /// It is gone.
    pub fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
            let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("KiB")?;
            anyhow::Ok(kib << 10)
        };
        Ok(Self { now: field("VmRSS:")?, peak: field("VmHWM:")? })
    }

    /// The peak is counted from now on.
    ///
    /// # Errors
    /// It is gone.
    pub fn forget_peak(pid: u32) -> Result<()> {
        // proc_pid_clear_refs(5).
        Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
    }
}

impl MemoryLimit {
    /// A group of its own for a process; what the process has already counts elsewhere. `None`: this machine's kernel or
    /// container offers no control of memory.
    ///
    /// # Errors
    /// The process cannot be put into the group.
    pub fn of(pid: u32, bytes: u64) -> Result<Option<Self>> {
        for (hierarchy, file) in HIERARCHIES {
            let group = PathBuf::from(format!("{hierarchy}/peer-lab-memory-{pid}"));
            if !fs::exists(hierarchy)? || fs::create_dir(&group).is_err() {
                continue;
            }
            let this = Self { group };
            if fs::write(this.group.join(file), bytes.to_string()).is_ok() {
                fs::write(this.group.join("cgroup.procs"), pid.to_string()).context("put it into its control group")?;
                return Ok(Some(this));
            }
        }
        Ok(None)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        if !wait_for(LIMIT, || fs::remove_dir(&self.group).is_ok()) {
            eprintln!("a control group is left behind: {}", self.group.display());
        }
    }
}
