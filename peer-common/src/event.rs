//! What the programs tell of flows and packets, one record each; and which packets they follow.

use crate::{Addr, FlowKey};

/// What happened.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A flow was opened.
    Opened = 1,
    /// A flow was forgotten by a program.
    Closed = 2,
    /// A packet was dropped.
    Dropped = 3,
    /// A packet that somebody follows has come to its verdict.
    Traced = 4,
}

/// Which of it is told, as bits of [`crate::Config::observe`].
pub struct Observe;

impl Observe {
    /// Flows that open, and that programs forget.
    pub const FLOWS: u32 = 1;
    /// Packets that are dropped.
    pub const DROPS: u32 = 2;
    /// Packets that fit the [`TraceFilter`].
    pub const TRACE: u32 = 4;
}

/// Which program saw the packet.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// wt0 ingress.
    FromMesh = 1,
    /// wt0 egress.
    ToMesh = 2,
    /// Uplink ingress, of a packet that answers a flow.
    FromUplink = 3,
    /// Uplink ingress, of a packet that belongs to no flow: it goes on untouched.
    Unmatched = 4,
}

/// Whether rules were asked.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Judged {
    /// No: its flow is known, and the policy has not changed since; or it has come to no rule.
    Not = 0,
    /// It has no flow yet, or can have none.
    New = 1,
    /// Its flow is known, from an earlier policy.
    Again = 2,
}

/// A record. What does not apply is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowEvent {
    /// `CLOCK_MONOTONIC` (coarse), nanoseconds.
    pub time: u64,
    /// As [`crate::Flow::created`].
    pub created: u64,
    /// As [`crate::Flow::packets`].
    pub packets: u64,
    /// As [`crate::Flow::bytes`].
    pub bytes: u64,
    /// As [`crate::Mapping::packets`].
    pub reply_packets: u64,
    /// As [`crate::Mapping::bytes`].
    pub reply_bytes: u64,
    /// The tuple as it enters from the mesh, whichever way the packet went. All zero: it could not be read.
    pub key: FlowKey,
    /// As [`crate::Flow::nat_addr`].
    pub nat_addr: Addr,
    /// As [`crate::NextHop::addr`], of the flow's next hop.
    pub next_hop: Addr,
    /// As [`crate::NextHop::uplink`], of the flow's next hop; 0: none.
    pub uplink: u32,
    /// As [`crate::Flow::route_id`]; [`crate::route::NO_ROUTE`]: none.
    pub route_id: u32,
    /// Rule that decided; 0: none.
    pub policy_id: u32,
    /// Peer that owns the source, if rules were asked; 0: unknown.
    pub peer_id: u32,
    /// Of the source, if rules were asked.
    pub identity: u32,
    /// Of the destination, if rules were asked.
    pub class: u32,
    /// Generation of the policy that the packet was judged by.
    pub policy_generation: u32,
    /// MTU ahead, bytes of layer 3.
    pub mtu: u32,
    /// Bytes of layer 3 of the packet.
    pub len: u32,
    /// 0: it passes; else a [`crate::DropReason`] plus 1.
    pub verdict: u32,
    /// As [`crate::Flow::nat_port`].
    pub nat_port: u16,
    /// An [`EventKind`].
    pub event: u8,
    /// A [`crate::FlowKind`]; 0: it has no flow.
    pub kind: u8,
    /// A [`Way`].
    pub way: u8,
    /// A [`Judged`].
    pub judged: u8,
    /// TTL or hop limit as it arrived.
    pub ttl: u8,
    /// TCP flags as they stand in the header.
    pub tcp_flags: u8,
}

const _: () = assert!(size_of::<FlowEvent>() == 168);

/// The packets that somebody follows. Compared with the tuple as it enters from the mesh, so that both directions fit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceFilter {
    /// The end in the mesh, its other bits zero.
    pub peer: Addr,
    /// Which bits of it count.
    pub peer_mask: Addr,
    /// The other end, its other bits zero.
    pub remote: Addr,
    /// Which bits of it count.
    pub remote_mask: Addr,
    /// `CLOCK_MONOTONIC` (coarse), nanoseconds, at which nobody follows any more.
    pub until: u64,
    /// IP protocol numbers, the same twice for one; 0: any.
    pub protocols: [u16; 2],
    /// Port of the end in the mesh (or echo identifier), network byte order; 0: any.
    pub peer_port: u16,
    /// Port of the other end, network byte order; 0: any.
    pub remote_port: u16,
    /// Not 0: the end in the mesh, the other end, must have an IPv6 address. A prefix of IPv6 may be so short that mapped
    /// addresses lie in it.
    pub only_v6: [u32; 2],
}

const _: () = assert!(size_of::<TraceFilter>() == 88);

impl TraceFilter {
    /// Whether a packet of this tuple is followed. `peer_known`: the end in the mesh is; else only the other one counts.
    #[inline(always)]
    #[must_use]
    pub fn takes(&self, key: &FlowKey, peer_known: bool) -> bool {
        let protocol = key.protocol as u16;
        within(&key.dst, &self.remote, &self.remote_mask)
            && (self.only_v6[1] == 0 || !key.dst.is_v4())
            && (self.remote_port == 0 || self.remote_port == key.dst_port)
            && (self.protocols[0] == 0 || self.protocols[0] == protocol || self.protocols[1] == protocol)
            && (!peer_known
                || within(&key.src, &self.peer, &self.peer_mask)
                    && (self.only_v6[0] == 0 || !key.src.is_v4())
                    && (self.peer_port == 0 || self.peer_port == key.src_port))
    }
}

#[inline(always)]
fn within(addr: &Addr, wanted: &Addr, mask: &Addr) -> bool {
    let mut differ = 0;
    let mut word = 0;
    while word < 4 {
        differ |= (addr.words[word] & mask.words[word]) ^ wanted.words[word];
        word += 1;
    }
    differ == 0
}
