//! Fragments: only the first one carries ports, the others are found by what all of them share.

use crate::Addr;

/// First fragments remembered. The least recently used one gives way.
pub const MAX_FRAGMENTS: u32 = 8192;

/// How long a first fragment is remembered, nanoseconds: RFC 791 §3.2 lets a receiver wait as long for the others.
pub const FRAGMENT_LIFE: u64 = 15_000_000_000;

/// What all fragments of a packet share (RFC 791 §3.2, RFC 8200 §4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FragmentKey {
    /// Source address, as it arrived.
    pub src: Addr,
    /// Destination address, as it arrived.
    pub dst: Addr,
    /// Identification, network byte order.
    pub id: u32,
    /// IP protocol number, widened.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FragmentKey>() == 40);

/// What only the first fragment tells.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// As [`crate::Flow::last_seen`], of the first fragment.
    pub seen: u64,
    /// Source port (or echo identifier), network byte order.
    pub src_port: u16,
    /// Destination port (or echo identifier), network byte order.
    pub dst_port: u16,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<Fragment>() == 16);
