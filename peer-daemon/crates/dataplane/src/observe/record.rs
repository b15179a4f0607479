//! One thing that happened, with names for numbers. Pure.

use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use peer_common::route::NO_ROUTE;
use peer_common::{DropReason, EventKind, Flow, FlowEvent, FlowKey, FlowKind, Mapping, PacketCount, Way};

use super::{View, drop_reason};
use crate::ebpf::is_mapped;
use crate::flows::{End, end, kind_of};

/// Something that happened to a flow, or to a packet that has none.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowRecord {
    /// When it was told.
    pub at: SystemTime,
    /// What.
    pub what: What,
    /// IP protocol number.
    pub protocol: u8,
    /// The end in the mesh.
    pub peer: End,
    /// The other end.
    pub destination: End,
    /// What becomes of the flow's packets; `None`: there is no flow.
    pub kind: Option<FlowKind>,
    /// What stands for the peer's end in the LAN; `None`: the peer's own address.
    pub nat: Option<End>,
    /// Device by which it leaves.
    pub uplink: Option<String>,
    /// Id of the route that carries it.
    pub route_id: Option<u32>,
    /// Destination of that route.
    pub route: Option<IpNet>,
    /// Rule that decided.
    pub rule: Option<u32>,
    /// Whose address the peer's end is, by [`crate::PeerPrefixes::id`].
    pub peer_id: Option<u32>,
    /// From the peer; of a dropped packet: it alone.
    pub from_peer: PacketCount,
    /// To the peer; `None`: not counted, because the node's own stack sends it.
    pub to_peer: Option<PacketCount>,
    /// From the first packet to the last one; of a flow that opens: 0.
    pub duration: Duration,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A flow was opened.
    Opened,
    /// A flow was removed.
    Closed(CloseReason),
    /// A packet was dropped.
    Denied(DropReason, Direction),
}

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the peer.
    FromPeer,
    /// To the peer.
    ToPeer,
}

/// Why a flow was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// It was idle for too long.
    Expired,
    /// Both sides of a TCP connection had said that they end.
    Closed,
    /// One side of a TCP connection had broken it off.
    Reset,
    /// The table is nearly full, or ports towards its destination are scarce, and it was idle.
    Evicted,
    /// It had ended, or was never answered, and another flow needed its port.
    Reused,
    /// The rules do not permit it any more.
    PolicyRevoked,
    /// No route covers its destination any more.
    RouteRemoved,
    /// Its peer is none any more.
    PeerRemoved,
    /// The node has lost the address that stood for the peer.
    AddressChanged,
    /// It would leave another way now, or its mapping belongs to another flow.
    Changed,
    /// The daemon has ended, and took the flows along.
    Stopped,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Expired,
        Self::Closed,
        Self::Reset,
        Self::Evicted,
        Self::Reused,
        Self::PolicyRevoked,
        Self::RouteRemoved,
        Self::PeerRemoved,
        Self::AddressChanged,
        Self::Changed,
        Self::Stopped,
    ];

    /// Name for people, JSON and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Evicted => "evicted",
            Self::Reused => "reused",
            Self::PolicyRevoked => "policy_revoked",
            Self::RouteRemoved => "route_removed",
            Self::PeerRemoved => "peer_removed",
            Self::AddressChanged => "address_changed",
            Self::Changed => "changed",
            Self::Stopped => "stopped",
        }
    }

    /// Of a flow whose packet would have been dropped, or was, for this reason.
    #[must_use]
    pub const fn of_drop(reason: DropReason) -> Self {
        match reason {
            DropReason::PortsExhausted => Self::Reused,
            DropReason::PolicyDefault | DropReason::PolicyRule | DropReason::DeniedDestination => Self::PolicyRevoked,
            DropReason::NoRoute => Self::RouteRemoved,
            DropReason::ForeignSource => Self::PeerRemoved,
            _ => Self::Changed,
        }
    }
}

/// Why a program has forgotten a flow: what a packet without a port would have been dropped for says that its port was taken.
fn closed(event: &FlowEvent) -> CloseReason {
    drop_reason(event.verdict).map_or(CloseReason::Changed, CloseReason::of_drop)
}

