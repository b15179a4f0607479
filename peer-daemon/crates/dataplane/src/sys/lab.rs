//! For tests: namespaces of a thread's own, and programs of somebody else's.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::ptr;

use super::{TcxHook, bpf_fd, c_path, fd};

const BPF_PROG_LOAD: i64 = 5;
const BPF_LINK_CREATE: i64 = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_F_BEFORE: u32 = 1 << 3;

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
    let mut padded = [0_u8; 16];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    // r0 = verdict; exit
    let code = [0xb7_u64 | (u64::from(verdict.cast_unsigned()) << 32), 0x95];
    let mut attr = LoadAttr {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        count: code.len() as u32,
        code: code.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
        name: padded,
        ..Default::default()
    };
    bpf_fd(BPF_PROG_LOAD, &mut attr)
}

/// Attaches a program by a link that ends when it is dropped; at the head or at the tail.
pub(crate) fn attach(program: &OwnedFd, ifindex: u32, hook: TcxHook, first: bool) -> io::Result<OwnedFd> {
    let mut attr = LinkAttr {
        program: fd(program.as_fd()),
        target: ifindex,
        attach_type: hook as u32,
        flags: if first { BPF_F_BEFORE } else { 0 },
        ..Default::default()
    };
    bpf_fd(BPF_LINK_CREATE, &mut attr)
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    kind: u32,
    count: u32,
    code: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct LinkAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    pad: u32,
    expected_revision: u64,
}
