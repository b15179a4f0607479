//! For tests: namespaces of a thread's own, and programs of somebody else's.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::ptr;

use peer_bpf_sys::program::{self, Instruction};

use super::c_path;

/// Moves the calling thread into a network and a mount namespace of its own; both end with the thread.
pub(crate) fn unshare() -> io::Result<()> {
    // SAFETY: takes flags only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) })?;
    // SAFETY: the path is a C string; the other arguments may be null for a change of propagation.
    check(unsafe { libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), libc::MS_REC | libc::MS_PRIVATE, ptr::null()) })
}

/// Mounts a file system of that kind, visible in this mount namespace only.
pub(crate) fn mount(kind: &str, at: &Path) -> io::Result<()> {
    let (kind, target) = (CString::new(kind).map_err(io::Error::other)?, c_path(at)?);
    // SAFETY: all strings are C strings that live through the call.
    check(unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, ptr::null()) })
}

/// Undoes [`mount`].
pub(crate) fn unmount(at: &Path) -> io::Result<()> {
    let target = c_path(at)?;
    // SAFETY: a C string.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) })
}

/// A program that does nothing but return `verdict`.
pub(crate) fn program(name: &str, verdict: i32) -> io::Result<OwnedFd> {
    // r0 = verdict; exit
    let code = [Instruction::new(0xb7, 0, 0, verdict), Instruction::new(0x95, 0, 0, 0)];
    program::load(name, &code, &mut [])
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
