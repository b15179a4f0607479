//! What the first process of a machine does for it.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use super::check;

/// Loads a kernel module.
pub(crate) fn load_module(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let parameters = CString::default();
    // SAFETY: a descriptor and a C string that live through the call.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A child that has ended, if one has: process id and wait status. Orphans of the machine are children of its first
/// process.
pub(crate) fn ended_child() -> io::Result<Option<(u32, i32)>> {
    let mut status = 0;
    // SAFETY: the status lives through the call.
    let pid = check(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) })?;
    Ok(u32::try_from(pid).ok().filter(|&pid| pid > 0).map(|pid| (pid, status)))
}

/// Ends the machine.
pub(crate) fn restart() -> io::Result<()> {
    // SAFETY: takes a number only.
    unsafe { libc::sync() };
    // SAFETY: as above.
    check(unsafe { libc::reboot(libc::RB_AUTOBOOT) })?;
    Ok(())
}
