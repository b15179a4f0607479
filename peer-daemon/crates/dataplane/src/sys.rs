//! System calls that aya does not offer; those of bpf(2) are in [`peer_bpf_sys`].
#![allow(unsafe_code, reason = "statfs(2), ioctl(2), clock_gettime(2), and a descriptor lent to the reactor")]

mod device;
#[cfg(test)]
pub(crate) mod lab;
mod probe;

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(crate) use peer_bpf_sys::link::{Chain, End, Link, TcxHook, at as link_at, chain};
pub(crate) use peer_bpf_sys::map::{
    Batches, LpmKey, delete, delete_all, entries, lookup, map_memory, pinned_head as pinned_map_head, update_all,
};
pub(crate) use peer_bpf_sys::object::pin;
pub(crate) use peer_bpf_sys::program::{id as program_id, name as program_name};

pub(crate) use self::device::{Features, features, ifindex, ifindexes, tun_features};
pub(crate) use self::probe::{batch_operations, fib_flags, helper, may_write};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Whether `path` lies on a bpffs. What is not there, as in a container without the mount, does not.
pub(crate) fn is_bpffs(path: &Path) -> io::Result<bool> {
    let path = c_path(path)?;
    // SAFETY: a plain structure of integers.
    let mut stat: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: a C string and a structure that the kernel fills.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut stat) } != 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) };
    }
    Ok(stat.f_type as i64 == BPF_FS_MAGIC)
}

/// Waits for records of the programs' log. Must be called inside a tokio runtime.
pub(crate) fn watch_log<T>(log: EbpfLogger<T>) -> io::Result<AsyncFd<EbpfLogger<T>>> {
    // SAFETY: a logger owns one ring buffer, whose descriptor it keeps open and never replaces; it is only dropped or
    // taken out together with the registration.
    unsafe { AsyncFd::register_with_interest(log, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}

/// Waits for records of a ring buffer. Must be called inside a tokio runtime.
pub(crate) fn watch(buffer: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: a ring buffer keeps its descriptor open and never replaces it; it is only dropped or taken out together with
    // the registration.
    unsafe { AsyncFd::register_with_interest(buffer, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}

/// `CLOCK_MONOTONIC_COARSE` in nanoseconds: the clock of `bpf_ktime_get_coarse_ns`.
pub(crate) fn monotonic_coarse() -> u64 {
    nanoseconds(libc::CLOCK_MONOTONIC_COARSE)
}

/// `CLOCK_BOOTTIME` in nanoseconds: it counts while the machine sleeps.
pub(crate) fn since_boot() -> u64 {
    nanoseconds(libc::CLOCK_BOOTTIME)
}

fn nanoseconds(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the structure; both clocks always exist.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}
