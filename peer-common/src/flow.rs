//! Flows: what was decided for a 5-tuple, and the mapping that undoes it for replies.

use crate::Addr;

/// A 5-tuple as it stands in a packet. Ports are in network byte order.
///
/// For ICMP and ICMPv6 echo both ports hold what identifies the query: `src_port` the identifier in the mesh → LAN
/// direction and `dst_port` zero; in the reply direction `dst_port` the identifier and `src_port` zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, network byte order.
    pub src_port: u16,
    /// Destination port, network byte order.
    pub dst_port: u16,
    /// IP protocol number, widened: map keys are compared byte by byte and must have no padding.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 40);

/// What becomes of the packets of a flow.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowKind {
    /// Mesh → uplink with source NAT.
    Masqueraded = 1,
    /// Mesh ↔ uplink with the source kept (`masquerade = false`).
    Routed = 2,
    /// Mesh → the node itself, opened by the peer.
    ToNode = 3,
    /// Opened by the node towards a peer: the entry lets the answer in.
    FromNode = 4,
    /// Opened by the LAN towards a peer on a route that keeps sources; forwarded by the kernel.
    FromLan = 5,
}

/// TCP flags seen in one direction, enough to derive the RFC 5382 state from both.
pub struct TcpSeen;

impl TcpSeen {
    /// A SYN.
    pub const SYN: u8 = 1;
    /// An ACK outside of a SYN or RST.
    pub const ACK: u8 = 2;
    /// A FIN, behind which nothing new has come.
    pub const FIN: u8 = 4;
    /// A RST, of either direction: it is marked on both sides.
    pub const RST: u8 = 8;
    /// Its FIN came before the other side's: this side closed first, and waits in TIME-WAIT.
    pub const FIN_FIRST: u8 = 16;
    /// [`Flow::tcp_timestamp`] is known.
    pub const TIMESTAMP: u8 = 32;
    /// [`TcpWindow::end`] is known.
    pub const END: u8 = 64;
    /// [`TcpWindow::ack`] and its window are known.
    pub const WINDOW: u8 = 128;
}

/// What one direction of a TCP connection has shown of its sequence numbers, host byte order; enough to know which of its
/// own, and of the other direction's, resets and ends are genuine (RFC 9293 §3.10.7, RFC 5961).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpWindow {
    /// The number behind the highest one sent.
    pub end: u32,
    /// The highest number that was acknowledged to the other side.
    pub ack: u32,
    /// The window that was last announced to the other side, as it stands in the header.
    pub window: u16,
    /// What it is shifted by (RFC 7323 §2).
    pub scale: u8,
    /// Zero.
    pub pad: u8,
}

const _: () = assert!(size_of::<TcpWindow>() == 12);

/// Value of the forward map; the key is the 5-tuple that enters from the mesh.
///
/// Written by the direction mesh → LAN only, but for a reset of the other: so that no two CPUs of different directions share a
/// cache line write.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Source address after NAT: the next hop's. The peer's own for flows that are not masqueraded.
    pub nat_addr: Addr,
    /// `CLOCK_MONOTONIC` (coarse) of the last packet in this direction, nanoseconds, written at most once a second.
    pub last_seen: u64,
    /// `CLOCK_MONOTONIC` (coarse) of the first packet, nanoseconds.
    pub created: u64,
    /// Packets in this direction (segments of a super-packet counted).
    pub packets: u64,
    /// Bytes of layer 3 in this direction.
    pub bytes: u64,
    /// Generation of the policy that accepted it.
    pub policy_generation: u32,
    /// Number of its next hop: 0 for flows of the node, [`crate::next_hop::UNLISTED`] for one without an entry.
    pub next_hop: u32,
    /// Generation of the next hop when it was resolved for this flow.
    pub next_hop_generation: u32,
    /// Route that carries the flow, [`crate::route::NO_ROUTE`] for flows of the node.
    pub route_id: u32,
    /// Rule that accepted it.
    pub policy_id: u32,
    /// Peer it came from.
    pub peer_id: u32,
    /// Source port (or echo identifier) after NAT, network byte order.
    pub nat_port: u16,
    /// A [`FlowKind`].
    pub kind: u8,
    /// [`TcpSeen`] of this direction.
    pub tcp_seen: u8,
    /// Sequence numbers of this direction.
    pub tcp: TcpWindow,
    /// Timestamp of the last packet with a FIN (RFC 7323 §3), host byte order, if [`TcpSeen::TIMESTAMP`] is set.
    pub tcp_timestamp: u32,
    /// Why the connection was reset at both ends: a drop reason plus 1, and [`Flow::TOLD`] once the event is sent; 0: it was not
    /// reset.
    pub ended: u32,
    /// Zero. With the kernel's 48 bytes and the key an entry is three lines of cache, and begins with one.
    pub pad: [u32; 2],
}

impl Flow {
    /// In [`Flow::ended`]: the event of this flow's end has been sent.
    pub const TOLD: u32 = 1 << 31;
}

const _: () = assert!(size_of::<Flow>() == 104);
const _: () = assert!((48 + size_of::<FlowKey>() + size_of::<Flow>()).is_multiple_of(64));

/// Value of the reverse map; the key is the 5-tuple of a reply as it arrives on the uplink.
/// Inserting it with `BPF_NOEXIST` is the reservation of the port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Destination address to restore: the peer's.
    pub peer_addr: Addr,
    /// As [`Flow::last_seen`], of the reply direction.
    pub last_seen: u64,
    /// Reply packets (segments of a super-packet counted).
    pub packets: u64,
    /// Reply bytes of layer 3.
    pub bytes: u64,
    /// As [`Flow::policy_generation`]; replies of a revoked flow stop, too.
    pub policy_generation: u32,
    /// As [`Flow::route_id`].
    pub route_id: u32,
    /// Destination port (or echo identifier) to restore, network byte order.
    pub peer_port: u16,
    /// A [`FlowKind`].
    pub kind: u8,
    /// [`TcpSeen`] of this direction.
    pub tcp_seen: u8,
    /// Sequence numbers of this direction.
    pub tcp: TcpWindow,
}

const _: () = assert!(size_of::<Mapping>() == 64);

impl FlowKey {
    /// The key of the reply on the uplink: source and destination exchanged, and the destination replaced by the
    /// NAT address and port. Both are the flow's own when it is not masqueraded.
    #[inline(always)]
    #[must_use]
    pub const fn reply_key(&self, nat_addr: Addr, nat_port: u16) -> Self {
        Self { src: self.dst, dst: nat_addr, src_port: self.dst_port, dst_port: nat_port, protocol: self.protocol }
    }

    /// Source and destination exchanged.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        self.reply_key(self.src, self.src_port)
    }
}
