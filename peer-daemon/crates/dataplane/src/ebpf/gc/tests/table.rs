//! Hash maps of a test's own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::Pod;
use peer_bpf_sys::map::{self, Kind};

/// A hash map of the kernel's that ends with the value.
pub(super) struct Table(OwnedFd);

impl Table {
    pub(super) fn new<K: Pod, V: Pod>(entries: u32) -> io::Result<Self> {
        map::create::<K, V>(Kind::Hash, entries).map(Self)
    }

    pub(super) fn put<K: Pod, V: Pod>(&self, key: &K, value: &V) -> io::Result<()> {
        map::update(self.as_fd(), key, value)
    }

    /// `false`: it is not there.
    pub(super) fn change<K: Pod, V: Pod>(&self, key: &K, value: &V) -> io::Result<bool> {
        map::change(self.as_fd(), key, value)
    }
}

impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
