//! Elements and batches of maps. The types of key and value are the caller's to know: they must be as large as the map's.

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::Pod;

use super::object::{self, Info};
use super::{address, bpf, bpf_fd, fd};

const BPF_MAP_CREATE: i64 = 0;
const BPF_MAP_LOOKUP_ELEM: i64 = 1;
const BPF_MAP_UPDATE_ELEM: i64 = 2;
const BPF_MAP_DELETE_ELEM: i64 = 3;
const BPF_MAP_GET_NEXT_KEY: i64 = 4;
const BPF_MAP_LOOKUP_BATCH: i64 = 24;
const BPF_MAP_UPDATE_BATCH: i64 = 26;
const BPF_MAP_DELETE_BATCH: i64 = 27;
const BPF_EXIST: u64 = 2;

/// Kinds of maps that [`create`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `BPF_MAP_TYPE_HASH`.
    Hash = 1,
    /// `BPF_MAP_TYPE_ARRAY`.
    Array = 2,
}

/// Makes a map, with memory for all entries.
///
/// # Errors
/// `EPERM`, `ENOMEM`.
pub fn create<K: Pod, V: Pod>(kind: Kind, max_entries: u32) -> io::Result<OwnedFd> {
    let (key_size, value_size) = (size_of::<K>() as u32, size_of::<V>() as u32);
    bpf_fd(BPF_MAP_CREATE, &mut CreateAttr { kind: kind as u32, key_size, value_size, max_entries })
}

/// Looks one entry up.
///
/// # Errors
/// Those of the kernel.
pub fn lookup<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
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
pub struct LpmKey<K> {
    /// Its length in bits.
    pub prefix_len: u32,
    /// The data that it is a prefix of.
    pub data: K,
}

// SAFETY: `repr(C)`; the data of all our tries is made of 4-byte words at most, so that there is no padding.
unsafe impl<K: Pod> Pod for LpmKey<K> {}

/// Writes one entry.
///
/// # Errors
/// `E2BIG` when the map is full.
pub fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    update_with(map, key, value, 0)
}

/// Writes one entry that is there; `false`: there is none.
///
/// # Errors
/// Those of the kernel.
pub fn change<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<bool> {
    match update_with(map, key, value, BPF_EXIST) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// All entries of a map that nobody else writes.
///
/// # Errors
/// Those of the kernel.
pub fn entries<K: Pod, V: Pod>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
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
///
/// # Errors
/// Those of the kernel.
pub fn update_all<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    let done = batch(BPF_MAP_UPDATE_BATCH, map, keys, values.as_ptr() as u64)?;
    for (key, value) in keys.iter().zip(values).skip(done) {
        update(map, key, value)?;
    }
    Ok(())
}

/// Deletes all entries, by few system calls where the kernel can.
///
/// # Errors
/// Those of the kernel.
pub fn delete_all<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<()> {
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
///
/// # Errors
/// Those of the kernel.
pub fn delete<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let mut attr = ElementAttr { map_fd: fd(map), key: address(key), ..Default::default() };
    match bpf(BPF_MAP_DELETE_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Memory of a map as the kernel accounts it, bytes.
///
/// # Errors
/// Those of the kernel.
pub fn map_memory(map: BorrowedFd<'_>) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    let bytes = line.and_then(|text| text.trim().parse().ok());
    bytes.ok_or_else(|| io::Error::other("the kernel does not tell a map's memory"))
}

/// The first bytes of entry 0 of a pinned array, whatever the size of its values; `None`: nothing is pinned there.
///
/// # Errors
/// Those of the kernel.
pub fn pinned_head<const N: usize>(path: &Path) -> io::Result<Option<[u8; N]>> {
    let Some(map) = object::open(path)? else { return Ok(None) };
    let mut info = MapInfo::default();
    object::info(map.as_fd(), &mut info)?;
    let key = 0_u32;
    let mut value = vec![0_u8; (info.value_size as usize).max(N)];
    let mut attr = ElementAttr {
        map_fd: fd(map.as_fd()),
        key: address(&key),
        value: value.as_mut_ptr() as u64,
        ..Default::default()
    };
    bpf(BPF_MAP_LOOKUP_ELEM, &mut attr)?;
    let mut head = [0; N];
    head.copy_from_slice(&value[..N]);
    Ok(Some(head))
}

/// A scan of a hash map in batches. Entries that come and go meanwhile may be missed or seen; none that stays is missed.
pub struct Batches<K, V> {
    cursor: u64,
    started: bool,
    ended: bool,
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K: Pod, V: Pod> Batches<K, V> {
    /// `size` entries at a time, more where a bucket has more.
    #[must_use]
    pub fn new(size: usize) -> Self {
        // SAFETY: `Pod` values may have any bytes.
        let (key, value) = unsafe { (mem::zeroed(), mem::zeroed()) };
        Self { cursor: 0, started: false, ended: false, keys: vec![key; size], values: vec![value; size] }
    }

    /// The next entries; none: the scan has ended.
    ///
    /// # Errors
    /// `EINVAL` where the kernel has no batches.
    pub fn next(&mut self, map: BorrowedFd<'_>) -> io::Result<impl Iterator<Item = (&K, &V)>> {
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

fn update_with<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V, flags: u64) -> io::Result<()> {
    let mut attr = ElementAttr { map_fd: fd(map), pad: 0, key: address(key), value: address(value), flags };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

impl Info for MapInfo {}

#[repr(C)]
struct CreateAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// `struct bpf_map_info` up to the size of values.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
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
