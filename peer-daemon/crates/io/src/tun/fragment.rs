//! One IPv4 packet into fragments (RFC 791 §2.3 and §3.2), for the device whose MTU is smaller than the way it came by.
//!
//! The eBPF program redirects an answer that may be fragmented into the mesh device as it is: only here is room to cut
//! it. What may not be fragmented it has already answered with "too big"; this is the last line.

use peer_core::batch::PacketBatch;

use super::MAX_PACKET;
use super::packet;

const HEADER: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
/// Offsets are in units of 8 bytes.
const OFFSET: u16 = 0x1fff;
const UNIT: usize = 8;

/// A packet that may not, or cannot, be fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooBig;

/// Holds the packet that is being cut; remembers where it stopped when the batch was full.
#[derive(Debug)]
pub(crate) struct Fragmenter {
    packet: Box<[u8]>,
    /// Bytes of the packet; 0: there is none.
    len: usize,
    /// Bytes of a fragment's payload, a multiple of 8.
    size: usize,
    /// Bytes of the payload that are in fragments.
    done: usize,
}

impl Fragmenter {
    pub(crate) fn new() -> Self {
        // Zeroed pages cost no memory until they are touched.
        Self { packet: vec![0; MAX_PACKET].into_boxed_slice(), len: 0, size: 0, done: 0 }
    }

    /// Where the caller writes the packet of `len` bytes (at most [`MAX_PACKET`]) that [`Self::start`] is about.
    pub(crate) fn room(&mut self, len: usize) -> &mut [u8] {
        &mut self.packet[..len]
    }

    /// Starts on the packet of `len` bytes that was written. It may be a fragment already.
    pub(crate) fn start(&mut self, len: usize, mtu: usize) -> Result<(), TooBig> {
        self.len = 0;
        let packet = &self.packet[..len];
        let size = mtu.saturating_sub(HEADER) / UNIT * UNIT;
        // Options would have to be copied or not, each by its kind: such packets do not get here.
        let plain = len > HEADER && packet[0] == 0x45 && usize::from(packet::read_u16(packet, 2)) == len;
        if !plain || size == 0 {
            return Err(TooBig);
        }
        let field = packet::read_u16(packet, 6);
        let end = usize::from(field & OFFSET) * UNIT + len - HEADER;
        if field & DONT_FRAGMENT != 0 || end > MAX_PACKET {
            return Err(TooBig);
        }
        (self.len, self.size, self.done) = (len, size, 0);
        Ok(())
    }

    /// Whether fragments are left.
    pub(crate) fn has_more(&self) -> bool {
        self.len != 0
    }

    /// Puts fragments into `batch`; says whether all are in it.
    pub(crate) fn resume(&mut self, batch: &mut PacketBatch) -> bool {
        while self.len != 0 {
            let left = self.len - HEADER - self.done;
            let len = self.size.min(left);
            if !batch.push_with(HEADER + len, |room| {
                self.write(room, len == left);
                Some((room.len(), ()))
            }) {
                return false;
            }
            self.done += len;
            if len == left {
                self.len = 0;
            }
        }
        true
    }

    fn write(&self, room: &mut [u8], last: bool) {
        let (header, payload) = room.split_at_mut(HEADER);
        header.copy_from_slice(&self.packet[..HEADER]);
        let from = HEADER + self.done;
        payload.copy_from_slice(&self.packet[from..from + payload.len()]);
        let mut field = packet::read_u16(header, 6) + (self.done / UNIT) as u16;
        if !last {
            field |= MORE_FRAGMENTS;
        }
        header[6..8].copy_from_slice(&field.to_be_bytes());
        let (len, id) = ((HEADER + payload.len()) as u16, packet::read_u16(header, 4));
        packet::set_length(header, false, HEADER, len, id);
    }
}
