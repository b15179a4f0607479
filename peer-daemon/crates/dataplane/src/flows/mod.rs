//! The flows that a dataplane holds: what they are, which of them are wanted, and the most recent of those.
//!
//! [`FlowReader`] reads the tables; [`Filter`] and the choice of the most recent are pure.

mod filter;
mod owners;
mod reader;
mod recent;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use peer_common::{Addr, FlowKind, PacketCount};

pub use self::filter::{Filter, PeerFilter, Protocol};
pub(crate) use self::owners::Owners;
pub use self::reader::{FlowReader, Listing};
pub(crate) use self::reader::{Names, Tables};

/// All kinds of flows, with the names by which people know them.
pub const KINDS: [(&str, FlowKind); 5] = [
    ("masqueraded", FlowKind::Masqueraded),
    ("routed", FlowKind::Routed),
    ("to_node", FlowKind::ToNode),
    ("from_node", FlowKind::FromNode),
    ("from_lan", FlowKind::FromLan),
];

/// A flow, as the tables show it at one moment. Times of use are exact to a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// IP protocol number.
    pub protocol: u8,
    /// What becomes of its packets.
    pub kind: FlowKind,
    /// The end in the mesh.
    pub peer: End,
    /// The other end: in the LAN, or the node itself.
    pub destination: End,
    /// What stands for the peer's end in the LAN; `None`: the peer's own address.
    pub nat: Option<End>,
    /// Device by which it leaves; `None`: it ends in the node, or the kernel forwards it.
    pub uplink: Option<String>,
    /// Destination of the route that carries it.
    pub route: Option<IpNet>,
    /// Rule that accepted it; `None`: none was asked, because the node or the LAN has opened it.
    pub rule: Option<u32>,
    /// Whose address the peer's end is, by [`crate::PeerPrefixes::id`].
    pub peer_id: Option<u32>,
    /// From the peer.
    pub from_peer: PacketCount,
    /// To the peer; `None`: not counted, because the node's own stack sends it.
    pub to_peer: Option<PacketCount>,
    /// `CLOCK_MONOTONIC` of the first packet, nanoseconds. With the ends and the protocol it names the flow.
    pub created_ns: u64,
    /// `CLOCK_MONOTONIC` of the last packet of either direction, nanoseconds.
    pub active_ns: u64,
    /// Since the first packet.
    pub age: Duration,
    /// Since the last packet.
    pub idle: Duration,
    /// Until it is removed, unless a packet comes.
    pub expires_in: Duration,
    /// `None`: not TCP.
    pub tcp: Option<TcpState>,
}

/// An end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// Address.
    pub addr: IpAddr,
    /// Port, host byte order. Of ICMP echo the identifier, and 0 at the destination.
    pub port: u16,
}

/// State of a TCP connection, as far as its timers depend on it (RFC 5382 REQ-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// The handshake is not through.
    HalfOpen,
    /// It is, and at most one side has said that it ends.
    Established,
    /// Both sides have said that they end.
    Closing,
    /// One side has broken it off.
    Reset,
}

impl TcpState {
    /// Name for people and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half_open",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Reset => "reset",
        }
    }
}

/// Name of a kind.
#[must_use]
pub fn kind_name(kind: FlowKind) -> &'static str {
    KINDS.iter().find(|(_, known)| *known == kind).map_or("unknown", |(name, _)| name)
}

/// The kind that a table holds as a number.
pub(crate) fn kind_of(value: u8) -> Option<FlowKind> {
    KINDS.iter().map(|(_, kind)| *kind).find(|kind| *kind as u8 == value)
}

pub(crate) fn end(addr: Addr, port: u16) -> End {
    End { addr: IpAddr::from(addr), port: u16::from_be(port) }
}
