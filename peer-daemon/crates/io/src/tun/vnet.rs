//! `struct virtio_net_hdr`, which stands before every packet of a TUN with IFF_VNET_HDR.
//!
//! Legacy layout and the machine's byte order: a TUN has them unless told otherwise (Documentation/networking/tuntap).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a [`VnetHeader`].
pub(crate) const LEN: usize = size_of::<VnetHeader>();

/// The checksum field holds the sum of the pseudo-header; the rest is to be added from `csum_start` on.
pub(crate) const NEEDS_CSUM: u8 = 1;

pub(crate) const GSO_NONE: u8 = 0;
pub(crate) const GSO_TCPV4: u8 = 1;
pub(crate) const GSO_TCPV6: u8 = 4;
pub(crate) const GSO_UDP_L4: u8 = 5;
/// With a TCP type: the first segment has CWR.
pub(crate) const GSO_ECN: u8 = 0x80;

/// The header; all zero says "one packet, nothing left to do".
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct VnetHeader {
    pub(crate) flags: u8,
    pub(crate) gso_type: u8,
    /// Bytes of all headers before the payload.
    pub(crate) hdr_len: u16,
    /// Payload bytes of each segment but the last.
    pub(crate) gso_size: u16,
    pub(crate) csum_start: u16,
    /// From `csum_start`.
    pub(crate) csum_offset: u16,
}

const _: () = assert!(LEN == 10);
