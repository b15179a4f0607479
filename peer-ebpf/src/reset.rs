//! TCP resets of our own (RFC 9293 §3.5.2): both ends of a connection that may not go on are told by the next packet of either.
//!
//! The packet's sender gets one with the number that it has acknowledged, so the very one that it expects (RFC 5961 §3.2). The
//! other end gets a second one, in the packet's name and with its number. If that one has lost something before, it
//! asks back, and its question is such a packet, too.

use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, TC_ACT_UNSPEC};
use aya_ebpf::helpers::{bpf_clone_redirect, bpf_csum_diff, bpf_ktime_get_coarse_ns};
use aya_ebpf::programs::TcContext;
use peer_common::layout::REDIRECTED_MARK;
use peer_common::{Addr, Config, Counter, DropReason, Flow, FlowKind, Mapping, TcpSeen};

use crate::maps::{MAPPINGS, Scratch};
use crate::own_packet::{Ends, L4_AT, Pseudo, fold, overwrite, resize, set_header};
use crate::parse::{IPPROTO_TCP, Packet, TCP_ACK, TCP_FIN, TCP_LEN, TCP_RST, TCP_SYN, V4_LEN, V6_LEN};
use crate::verifier::opaque_address;
use crate::{flow, last, mesh, next_hop, observe, redirect, stats};

/// A reset: what it says, and the room where it is made.
#[repr(C, align(8))]
pub struct Segment {
    bytes: [u8; L4_AT + TCP_LEN + 4],
    pseudo: Pseudo,
    source: Addr,
    destination: Addr,
    /// Network byte order, as in a [`peer_common::FlowKey`].
    source_port: u16,
    destination_port: u16,
    /// Host byte order.
    seq: u32,
    ack: u32,
    flags: u8,
    is_v4: bool,
    pad: [u8; 6],
}

#[repr(C)]
struct Tcp {
    source: u16,
    destination: u16,
    seq: u32,
    ack: u32,
    offset_flags: u16,
    window: u16,
    checksum: u16,
    urgent: u16,
}

/// A packet of the mesh belongs to a connection that may not go on: tells both ends. `work.packet` is of a known flow.
#[inline(always)]
pub fn by_mesh<const L2: usize>(
    ctx: &TcContext,
    config: &Config,
    work: &mut Scratch,
    reason: DropReason,
) -> Option<i32> {
    let flow = mesh::flow_of(&work.packet.key)?;
    work.query.key = work.packet.key;
    flow::set_reply(&mut work.reply, &work.packet.key, &flow.nat_addr, flow.nat_port);
    mark(work, reason);
    if !shrink::<L2>(ctx, &work.packet) {
        return None;
    }
    back(&work.packet, &mut work.segment);
    if !write::<L2>(ctx, &mut work.segment) {
        return None;
    }
    copy_to_mesh(ctx, config);
    onward(&work.packet, &mut work.segment);
    if flow.kind == FlowKind::Masqueraded as u8 {
        (work.segment.source, work.segment.source_port) = (flow.nat_addr, flow.nat_port);
    }
    if !write::<L2>(ctx, &mut work.segment) {
        return None;
    }
    if flow.next_hop == 0 {
        unmark(ctx);
        return Some(if L2 == 0 { last::pass(ctx) } else { TC_ACT_UNSPEC });
    }
    // Where the way is not in force any more, the kernel finds the neighbour.
    let hop = match next_hop::current(flow) {
        Some(hop) => opaque_address(ptr::from_mut(hop)),
        None => {
            let uplink = next_hop::uplink(flow)?;
            let entry = &mut work.hop.entry;
            (entry.addr, entry.flags, entry.asked, entry.uplink) = (Addr::NONE, 0, 0, uplink);
            opaque_address(&raw const *entry)
        }
    };
    // SAFETY: a map value lives until the program ends, or it is this CPU's own.
    let hop = unsafe { &mut *hop.cast_mut() };
    // SAFETY: takes nothing, reads a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    redirect::to_uplink::<L2>(ctx, hop, now, &mut work.neighbour).ok()
}

/// As [`by_mesh`], by a reply. `work.query.key` is the flow's tuple.
#[inline(always)]
pub fn by_uplink<const L2: usize>(
    ctx: &TcContext,
    config: &Config,
    work: &mut Scratch,
    mapping: &Mapping,
    reason: DropReason,
) -> Option<i32> {
    flow::set_asked(&mut work.query.key, &work.packet.key, mapping);
    work.reply = work.packet.key;
    mark(work, reason);
    if !shrink::<L2>(ctx, &work.packet) {
        return None;
    }
    onward(&work.packet, &mut work.segment);
    (work.segment.destination, work.segment.destination_port) = (mapping.peer_addr, mapping.peer_port);
    if !write::<L2>(ctx, &mut work.segment) {
        return None;
    }
    copy_to_mesh(ctx, config);
    back(&work.packet, &mut work.segment);
    if !write::<L2>(ctx, &mut work.segment) {
        return None;
    }
    unmark(ctx);
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is the kernel's.
    redirect::back(ctx, unsafe { (*skb).ifindex })
}

/// Turns a packet into a reset to its sender. `false`: it gets none, because it is one itself, or the kernel refuses.
#[inline(always)]
pub fn to_sender<const L2: usize>(ctx: &TcContext, work: &mut Scratch) -> bool {
    if work.packet.tcp_flags & TCP_RST != 0 || !shrink::<L2>(ctx, &work.packet) {
        return false;
    }
    back(&work.packet, &mut work.segment);
    write::<L2>(ctx, &mut work.segment)
}

