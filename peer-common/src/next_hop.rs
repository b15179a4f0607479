//! Next hops: where packets of flows go once they have left the mesh.
//!
//! A program that resolves a way for the first time makes its entry, and flows keep the entry's number. What changes on the
//! node afterwards (a neighbour's link address, a route, an uplink) is written into the one entry that it concerns.

use crate::Addr;

/// Next hops at most, the first one being none.
pub const MAX_NEXT_HOPS: u32 = 4096;

/// Number of a next hop that has no entry, because all are taken: it is resolved anew for each packet.
pub const UNLISTED: u32 = u32::MAX;

/// What makes a next hop: two flows that share all of it share the entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHopKey {
    /// Address of the neighbour; [`Addr::NONE`]: the kernel finds it for each packet.
    pub addr: Addr,
    /// Source address after NAT; [`Addr::NONE`]: the uplink has no address of this family.
    pub source: Addr,
    /// Interface index of the uplink.
    pub uplink: u32,
    /// MTU on this way, bytes of layer 3.
    pub mtu: u32,
    /// [`NextHop::GATEWAY`] and [`NextHop::V4`].
    pub flags: u32,
}

const _: () = assert!(size_of::<NextHopKey>() == 44);

/// Bytes of a link header.
pub const LINK_HEADER: usize = 14;
/// Where destination, source and type stand in a link header.
pub const LINK_PARTS: [core::ops::Range<usize>; 3] = [0..6, 6..12, 12..14];

/// An entry of the array of next hops: a line of cache.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// As [`NextHopKey::addr`].
    pub addr: Addr,
    /// As [`NextHopKey::source`].
    pub source: Addr,
    /// The Ethernet header of packets to it, if [`NextHop::HEADER`] is set: destination, source, type.
    pub header: [u8; LINK_HEADER],
    /// [`NextHop::HEADER`] and the others. Right behind the header: they are read together.
    pub flags: u16,
    /// Bumped by the daemon when a flow must resolve its way anew.
    pub generation: u32,
    /// As [`NextHopKey::uplink`].
    pub uplink: u32,
    /// As [`NextHopKey::mtu`].
    pub mtu: u32,
    /// [`tick`] in which a packet last went by the kernel's own neighbour table.
    pub asked: u32,
}

const _: () = assert!(size_of::<NextHop>() == 64);
// Programs copy the header by words, out of a map whose values are aligned to eight bytes.
const _: () = assert!(core::mem::offset_of!(NextHop, header).is_multiple_of(8) && LINK_HEADER == 14);

impl NextHop {
    /// The link header is known.
    pub const HEADER: u16 = 1;
    /// It is a gateway: destinations lie behind it. Without, it is the destination itself.
    pub const GATEWAY: u16 = 2;
    /// The neighbour was not known when the way was resolved, so the kernel has not told the MTU of the route.
    pub const MTU_GUESSED: u16 = 4;
    /// Its packets are IPv4, whatever the family of the neighbour's own address (RFC 8950).
    pub const V4: u16 = 8;
    /// The kernel has asked for its link address in vain, and asks again once in a while.
    pub const FAILED: u16 = 16;

    /// Its key.
    #[must_use]
    pub const fn key(&self) -> NextHopKey {
        NextHopKey {
            addr: self.addr,
            source: self.source,
            uplink: self.uplink,
            mtu: self.mtu,
            flags: (self.flags & (Self::GATEWAY | Self::V4)) as u32,
        }
    }
}

/// The tick of a time in nanoseconds, a little more than a second long. Once in each, a packet goes by the kernel's neighbour table
/// although its link header is known: so the kernel goes on asking whether the neighbour is still there, and where.
#[inline(always)]
#[must_use]
pub const fn tick(now: u64) -> u32 {
    (now >> 30) as u32
}
