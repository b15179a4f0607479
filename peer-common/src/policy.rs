//! Policy as the kernel looks it up: identities, classes and cells.
//!
//! A source address has an identity and a destination address a class, each found by longest prefix; a cell says what
//! becomes of traffic between the two. All three tables exist twice: traffic reads the half `policy_generation & 1` while
//! the daemon writes the other one. Drop beats accept was settled when the cells were made; what has no cell is dropped.
//!
//! Destinations that rules name one by one have an answer besides, in a table without search: what the tries would say of the
//! traffic that its rules speak of most. With thousands of such rules a walk through tries is a miss of the cache per step.

use crate::Addr;

/// Source prefixes at most, each half.
pub const MAX_SOURCES: u32 = 65_536;
/// Destination prefixes at most, each half.
pub const MAX_DESTINATIONS: u32 = 65_536;
/// Cells at most, each half.
pub const MAX_CELLS: u32 = 262_144;

/// The identity, or class, of addresses that no rule speaks of.
pub const NOBODY: u32 = 0;

/// What a cell asks for.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleAction {
    /// Permits.
    Accept = 1,
    /// Forbids.
    Drop = 2,
}

/// Which traffic a question is about, as bits; a cell has exactly one of them.
pub struct RuleScope;

impl RuleScope {
    /// Traffic to the node itself.
    pub const NODE: u8 = 1;
    /// Traffic through the node.
    pub const ROUTE: u8 = 2;
    /// In a question about both: what a rule of [`Self::ROUTE`] accepts counts for nothing, what it drops does. No cell has
    /// it.
    pub const GUARDED: u8 = 4;
}

/// Kinds of traffic that cells tell apart.
pub struct CellKind;

impl CellKind {
    /// ICMP and ICMPv6.
    pub const ICMP: u8 = 1;
    /// TCP with its ports.
    pub const TCP: u8 = 2;
    /// UDP with its ports.
    pub const UDP: u8 = 3;
    /// TCP whose ports cannot be seen.
    pub const TCP_BLIND: u8 = 4;
    /// UDP whose ports cannot be seen.
    pub const UDP_BLIND: u8 = 5;
    /// Every other protocol.
    pub const OTHER: u8 = 6;
}

/// Key of a cell: an LPM key, of which only the port may be matched in part.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellKey {
    /// Of the source.
    pub identity: u32,
    /// Of the destination.
    pub class: u32,
    /// One of [`RuleScope`].
    pub scope: u8,
    /// One of [`CellKind`].
    pub kind: u8,
    /// Destination port, network byte order; 0 where there is none.
    pub port: u16,
}

const _: () = assert!(size_of::<CellKey>() == 12);

impl CellKey {
    /// Bits of everything before the port.
    pub const BITS: u32 = 80;
    /// All bits.
    pub const ALL_BITS: u32 = 96;
}

/// Value of a cell.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CellValue {
    /// A [`RuleAction`], widened.
    pub action: u32,
    /// Id of the rule that says so.
    pub rule: u32,
}

const _: () = assert!(size_of::<CellValue>() == 8);

/// Answers, each half; a power of two.
pub const ANSWERS: u32 = 32_768;

/// What the tries say of some traffic to one address, in the place that the address names.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The destination; [`Addr::NONE`]: there is no answer here.
    pub destination: Addr,
    /// Id of the rule that says so.
    pub rule: u32,
    /// Of the source.
    pub identity: u16,
    /// Of the destination.
    pub class: u16,
    /// Lowest port, host byte order; kinds without ports have port 0.
    pub port_min: u16,
    /// Highest port, host byte order.
    pub port_max: u16,
    /// One of [`RuleScope`].
    pub scope: u8,
    /// Bit `1 << kind` of each [`CellKind`].
    pub kinds: u8,
    /// A [`RuleAction`].
    pub action: u8,
    /// Zero.
    pub pad: u8,
}

const _: () = assert!(size_of::<Answer>() == 32);

impl Answer {
    /// Where the answer for a destination is: neighbours in the network are neighbours in the table.
    #[inline(always)]
    #[must_use]
    pub const fn place(destination: &Addr) -> u32 {
        u32::from_be(destination.words[3]) & (ANSWERS - 1)
    }
}
