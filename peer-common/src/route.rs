//! Routes, uplinks, peers and own addresses.

use crate::Addr;

/// `route_id` of flows that no route carries.
pub const NO_ROUTE: u32 = u32::MAX;

/// Routes, and route counters, at most.
pub const MAX_ROUTES: u32 = 4096;
/// Uplinks at most.
pub const MAX_UPLINKS: u32 = 64;
/// Own addresses at most.
pub const MAX_LOCALS: u32 = 1024;
/// Peer prefixes at most.
pub const MAX_PEER_PREFIXES: u32 = 65_536;

/// Value of the route LPM trie (128-bit keys, IPv4 mapped).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Index into the route counters, below [`MAX_ROUTES`].
    pub id: u32,
    /// [`Route::MASQUERADE`].
    pub flags: u32,
    /// Interface index of the only uplink this route may use; 0: whichever the FIB names.
    pub uplink: u32,
    /// What to use where the kernel refuses FIB lookups (forwarding off on wt0): the interface index the daemon
    /// resolved for the destination; 0: none.
    pub fallback_uplink: u32,
    /// Prefix length over 128 bits: a host route may name destinations that are denied otherwise, and `::/0` must not
    /// carry IPv4, which lies in it as mapped addresses.
    pub prefix_len: u32,
}

const _: () = assert!(size_of::<Route>() == 20);

impl Route {
    /// Sources are replaced by the uplink's own address.
    pub const MASQUERADE: u32 = 1;
}

/// Value of the uplink map, by interface index.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uplink {
    /// Own IPv4 address: the source of our ICMP errors, and after NAT where nothing better is known; [`Addr::NONE`]: none.
    pub addr4: Addr,
    /// Own IPv6 address, global or unique local; [`Addr::NONE`]: none.
    pub addr6: Addr,
    /// MTU, bytes of layer 3.
    pub mtu: u32,
    /// Where this uplink's further sources begin in the map of them, and how many there are: IPv4, then IPv6. With any,
    /// one of them takes the place of `addr4` or `addr6` in NAT.
    pub sources: [u8; 4],
}

const _: () = assert!(size_of::<Uplink>() == 40);

/// Key of the map of sources that the kernel would choose, an LPM trie: all of the uplink counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChosenKey {
    /// Interface index of the uplink.
    pub uplink: u32,
    /// Destination before NAT.
    pub dst: Addr,
}

const _: () = assert!(size_of::<ChosenKey>() == 20);

impl ChosenKey {
    /// Bits before those of the destination.
    pub const UPLINK_BITS: u32 = 32;
}

/// Sources at most that the kernel would choose, by destination and uplink.
pub const MAX_CHOSEN: u32 = 8192;

/// Further source addresses at most, of all uplinks and both families.
pub const MAX_NAT_SOURCES: u32 = 64;

/// Counters of ports by remote, and by member and remote: places that a keyed hash names.
pub const PORT_COUNTS: u32 = 65_536;

/// Value of the peer LPM trie: whose overlay source a prefix is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Small number of the peer, stable while the daemon runs.
    pub id: u32,
    /// Prefix length over 128 bits: `::/0` must not own IPv4 sources, which lie in it as mapped addresses.
    pub prefix_len: u32,
}

const _: () = assert!(size_of::<Peer>() == 8);

/// Ports of the daemon's own listeners at most.
pub const MAX_LISTENERS: u32 = 64;

/// Peers at most that have a flow count of their own; the number of a peer is below it.
pub const MAX_PEERS: u32 = 65_536;

/// Key of the listener map: protocol and port, host byte order.
#[inline(always)]
#[must_use]
pub const fn listener_key(protocol: u32, port: u16) -> u32 {
    protocol << 16 | port as u32
}

/// Which kind of own address.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocalKind {
    /// An address of wt0.
    Overlay = 1,
    /// Any other address of the node.
    Node = 2,
    /// As [`Self::Node`], of a node that keeps members to peer rules: rules of a route may close it and never open it.
    Protected = 3,
    /// No address of the node itself, but the one that all hosts of a network of its listen to.
    Broadcast = 4,
}

/// Value of the own-address map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalAddr {
    /// A [`LocalKind`].
    pub kind: u32,
}
