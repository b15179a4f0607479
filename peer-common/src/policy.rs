//! Policy as the kernel evaluates it.
//!
//! Every entry has one source prefix, one destination prefix and one port range; the daemon expands rules into them.
//! Drop beats accept whatever the order; what no entry accepts is dropped.

use crate::Addr;

/// Entries per half. The map has two halves: traffic reads the half `policy_generation & 1` while the daemon
/// writes the other one.
pub const MAX_POLICY_RULES: u32 = 1024;

/// What a matching entry asks for.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleAction {
    /// Permits, unless another entry drops.
    Accept = 1,
    /// Forbids.
    Drop = 2,
}

/// Which traffic an entry speaks of, as bits.
pub struct RuleScope;

impl RuleScope {
    /// Traffic to the node itself.
    pub const NODE: u8 = 1;
    /// Traffic through the node.
    pub const ROUTE: u8 = 2;
}

/// One entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyRule {
    /// Source prefix, host bits zero.
    pub src: Addr,
    /// Destination prefix, host bits zero.
    pub dst: Addr,
    /// Source prefix length over 128 bits (IPv4: 96 + its own).
    pub src_len: u8,
    /// Destination prefix length over 128 bits.
    pub dst_len: u8,
    /// IP protocol number; 0 is any. `1` (ICMP) also stands for ICMPv6.
    pub protocol: u8,
    /// A [`RuleAction`].
    pub action: u8,
    /// First destination port, host byte order.
    pub port_min: u16,
    /// Last destination port, host byte order. 0–65535 is any, and the only range that a protocol without ports or a
    /// fragment without them can match.
    pub port_max: u16,
    /// [`RuleScope`] bits.
    pub scope: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// The rule's id in the control plane.
    pub id: u32,
}

const _: () = assert!(size_of::<PolicyRule>() == 48);
