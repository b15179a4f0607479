//! Pins, and objects of all of the machine.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use super::{bpf, bpf_fd, c_path, fd};

const BPF_OBJ_PIN: i64 = 6;
const BPF_OBJ_GET: i64 = 7;
const BPF_PROG_GET_NEXT_ID: i64 = 11;
const BPF_MAP_GET_NEXT_ID: i64 = 12;
const BPF_OBJ_GET_INFO_BY_FD: i64 = 15;
const BPF_LINK_GET_NEXT_ID: i64 = 31;

/// Gives a link or a program a name that outlives us.
///
/// # Errors
/// Among others `EEXIST`, and `EPERM` where there is no bpffs.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, fd: fd(object), flags: 0 };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// How many programs, maps and links the machine has. Needs CAP_SYS_ADMIN.
///
/// # Errors
/// `EPERM`.
pub fn count() -> io::Result<[usize; 3]> {
    let count = |command| {
        let (mut id, mut count) = (0, 0);
        loop {
            let mut attr = NextIdAttr { start: id, ..Default::default() };
            match bpf(command, &mut attr) {
                Ok(_) => (id, count) = (attr.next, count + 1),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(count),
                Err(error) => return Err(error),
            }
        }
    };
    Ok([count(BPF_PROG_GET_NEXT_ID)?, count(BPF_MAP_GET_NEXT_ID)?, count(BPF_LINK_GET_NEXT_ID)?])
}

/// Opens what is pinned; `None`: nothing is pinned there.
pub(crate) fn open(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, ..Default::default() };
    match bpf_fd(BPF_OBJ_GET, &mut attr) {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The kernel fills as much as `info` has room for.
pub(crate) fn info<I: Info>(object: BorrowedFd<'_>, info: &mut I) -> io::Result<()> {
    let mut attr = InfoAttr { fd: fd(object), info_len: size_of::<I>() as u32, info: std::ptr::from_mut(info) as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// Heads of the structures that `BPF_OBJ_GET_INFO_BY_FD` fills, in their layout: integers only.
pub(crate) trait Info {}

#[repr(C)]
#[derive(Default)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct NextIdAttr {
    start: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    info_len: u32,
    info: u64,
}
