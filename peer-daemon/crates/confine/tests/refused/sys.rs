//! System calls by number.
#![allow(unsafe_code, reason = "syscall(2) is a foreign function")]

use std::ffi::c_long;
use std::io;

/// Makes the call, every argument being -1.
pub(crate) fn call(number: c_long) -> io::Result<()> {
    const NONE: c_long = -1;
    // SAFETY: -1 is no address that the kernel could write to, no descriptor, and no valid set of flags.
    let result = unsafe { libc::syscall(number, NONE, NONE, NONE, NONE, NONE, NONE) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