/// Marks the flow of `work.query.key` and the mapping of `work.reply` as ended, so that they are forgotten four minutes after the last
/// answer, and tells of it once. Returns 0, as functions of their own must return something.
#[inline(never)]
fn mark(work: &mut Scratch, reason: DropReason) -> u32 {
    let Scratch { query, reply, .. } = work;
    if let Some(mapping) = MAPPINGS.get_ptr_mut(&*reply) {
        // SAFETY: a map value lives until the program ends, whatever becomes of its entry; fields are written one by one.
        let mapping = unsafe { &mut *mapping };
        if mapping.peer_addr == query.key.src && mapping.peer_port == query.key.src_port {
            mapping.tcp_seen |= TcpSeen::RST;
        }
    }
    let Some(flow) = mesh::flow_of(&query.key) else { return 0 };
    flow.tcp_seen |= TcpSeen::RST;
    // SAFETY: takes nothing, reads a clock.
    flow.last_seen = unsafe { bpf_ktime_get_coarse_ns() };
    if flow.ended == 0 {
        flow.ended = reason as u32 + 1;
        if observe::closing(&query.key, flow, reply, reason) != 0 {
            observe::tell_closed();
            flow.ended |= Flow::TOLD;
        }
    }
    0
}

/// Makes the packet as long as a reset.
#[inline(always)]
fn shrink<const L2: usize>(ctx: &TcContext, packet: &Packet) -> bool {
    resize(ctx, (L2 + TCP_LEN + if packet.is_v4 { V4_LEN } else { V6_LEN }) as u32)
}

/// Sets what the packet's sender is told.
#[inline(always)]
fn back(packet: &Packet, segment: &mut Segment) {
    segment.is_v4 = packet.is_v4;
    (segment.source, segment.destination) = (packet.key.dst, packet.key.src);
    (segment.source_port, segment.destination_port) = (packet.key.dst_port, packet.key.src_port);
    if packet.tcp_flags & TCP_ACK != 0 {
        (segment.seq, segment.ack, segment.flags) = (packet.tcp_ack(), 0, TCP_RST);
    } else {
        let marks = (packet.tcp_flags & TCP_SYN != 0) as u32 + (packet.tcp_flags & TCP_FIN != 0) as u32;
        let end = packet.tcp_seq().wrapping_add(packet.payload()).wrapping_add(marks);
        (segment.seq, segment.ack, segment.flags) = (0, end, TCP_RST | TCP_ACK);
    }
}

/// Sets what the other end is told, in the packet's name.
#[inline(always)]
fn onward(packet: &Packet, segment: &mut Segment) {
    segment.is_v4 = packet.is_v4;
    (segment.source, segment.destination) = (packet.key.src, packet.key.dst);
    (segment.source_port, segment.destination_port) = (packet.key.src_port, packet.key.dst_port);
    (segment.seq, segment.ack, segment.flags) = (packet.tcp_seq(), packet.tcp_ack(), TCP_RST | TCP_ACK);
}

/// Writes the reset over the packet, which is as long as it.
#[inline(never)]
fn write<const L2: usize>(ctx: &TcContext, segment: &mut Segment) -> bool {
    const WORDS: u16 = (TCP_LEN as u16 / 4) << 12;
    let base = segment.bytes.as_mut_ptr();
    let ends = Ends { is_v4: segment.is_v4, source: &segment.source, destination: &segment.destination };
    // SAFETY: all lies in the buffer, which is aligned to eight; the TCP header begins at 40.
    let written = unsafe {
        let tcp = base.add(L4_AT).cast::<Tcp>();
        *tcp = Tcp {
            source: segment.source_port,
            destination: segment.destination_port,
            seq: segment.seq.to_be(),
            ack: segment.ack.to_be(),
            offset_flags: (WORDS | segment.flags as u16).to_be(),
            window: 0,
            checksum: 0,
            urgent: 0,
        };
        let sum = set_header(base, &mut segment.pseudo, &ends, IPPROTO_TCP, TCP_LEN as u32);
        (*tcp).checksum = !fold(bpf_csum_diff(ptr::null_mut(), 0, tcp.cast(), TCP_LEN as u32, sum as u32));
        if segment.is_v4 {
            overwrite(ctx, L2 as u32, base.add(V6_LEN - V4_LEN), (V4_LEN + TCP_LEN) as u32)
        } else {
            overwrite(ctx, L2 as u32, base, (V6_LEN + TCP_LEN) as u32)
        }
    };
    if written {
        stats::count(Counter::ResetsSent, 1);
    }
    written
}

/// Sends a copy of the packet into the mesh, past our own program there. At once: that one sees the mark and needs nothing of this
/// CPU's working memory. What the kernel says of it changes nothing.
#[inline(always)]
fn copy_to_mesh(ctx: &TcContext, config: &Config) {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is the kernel's.
    unsafe {
        (*skb).mark = REDIRECTED_MARK;
        bpf_clone_redirect(skb, config.wt0, 0);
    }
}

/// Takes back the mark of [`copy_to_mesh`].
#[inline(always)]
fn unmark(ctx: &TcContext) {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is the kernel's.
    unsafe { (*skb).mark = 0 };
}
