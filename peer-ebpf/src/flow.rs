//! What a packet leaves behind in its flow.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST};
use aya_ebpf::programs::TcContext;
use peer_common::route::NO_ROUTE;
use peer_common::{Addr, Config, Counter, DropReason, Flow, FlowKey, Mapping, TcpSeen, TcpWindow};

use crate::maps::{FLOWS, PEER_FLOWS, Scratch};
use crate::parse::{IPPROTO_TCP, Packet, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use crate::verifier::value;
use crate::{observe, stats};

/// Entries are written at most once a second: timeouts are minutes.
const RESOLUTION: u64 = 1_000_000_000;

/// Sets the scratch flow to a new one of the packet's key: not yet routed, not yet translated.
#[inline(always)]
pub fn begin(work: &mut Scratch, kind: u8, now: u64) {
    work.flow = Flow {
        nat_addr: work.packet.key.src,
        last_seen: now,
        created: now,
        packets: 0,
        bytes: 0,
        policy_generation: work.query.generation,
        next_hop: 0,
        next_hop_generation: 0,
        route_id: NO_ROUTE,
        policy_id: 0,
        peer_id: 0,
        nat_port: work.packet.key.src_port,
        kind,
        tcp_seen: 0,
        tcp: TcpWindow::default(),
        tcp_timestamp: 0,
        ended: 0,
        pad: [0; 2],
    };
}

/// Opens a flow that has no mapping. Returns 0, or a drop reason plus 1.
#[inline(always)]
pub fn insert_local(key: &FlowKey, flow: &Flow) -> u32 {
    match FLOWS.insert(key, flow, BPF_NOEXIST as u64) {
        Ok(()) => {
            opened(key, flow);
            0
        }
        Err(-17) => 0,
        Err(_) => DropReason::TableFull as u32 + 1,
    }
}

/// [`FlowKey::reply_key`], written in place: a copy would be made on the stack.
#[inline(always)]
pub fn set_reply(reply: &mut FlowKey, key: &FlowKey, nat_addr: &Addr, nat_port: u16) {
    reply.src = key.dst;
    reply.dst = *nat_addr;
    (reply.src_port, reply.dst_port) = (key.dst_port, nat_port);
    reply.protocol = key.protocol;
}

/// The tuple that enters from the mesh, of the flow that `reply` answers.
#[inline(always)]
pub fn set_asked(key: &mut FlowKey, reply: &FlowKey, mapping: &Mapping) {
    (key.src, key.dst) = (mapping.peer_addr, reply.src);
    (key.src_port, key.dst_port) = (mapping.peer_port, reply.src_port);
    key.protocol = reply.protocol;
}

/// Counts a new flow, for its peer, too, and tells of it.
#[inline(always)]
pub fn opened(key: &FlowKey, flow: &Flow) {
    stats::count(Counter::FlowsOpened, 1);
    observe::opened(key, flow);
    if let Some(count) = value(&PEER_FLOWS, flow.peer_id) {
        // SAFETY: a map value lives until the program ends. Another CPU's addition may get lost; the daemon counts anew at
        // each scan.
        unsafe { *count = (*count).saturating_add(1) };
    }
}

/// Counts a flow that is forgotten.
#[inline(always)]
pub fn closed(flow: &Flow) {
    if let Some(count) = value(&PEER_FLOWS, flow.peer_id) {
        // SAFETY: as in `opened`.
        unsafe { *count = (*count).saturating_sub(1) };
    }
}

/// Whether the peer may open another flow. Peer 0 is the node itself, which has no bound but the table's.
#[inline(always)]
pub fn quota_left(config: &Config, peer_id: u32) -> bool {
    // SAFETY: as in `opened`.
    value(&PEER_FLOWS, peer_id).is_none_or(|count| unsafe { *count } < config.peer_quota)
}

/// A packet from the mesh. What it shows of a TCP connection is for [`crate::tcp`].
#[inline(always)]
pub fn touch_out(flow: &mut Flow, packet: &Packet, segments: u64, now: u64) {
    // Plain additions: a direction of a flow stays on one CPU, steered by its hash or by its shard.
    flow.packets += segments;
    flow.bytes += packet.len as u64;
    if refresh_due(flow, now) {
        flow.last_seen = now;
    }
}

/// Whether the mapping under the flow must be looked after, at most once a second. The daemon removes what was idle for
/// half a minute or more, flow first: a packet that comes right then finds the old mapping, opens the flow anew on it, and
/// loses it. So only flows that are young, or were idle for long, can be without one.
#[inline(always)]
pub fn may_lack_mapping(flow: &Flow, now: u64) -> bool {
    const YOUNG: u64 = 10_000_000_000;
    const IDLE: u64 = 20_000_000_000;
    let idle = now.wrapping_sub(flow.last_seen);
    idle > RESOLUTION && (idle > IDLE || now.wrapping_sub(flow.created) < YOUNG)
}

/// Whether the flow's time of last use must be written.
#[inline(always)]
fn refresh_due(flow: &Flow, now: u64) -> bool {
    now.wrapping_sub(flow.last_seen) > RESOLUTION
}

/// A packet of the node itself towards the mesh: it keeps the flow, whoever opened it.
#[inline(always)]
pub fn touch_from_node(flow: &mut Flow, now: u64) {
    if refresh_due(flow, now) {
        flow.last_seen = now;
    }
}

/// A reply from an uplink. As [`touch_out`].
#[inline(always)]
pub fn touch_in(mapping: &mut Mapping, packet: &Packet, segments: u64, now: u64) {
    mapping.packets += segments;
    mapping.bytes += packet.len as u64;
    if now.wrapping_sub(mapping.last_seen) > RESOLUTION {
        mapping.last_seen = now;
    }
}

/// Payload bytes per segment of a super-packet, else 0.
#[inline(always)]
pub fn gso_size(ctx: &TcContext) -> u32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is the kernel's.
    unsafe { (*skb).gso_size }
}

/// Whether the packet, or each segment of a super-packet, fits.
#[inline(always)]
pub fn fits(packet: &Packet, gso_size: u32, mtu: u32) -> bool {
    let len = if gso_size == 0 { packet.len } else { packet.headers.wrapping_add(gso_size) };
    len <= mtu
}

/// Adds what a packet to the node itself shows: its stack judges the numbers. A SYN begins a connection anew, because the same
/// ports may serve again soon after a close.
#[inline(always)]
pub fn see(seen: &mut u8, packet: &Packet) {
    let now = flags(packet);
    if now & TcpSeen::SYN != 0 {
        *seen = now;
    } else if now & !*seen != 0 {
        *seen |= now;
    }
}

#[inline(always)]
fn flags(packet: &Packet) -> u8 {
    if packet.key.protocol != IPPROTO_TCP {
        return 0;
    }
    let flags = packet.tcp_flags;
    let mut seen = 0;
    if flags & TCP_SYN != 0 {
        seen |= TcpSeen::SYN;
    }
    if flags & TCP_FIN != 0 {
        seen |= TcpSeen::FIN;
    }
    if flags & TCP_RST != 0 {
        seen |= TcpSeen::RST;
    } else if flags & TCP_ACK != 0 {
        seen |= TcpSeen::ACK;
    }
    seen
}
