//! Policy as the kernel looks it up: identities, classes and cells.
//!
//! A source address has an identity and a destination address a class, each found by longest prefix; a cell says what
//! becomes of traffic between the two. All three tables exist twice: traffic reads the half `policy_generation & 1` while
//! the daemon writes the other one. Drop beats accept was settled when the cells were made; what has no cell is dropped.

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
