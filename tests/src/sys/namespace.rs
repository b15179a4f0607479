//! Network and mount namespaces of a thread.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use super::check;

/// Moves the calling thread into a new network and a new mount namespace, from which no mount spreads.
pub(crate) fn unshare() -> io::Result<()> {
    // SAFETY: takes flags only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) })?;
    // SAFETY: a C string; the other arguments may be null when only the propagation changes.
    check(unsafe {
        libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), libc::MS_REC | libc::MS_PRIVATE, ptr::null())
    })?;
    Ok(())
}

/// Moves the calling thread into both namespaces. Only async-signal-safe calls: it also runs between fork and exec.
pub(crate) fn enter(net: BorrowedFd<'_>, mounts: BorrowedFd<'_>) -> io::Result<()> {
    // A mount namespace can be entered only by a thread whose root and working directory are its own.
    // SAFETY: takes flags only.
    check(unsafe { libc::unshare(libc::CLONE_FS) })?;
    // SAFETY: descriptors that live through the call.
    check(unsafe { libc::setns(net.as_raw_fd(), libc::CLONE_NEWNET) })?;
    // SAFETY: as above.
    check(unsafe { libc::setns(mounts.as_raw_fd(), libc::CLONE_NEWNS) })?;
    Ok(())
}

/// Makes a part of the tree read-only for the calling thread, which gets a mount namespace of its own. Only
/// async-signal-safe calls: it runs between fork and exec.
pub(crate) fn read_only(at: &CStr) -> io::Result<()> {
    let none = ptr::null();
    // SAFETY: takes flags only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    // SAFETY: C strings that live through the call; the other arguments may be null for a bind mount.
    check(unsafe { libc::mount(at.as_ptr(), at.as_ptr(), none, libc::MS_BIND, ptr::null()) })?;
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
    // SAFETY: as above.
    check(unsafe { libc::mount(none, at.as_ptr(), none, flags, ptr::null()) })?;
    Ok(())
}

/// Mounts a file system without a device in the mount namespace of the calling thread.
pub(crate) fn mount(kind: &CStr, at: &Path) -> io::Result<()> {
    let at = CString::new(at.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: C strings that live through the call.
    check(unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, ptr::null()) })?;
    Ok(())
}
