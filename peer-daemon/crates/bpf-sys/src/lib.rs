//! bpf(2) as far as aya does not have it, for the dataplane, its tests and the scenarios.
//!
//! - [`map`]: elements and batches of maps that aya opened, and plain maps;
//! - [`link`]: TCX links and the chains they make;
//! - [`program`]: programs of a few instructions, and what the kernel says of others;
//! - [`object`]: pins, and how many objects there are.
//!
//! All calls return what the kernel said as [`io::Error`].
#![allow(unsafe_code, reason = "bpf(2) is a foreign function, and what it fills is of the caller's type")]

pub mod link;
pub mod map;
pub mod object;
pub mod program;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// One command. `A` must be that command's own part of `union bpf_attr`, in its layout.
fn bpf<A>(command: i64, attr: &mut A) -> io::Result<i32> {
    // SAFETY: `attr` is the command's own part of `union bpf_attr`, and every pointer in it lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}

/// A command that returns a new descriptor.
fn bpf_fd<A>(command: i64, attr: &mut A) -> io::Result<OwnedFd> {
    let descriptor = bpf(command, attr)?;
    // SAFETY: the commands that this is used with return a descriptor that nobody else has, close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn fd(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value) as u64
}
