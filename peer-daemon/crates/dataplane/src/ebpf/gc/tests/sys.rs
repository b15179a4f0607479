//! Hash maps of a test's own.
#![allow(unsafe_code, reason = "raw bpf(2)")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

const BPF_MAP_CREATE: i64 = 0;
const BPF_MAP_UPDATE_ELEM: i64 = 2;
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_EXIST: u64 = 2;

/// A hash map of the kernel's that ends with the value.
pub(super) struct Table(OwnedFd);

impl Table {
    pub(super) fn new<K: aya::Pod, V: aya::Pod>(entries: u32) -> io::Result<Self> {
        let mut attr = [0_u32; 18];
        attr[..4].copy_from_slice(&[BPF_MAP_TYPE_HASH, size_of::<K>() as u32, size_of::<V>() as u32, entries]);
        let fd = bpf(BPF_MAP_CREATE, &mut attr)?;
        // SAFETY: a descriptor that the kernel has just made.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(super) fn put<K: aya::Pod, V: aya::Pod>(&self, key: &K, value: &V) -> io::Result<()> {
        self.update(key, value, 0)
    }

    /// `false`: it is not there.
    pub(super) fn change<K: aya::Pod, V: aya::Pod>(&self, key: &K, value: &V) -> io::Result<bool> {
        match self.update(key, value, BPF_EXIST) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn update<K: aya::Pod, V: aya::Pod>(&self, key: &K, value: &V, flags: u64) -> io::Result<()> {
        let (key, value) = (std::ptr::from_ref(key) as u64, std::ptr::from_ref(value) as u64);
        let mut attr = [u64::from(self.0.as_raw_fd().unsigned_abs()), key, value, flags];
        bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(|_| ())
    }
}

impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn bpf<A>(command: i64, attr: &mut A) -> io::Result<i32> {
    // SAFETY: `attr` is the command's own part of `union bpf_attr`, and every pointer in it lives through the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}
