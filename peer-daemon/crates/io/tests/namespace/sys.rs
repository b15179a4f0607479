//! A thread of one's own: a network namespace.
#![allow(unsafe_code, reason = "unshare is a foreign function")]

use std::io;

/// Moves the calling thread into a new network namespace, which ends with the last thread, socket or TUN in it.
pub(crate) fn unshare_network() -> io::Result<()> {
    // SAFETY: takes flags only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
