//! Signals and the bond between a child and the thread that made it.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use super::check;

/// Lets `command` call `enter` before it starts, and die with the calling thread. `enter` runs between fork and exec:
/// only system calls, no allocation.
pub(crate) fn confine(command: &mut Command, mut enter: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    let prepare = move || {
        enter()?;
        // SAFETY: takes numbers only.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) })?;
        Ok(())
    };
    // SAFETY: the closure makes system calls only and touches no memory that another thread of the parent changes.
    unsafe { command.pre_exec(prepare) };
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: takes numbers only; a positive pid names one process.
    check(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// Length of one tick of `/proc/PID/stat` and `/proc/stat`.
pub(crate) fn clock_tick() -> Duration {
    // SAFETY: takes a number only.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs(1) / u32::try_from(per_second).unwrap_or(100).max(1)
}
