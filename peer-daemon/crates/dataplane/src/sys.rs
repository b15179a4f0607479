//! System calls that aya does not offer.
#![allow(
    unsafe_code,
    reason = "raw bpf(2), statfs(2), ioctl(2), clock_gettime(2), and a descriptor lent to the reactor"
)]

mod device;
#[cfg(test)]
pub(crate) mod lab;
mod link;
mod probe;

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::Pod;
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(crate) use self::device::{Features, features, ifindex, tun_features};
pub(crate) use self::link::{Chain, Link, TcxHook, chain, link_at, pin, pinned_map_head, program_id, program_name};
pub(crate) use self::probe::{batch_operations, fib_flags, helper, may_write};

const BPF_MAP_LOOKUP_ELEM: i64 = 1;
const BPF_MAP_UPDATE_ELEM: i64 = 2;
const BPF_MAP_DELETE_ELEM: i64 = 3;
const BPF_MAP_GET_NEXT_KEY: i64 = 4;
const BPF_MAP_LOOKUP_BATCH: i64 = 24;
const BPF_MAP_UPDATE_BATCH: i64 = 26;
const BPF_MAP_DELETE_BATCH: i64 = 27;
/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Whether `path` lies on a bpffs.
pub(crate) fn is_bpffs(path: &Path) -> io::Result<bool> {
    let path = c_path(path)?;
    // SAFETY: a plain structure of integers.
    let mut stat: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: a C string and a structure that the kernel fills.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
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
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the structure; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Looks one entry up.
pub(crate) fn lookup<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    // SAFETY: `Pod` values may have any bytes.
    let mut value: V = unsafe { mem::zeroed() };
    let mut attr =
        ElementAttr { map_fd: fd(map), key: address(key), value: (&raw mut value) as u64, ..Default::default() };
    match bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Key of an LPM trie: length of the prefix in bits, then the data.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LpmKey<K> {
    pub(crate) prefix_len: u32,
    pub(crate) data: K,
}

// SAFETY: `repr(C)`; the data of all our tries is made of 4-byte words at most, so that there is no padding.
unsafe impl<K: Pod> Pod for LpmKey<K> {}

/// All entries of a map that nobody else writes.
pub(crate) fn entries<K: Pod, V: Pod>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    let mut entries = Vec::new();
    let mut last: Option<K> = None;
    loop {
        // SAFETY: `Pod` values may have any bytes.
        let mut next: K = unsafe { mem::zeroed() };
        let key = last.as_ref().map_or(0, address);
        let mut attr = ElementAttr { map_fd: fd(map), key, value: (&raw mut next) as u64, ..Default::default() };
        match bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(entries),
            Err(error) => return Err(error),
        }
        if let Some(value) = lookup(map, &next)? {
            entries.push((next, value));
        }
        last = Some(next);
    }
}

/// Writes all entries, by few system calls where the kernel can.
pub(crate) fn update_all<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    let done = batch(BPF_MAP_UPDATE_BATCH, map, keys, values.as_ptr() as u64)?;
    for (key, value) in keys.iter().zip(values).skip(done) {
        let mut attr = ElementAttr { map_fd: fd(map), key: address(key), value: address(value), ..Default::default() };
        bpf(BPF_MAP_UPDATE_ELEM, &mut attr)?;
    }
    Ok(())
}

/// Deletes all entries, by few system calls where the kernel can.
pub(crate) fn delete_all<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<()> {
    let done = batch(BPF_MAP_DELETE_BATCH, map, keys, 0)?;
    for key in &keys[done..] {
        delete(map, key)?;
    }
    Ok(())
}

/// Returns how many keys were taken: none where the kernel knows no batches of this map.
fn batch<K: Pod>(command: i64, map: BorrowedFd<'_>, keys: &[K], values: u64) -> io::Result<usize> {
    /// `ENOTSUPP`, which only the kernel knows.
    const NOT_SUPPORTED: i32 = 524;
    if keys.is_empty() {
        return Ok(0);
    }
    let count = u32::try_from(keys.len()).map_err(io::Error::other)?;
    let mut attr = BatchAttr { keys: keys.as_ptr() as u64, values, count, map_fd: fd(map), ..Default::default() };
    match bpf(command, &mut attr) {
        Ok(_) => Ok(keys.len()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | NOT_SUPPORTED)) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Deletes one entry; `false`: there was none.
pub(crate) fn delete<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let mut attr = ElementAttr { map_fd: fd(map), key: address(key), ..Default::default() };
    match bpf(BPF_MAP_DELETE_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Memory of a map as the kernel accounts it, bytes.
pub(crate) fn map_memory(map: BorrowedFd<'_>) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    let bytes = line.and_then(|text| text.trim().parse().ok());
    bytes.ok_or_else(|| io::Error::other("the kernel does not tell a map's memory"))
}

/// A scan of a hash map in batches. Entries that come and go meanwhile may be missed or seen; none that stays is missed.
pub(crate) struct Batches<K, V> {
    cursor: u64,
    started: bool,
    ended: bool,
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: Pod, V: Pod> Batches<K, V> {
    pub(crate) fn new(size: usize) -> Self {
        // SAFETY: `Pod` values may have any bytes.
        let (key, value) = unsafe { (mem::zeroed(), mem::zeroed()) };
        Self { cursor: 0, started: false, ended: false, keys: vec![key; size], values: vec![value; size] }
    }

    /// The next entries; none: the scan has ended.
    pub(crate) fn next(&mut self, map: BorrowedFd<'_>) -> io::Result<impl Iterator<Item = (&K, &V)>> {
        let mut count = 0;
        while !self.ended && count == 0 {
            count = self.read(map)?;
        }
        Ok(self.keys[..count].iter().zip(&self.values[..count]))
    }

    fn read(&mut self, map: BorrowedFd<'_>) -> io::Result<usize> {
        let before = self.cursor;
        let mut attr = BatchAttr {
            in_batch: if self.started { address(&before) } else { 0 },
            out_batch: (&raw mut self.cursor) as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: self.keys.len() as u32,
            map_fd: fd(map),
            ..Default::default()
        };
        self.started = true;
        match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.ended = true,
            // A bucket holds more than fits: double the room and read it again.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                self.cursor = before;
                let (key, value) = (self.keys[0], self.values[0]);
                self.keys.resize(self.keys.len() * 2, key);
                self.values.resize(self.values.len() * 2, value);
                return Ok(0);
            }
            Err(error) => return Err(error),
        }
        Ok((attr.count as usize).min(self.keys.len()))
    }
}

#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

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