/// A flow as it was when it was removed.
pub(crate) struct Ended<'a> {
    pub(crate) key: &'a FlowKey,
    pub(crate) flow: &'a Flow,
    /// Interface index of its uplink, 0: none. Looked up only if somebody wants to know.
    pub(crate) uplink: &'a dyn Fn() -> u32,
    pub(crate) mapping: Option<&'a Mapping>,
    pub(crate) why: CloseReason,
}

impl FlowRecord {
    /// `None`: of a kind that this version does not know, or of no flow.
    pub(super) fn of_event(event: &FlowEvent, view: &View, at: SystemTime) -> Option<Self> {
        let direction = if event.way == Way::FromMesh as u8 { Direction::FromPeer } else { Direction::ToPeer };
        let what = match event.event {
            kind if kind == EventKind::Opened as u8 => What::Opened,
            kind if kind == EventKind::Closed as u8 => What::Closed(closed(event)),
            kind if kind == EventKind::Dropped as u8 => What::Denied(drop_reason(event.verdict)?, direction),
            _ => return None,
        };
        let flow = Flow {
            nat_addr: event.nat_addr,
            nat_port: event.nat_port,
            route_id: event.route_id,
            policy_id: event.policy_id,
            packets: event.packets,
            bytes: event.bytes,
            kind: event.kind,
            ..Flow::default()
        };
        let answers = Mapping { packets: event.reply_packets, bytes: event.reply_bytes, ..Mapping::default() };
        let mut record = Self::of(&event.key, &flow, event.uplink, Some(&answers), what, view, at)?;
        match what {
            What::Opened => record.to_peer = is_mapped(&flow).then(PacketCount::default),
            What::Closed(_) => record.duration = Duration::from_nanos(event.time.saturating_sub(event.created)),
            What::Denied(_, direction) => record.count_packet(direction, event.len),
        }
        Some(record)
    }

    /// `None`: of a kind that this version does not know.
    pub(super) fn of_ended(ended: &Ended<'_>, view: &View, at: SystemTime) -> Option<Self> {
        let Ended { key, flow, uplink, mapping, why } = ended;
        let last = mapping.map_or(0, |mapping| mapping.last_seen).max(flow.last_seen);
        let mut record = Self::of(key, flow, uplink(), *mapping, What::Closed(*why), view, at)?;
        record.duration = Duration::from_nanos(last.saturating_sub(flow.created));
        Some(record)
    }

    fn of(
        key: &FlowKey,
        flow: &Flow,
        uplink: u32,
        mapping: Option<&Mapping>,
        what: What,
        view: &View,
        at: SystemTime,
    ) -> Option<Self> {
        let kind = kind_of(flow.kind);
        if kind.is_none() && !matches!(what, What::Denied(..)) {
            return None;
        }
        let peer = end(key.src, key.src_port);
        let answers =
            mapping.map_or_else(PacketCount::default, |it| PacketCount { packets: it.packets, bytes: it.bytes });
        Some(Self {
            at,
            what,
            protocol: u8::try_from(key.protocol).ok()?,
            peer,
            destination: end(key.dst, key.dst_port),
            kind,
            nat: (kind == Some(FlowKind::Masqueraded)).then(|| end(flow.nat_addr, flow.nat_port)),
            uplink: view.uplink(uplink),
            route_id: (flow.route_id != NO_ROUTE).then_some(flow.route_id),
            route: view.route(flow.route_id),
            // No rule has the id 0.
            rule: (flow.policy_id != 0).then_some(flow.policy_id),
            peer_id: view.peer(peer.addr),
            from_peer: PacketCount { packets: flow.packets, bytes: flow.bytes },
            to_peer: is_mapped(flow).then_some(answers),
            duration: Duration::ZERO,
        })
    }

    fn count_packet(&mut self, direction: Direction, len: u32) {
        let (one, none) = (PacketCount { packets: 1, bytes: len.into() }, PacketCount::default());
        (self.from_peer, self.to_peer) = match direction {
            Direction::FromPeer => (one, Some(none)),
            Direction::ToPeer => (none, Some(one)),
        };
    }
}

#[cfg(test)]
mod tests;
