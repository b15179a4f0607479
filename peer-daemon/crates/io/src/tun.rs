//! A queue of the mesh device: batches in and out, one super-packet per system call.
//!
//! A TUN moves one socket buffer per read or write. With a vnet header that buffer is a super-packet of up to 64 KiB, and
//! the kernel's whole path is paid once for some 46 packets. Reading cuts them; writing joins what belongs together.

mod coalesce;
mod fragment;
mod packet;
mod split;
#[cfg(test)]
mod tests;
mod vnet;
mod write;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use peer_core::batch::PacketBatch;

use self::split::{Malformed, Splitter};
use self::write::Writer;
use crate::stats::{IoDrop, ShardStats};

/// Bytes of the largest packet that a TUN hands over or takes.
pub const MAX_PACKET: usize = u16::MAX as usize;

/// What the kernel leaves to us, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// TCP super-packets and unfinished checksums.
    pub tcp: bool,
    /// UDP super-packets: Linux 6.2 or newer.
    pub udp: bool,
}

/// One queue of a TUN with vnet headers. Dropping it closes it.
#[derive(Debug)]
pub struct TunQueue {
    fd: OwnedFd,
    mtu: usize,
    frame: Box<[u8]>,
    frame_len: usize,
    splitter: Splitter,
    writer: Writer,
}

/// How reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// Nothing is left in the queue.
    Empty,
    /// Batch or budget is full; there may be more.
    Full,
}

impl TunQueue {
    /// Wraps a non-blocking descriptor that is attached to a TUN with a 10-byte vnet header, or a stand-in for one.
    /// `mtu` is the device's, in bytes; `items` is the size of the largest batch that will be written.
    #[must_use]
    pub fn new(fd: OwnedFd, offloads: Offloads, mtu: u16, items: usize) -> Self {
        let frame = vec![0; vnet::LEN + MAX_PACKET].into_boxed_slice();
        let (splitter, writer) = (Splitter::new(), Writer::new(offloads, items));
        Self { fd, mtu: mtu.into(), frame, frame_len: 0, splitter, writer }
    }

    /// Changes the size to which TCP super-packets are cut and above which packets are fragmented, bytes.
    pub fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu.into();
    }

    /// Appends packets to `batch` until the queue is empty, `reads` reads have been made, or `batch` has no room for
    /// another [`MAX_PACKET`]. What of a super-packet does not fit is kept for the next call: see [`TunQueue::has_pending`].
    ///
    /// # Errors
    /// When the device is gone (`EBADFD`).
    pub fn read(&mut self, batch: &mut PacketBatch, reads: usize, stats: &ShardStats) -> io::Result<ReadEnd> {
        let (packets, bytes) = (batch.len(), batch.bytes());
        let end = self.fill(batch, reads, stats);
        let oversize = self.splitter.take_oversize();
        stats.fragmented.add(oversize.fragmented);
        stats.dropped(IoDrop::TunTooBig, oversize.dropped);
        stats.tun_in.packets.add((batch.len() - packets) as u64);
        stats.tun_in.bytes.add((batch.bytes() - bytes) as u64);
        end
    }

    /// Whether a part of a super-packet waits here, of which poll(2) knows nothing.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.splitter.has_more()
    }

    /// Writes all packets, joined where possible, order kept within each flow. What the kernel does not take is dropped
    /// and counted.
    ///
    /// # Errors
    /// When the device is gone (`EBADFD`).
    pub fn write(&mut self, batch: &PacketBatch, stats: &ShardStats) -> io::Result<()> {
        let fd = self.fd.as_fd();
        self.writer.write(batch, stats, |parts| Ok(rustix::io::writev(fd, parts)?))
    }

    /// What is still used of the offloads: they end when the kernel refuses a super-packet.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        self.writer.offloads()
    }

    fn fill(&mut self, batch: &mut PacketBatch, reads: usize, stats: &ShardStats) -> io::Result<ReadEnd> {
        if self.splitter.has_more() {
            self.splitter.resume(&self.frame[..self.frame_len], batch);
        }
        for _ in 0..reads {
            if self.splitter.has_more() || !batch.has_room(MAX_PACKET) {
                return Ok(ReadEnd::Full);
            }
            stats.tun_in.calls.add(1);
            match rustix::io::read(&self.fd, &mut self.frame[..]) {
                Ok(len) => self.frame_len = len,
                Err(rustix::io::Errno::AGAIN) => return Ok(ReadEnd::Empty),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            match self.splitter.start(&self.frame[..self.frame_len], self.mtu, batch) {
                Ok(super_packet) => stats.tun_in.super_packets.add(super_packet.into()),
                Err(Malformed) => stats.dropped(IoDrop::TunMalformed, 1),
            }
        }
        Ok(ReadEnd::Full)
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
