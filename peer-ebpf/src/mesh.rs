//! wt0 ingress: a packet of the mesh, already decrypted, on its way to the node or through it.

use core::ptr;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::TcContext;
use peer_common::route::NO_ROUTE;
use peer_common::{Addr, Config, Counter, Direction, DropReason, Flow, FlowKey, FlowKind, Judged, NextHop, Way};

use crate::maps::{FLOWS, MAPPINGS, Scratch, config, scratch};
use crate::parse::{IPPROTO_TCP, parse};
use crate::rewrite::{self, End, Translation};
use crate::stats::failed;
use crate::verifier::opaque_address;
use crate::{answer, family, fib, flow, fragment, icmp, judge, last, log, mss, nat, next_hop, observe};
use crate::{redirect, reset, stats, tcp};

/// Layer 3 starts at `L2`: 0 on wt0, 14 behind a link header.
#[inline(always)]
pub fn ingress<const L2: usize>(ctx: &TcContext) -> i32 {
    let (Some(config), Some(work)) = (config(), scratch()) else {
        stats::count_drop(DropReason::Internal, ctx.len());
        return TC_ACT_SHOT;
    };
    match forward::<L2>(ctx, config, work) {
        Ok(action) => {
            observe::verdict(config, work, &work.packet.key, Way::FromMesh, 0);
            if action == TC_ACT_UNSPEC { last::pass(ctx) } else { action }
        }
        Err(reason) => {
            stats::count_drop(reason, ctx.len());
            observe::verdict(config, work, &work.packet.key, Way::FromMesh, reason as u32 + 1);
            log::tell_exhaustion(ctx, reason);
            answer::<L2>(ctx, config, work, reason).unwrap_or(TC_ACT_SHOT)
        }
    }
}

/// Tells the peer why its packet went no further, where it can do something about it.
#[inline(always)]
fn answer<const L2: usize>(ctx: &TcContext, config: &Config, work: &mut Scratch, reason: DropReason) -> Option<i32> {
    if answer::ends_connection(work, reason) {
        return reset::by_mesh::<L2>(ctx, config, work, reason);
    }
    let error = answer::to_peer(config, work, reason)?;
    if !answer::may_tell(work) {
        return None;
    }
    if answer::as_reset(&work.packet, reason) {
        return reset::to_sender::<L2>(ctx, work).then(|| redirect::to_mesh(ctx, config.wt0));
    }
    let source = family::choose(work.packet.is_v4, &config.overlay4, &config.overlay6);
    icmp::turn::<L2>(ctx, &work.packet, &mut work.error, &source, error).then(|| redirect::to_mesh(ctx, config.wt0))
}

#[inline(always)]
fn forward<const L2: usize>(ctx: &TcContext, config: &Config, work: &mut Scratch) -> Result<i32, DropReason> {
    if config.wt0 == 0 {
        return Err(DropReason::Internal);
    }
    work.query.begin(config);
    parse::<L2>(ctx, &mut work.packet)?;
    // SAFETY: takes nothing, reads a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    fragment::complete(&mut work.packet, &mut work.fragment, now);
    if matches!(work.packet.unjudged, Some(DropReason::IcmpType))
        && icmp::read_quoted::<L2>(ctx, &work.packet, &mut work.quoted)
    {
        // Flows stand under the tuple that enters from the mesh; the quoted packet went the other way.
        let quoted = &work.quoted.key;
        flow::set_reply(&mut work.reply, quoted, &quoted.src, quoted.src_port);
        match flow_of(&work.reply) {
            Some(flow) => return error::<L2>(ctx, work, flow, now),
            None => work.packet.unjudged = Some(DropReason::IcmpUnmatched),
        }
    }
    let known = if work.packet.unjudged.is_none() { flow_of(&work.packet.key) } else { None };
    let flow = match known {
        Some(flow) if flow.policy_generation == work.query.generation => flow,
        known => match judged::<L2>(ctx, config, work, known, now)? {
            Some(flow) => flow,
            None => {
                stats::count(Counter::ToNode, 1);
                return Ok(TC_ACT_UNSPEC);
            }
        },
    };
    follow::<L2>(ctx, config, work, flow, now)
}

/// An ICMP error about a packet that the flow has brought to the peer. It refreshes nothing (RFC 5508 REQ-6).
#[inline(always)]
fn error<const L2: usize>(ctx: &TcContext, work: &mut Scratch, flow: &mut Flow, now: u64) -> Result<i32, DropReason> {
    let way = &raw mut work.hop.entry;
    let Scratch { packet, quoted, query, .. } = &mut *work;
    let teller = judge::peer_of(&mut query.keys, &packet.key.src).ok_or(DropReason::ForeignSource)?;
    let told = judge::peer_of(&mut query.keys, &quoted.key.dst).ok_or(DropReason::IcmpUnmatched)?;
    // A peer speaks of its own flows only, and to nobody but the one who sent the packet.
    if teller.id != told.id || packet.key.dst != quoted.key.src {
        return Err(DropReason::IcmpUnmatched);
    }
    if flow.policy_generation != query.generation && flow.kind != FlowKind::FromNode as u8 {
        flow::set_reply(&mut query.key, &quoted.key, &quoted.key.src, quoted.key.src_port);
        query.unjudged = None;
        query.judged = Judged::Again as u8;
        failed(judge::judge(query))?;
    }
    // The node's own stack knows what it has sent.
    if flow.route_id != NO_ROUTE && quoted.key.protocol == IPPROTO_TCP && !was_sent(work, flow) {
        return Err(DropReason::IcmpUnmatched);
    }
    let Scratch { packet, quoted, .. } = &*work;
    if flow.next_hop == 0 {
        stats::count(Counter::IcmpErrors, 1);
        return Ok(TC_ACT_UNSPEC);
    }
    if packet.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    // Where the way is not in force any more, the kernel finds the neighbour: the flow's next packet resolves it anew.
    let hop = match next_hop::current(flow) {
        Some(hop) => opaque_address(ptr::from_mut(hop)),
        None => {
            // SAFETY: this CPU's own, and nothing else refers to it here.
            let entry = unsafe { &mut *way };
            (entry.addr, entry.flags, entry.asked) = (Addr::NONE, 0, 0);
            entry.uplink = next_hop::uplink(flow).ok_or(DropReason::IcmpUnmatched)?;
            opaque_address(&raw const *entry)
        }
    };
    // SAFETY: a map value lives until the program ends, or it is this CPU's own.
    let hop = unsafe { &mut *hop.cast_mut() };
    stats::count(Counter::IcmpErrors, 1);
    rewrite::decrement_ttl::<L2>(ctx, packet)?;
    if flow.kind == FlowKind::Masqueraded as u8 {
        rewrite::translate_error::<L2>(ctx, packet, quoted, End::Source, &flow.nat_addr, flow.nat_port)?;
    }
    redirect::to_uplink::<L2>(ctx, hop, now, &mut work.neighbour)
}

/// Whether the server has sent the segment that is quoted, and has no answer to it yet. `work.reply` is the flow's tuple.
#[inline(always)]
fn was_sent(work: &mut Scratch, flow: &Flow) -> bool {
    let Scratch { quoted, reply, query, .. } = work;
    flow::set_reply(&mut query.key, reply, &flow.nat_addr, flow.nat_port);
    // SAFETY: read only.
    let Some(mapping) = (unsafe { MAPPINGS.get(&query.key) }) else { return true };
    tcp::on_the_way(quoted.seq, (&mapping.tcp, mapping.tcp_seen), (&flow.tcp, flow.tcp_seen))
}

/// Judges a packet without a current flow: `known` is the one that an older policy accepted. Returns the flow that it
/// has now; `None` for what the node takes without one.
#[inline(always)]
fn judged<const L2: usize>(
    ctx: &TcContext,
    config: &Config,
    work: &mut Scratch,
    known: Option<&'static mut Flow>,
    now: u64,
) -> Result<Option<&'static mut Flow>, DropReason> {
    if let Some(flow) = known {
        stats::count(Counter::FlowsRejudged, 1);
        if flow.kind == FlowKind::FromNode as u8 {
            judge::peer_of(&mut work.query.keys, &work.packet.key.src).ok_or(DropReason::ForeignSource)?;
            flow.policy_generation = work.query.generation;
            return Ok(Some(flow));
        }
        work.query.judged = Judged::Again as u8;
        failed(ask(work))?;
        let accepted = &work.query;
        // The LAN's own flows are routed ones; the rest is what the tables say now.
        let routed = flow.kind == FlowKind::FromLan as u8 && accepted.kind == FlowKind::Routed as u8;
        if accepted.kind != flow.kind && !routed {
            nat::forget(&work.packet.key, flow, &mut work.reply);
            return Err(DropReason::SourceChanged);
        }
        flow.policy_id = accepted.policy_id;
        flow.peer_id = accepted.peer_id;
        flow.route_id = accepted.route.id;
        flow.policy_generation = accepted.generation;
        flow.ended = 0;
        return Ok(Some(flow));
    }
    work.query.judged = Judged::New as u8;
    failed(ask(work))?;
    let for_node = work.query.route.id == NO_ROUTE;
    if work.packet.unjudged.is_some() || !judge::opens(&work.packet) {
        // Only the node itself takes what opens no flow.
        return if for_node { Ok(None) } else { Err(DropReason::IcmpType) };
    }
    if !flow::quota_left(config, work.query.peer_id) {
        return Err(DropReason::PeerQuota);
    }
    flow::begin(work, work.query.kind, now);
    work.flow.policy_id = work.query.policy_id;
    work.flow.peer_id = work.query.peer_id;
    if for_node {
        failed(flow::insert_local(&work.packet.key, &work.flow))?;
    } else {
        failed(open::<L2>(ctx, config, work))?;
    }
    match flow_of(&work.packet.key) {
        Some(flow) => Ok(Some(flow)),
        None => Err(DropReason::TableFull),
    }
}

/// The next hop of the flow, resolved again when it is not in force any more. Of a flow that has none it is an entry that means
/// nothing: in what a CPU may run ahead of a comparison, verifiers before 6.8 follow a null pointer, too, and refuse it.
#[inline(always)]
fn hop_of(ctx: &TcContext, config: &Config, work: &mut Scratch, flow: &mut Flow) -> Result<*mut NextHop, DropReason> {
    if flow.next_hop == 0 {
        return Ok(opaque_address(&raw const work.hop.entry).cast_mut());
    }
    if let Some(hop) = next_hop::current(flow) {
        return Ok(opaque_address(ptr::from_mut(hop)).cast_mut());
    }
    let route = judge::route_to(&mut work.query.keys, &work.packet.key.dst).ok_or(DropReason::NoRoute)?;
    failed(fib::resolve(ctx, config, route, &work.packet.key, &mut work.hop))?;
    if flow.kind == FlowKind::Masqueraded as u8 && work.hop.entry.source != flow.nat_addr {
        if !fib::may_keep_source(next_hop::uplink(flow), &work.hop.entry, &flow.nat_addr) {
            nat::forget(&work.packet.key, flow, &mut work.reply);
            return Err(DropReason::SourceChanged);
        }
        work.hop.entry.source = flow.nat_addr;
    }
    flow.next_hop = next_hop::number(&mut work.hop);
    flow.next_hop_generation = work.hop.entry.generation;
    Ok(match next_hop::current(flow) {
        Some(hop) => opaque_address(ptr::from_mut(hop)),
        // All entries are taken.
        None => opaque_address(&raw const work.hop.entry),
    }
    .cast_mut())
}

/// Asks about the packet itself. Returns 0, or a drop reason plus 1.
#[inline(always)]
pub fn ask(work: &mut Scratch) -> u32 {
    work.query.key = work.packet.key;
    work.query.unjudged = work.packet.unjudged;
    judge::judge(&mut work.query)
}

/// Opens `work.flow` by the route that accepts it. Returns 0, or a drop reason plus 1.
#[inline(always)]
fn open<const L2: usize>(ctx: &TcContext, config: &Config, work: &mut Scratch) -> u32 {
    let masquerade = work.query.kind == FlowKind::Masqueraded as u8;
    work.flow.route_id = work.query.route.id;
    match fib::resolve(ctx, config, &work.query.route, &work.packet.key, &mut work.hop) {
        0 => {}
        // A source that is kept may also leave by the kernel's own forwarding.
        code if code == DropReason::NotUplink as u32 + 1 && !masquerade => {
            return flow::insert_local(&work.packet.key, &work.flow);
        }
        code => return code,
    }
    let source = &work.hop.entry.source;
    if masquerade && source.is_none() {
        return DropReason::NoSourceAddress as u32 + 1;
    }
    work.flow.next_hop = next_hop::number(&mut work.hop);
    work.flow.next_hop_generation = work.hop.entry.generation;
    if !masquerade {
        return nat::open_routed(work);
    }
    work.flow.nat_addr = work.hop.entry.source;
    nat::open_masqueraded(ctx, config, work, L2 as u32)
}

/// Sends the packet the way of its flow.
#[inline(always)]
fn follow<const L2: usize>(
    ctx: &TcContext,
    config: &Config,
    work: &mut Scratch,
    flow: &mut Flow,
    now: u64,
) -> Result<i32, DropReason> {
    let hop = hop_of(ctx, config, work, flow)?;
    let gso_size = flow::gso_size(ctx);
    fragment::remember(&work.packet, &mut work.fragment, now);
    if flow.kind != FlowKind::ToNode as u8 && flow.kind != FlowKind::FromNode as u8 && flow::may_lack_mapping(flow, now)
    {
        if !nat::reassert(work, flow) {
            nat::forget(&work.packet.key, flow, &mut work.reply);
            return Err(DropReason::SourceChanged);
        }
    }
    let packet = &work.packet;
    let segments = stats::segments(packet, gso_size);
    if flow.next_hop == 0 {
        flow::touch_out(flow, packet, segments, now);
        if flow.route_id == NO_ROUTE {
            flow::see(&mut flow.tcp_seen, packet);
            stats::count(Counter::ToNode, segments);
        } else {
            tcp::see_out::<L2>(ctx, work, flow);
            stats::count(Counter::ToStack, segments);
            stats::count_route(flow.route_id, Direction::Out, segments, work.packet.len as u64);
        }
        return Ok(TC_ACT_UNSPEC);
    }
    // SAFETY: a map value lives until the program ends; fields are written one by one.
    let hop = unsafe { &mut *hop };
    let mtu = hop.mtu;
    if packet.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    if !flow::fits(packet, gso_size, mtu) {
        work.mtu = mtu;
        return Err(DropReason::TooBig);
    }
    next_hop::may_ask(hop, flow.peer_id, now)?;
    flow::touch_out(flow, packet, segments, now);
    tcp::see_out::<L2>(ctx, work, flow);
    let packet = &work.packet;
    stats::count(Counter::ForwardedOut, segments);
    stats::count_route(flow.route_id, Direction::Out, segments, packet.len as u64);
    let mtu = if mtu < config.wt0_mtu { mtu } else { config.wt0_mtu };
    mss::clamp::<L2>(ctx, packet, &raw const work.options, mtu)?;
    let translation = Translation { end: End::Source, addr: &flow.nat_addr, port: flow.nat_port };
    rewrite::forward::<L2>(ctx, packet, (flow.kind == FlowKind::Masqueraded as u8).then_some(translation))?;
    redirect::to_uplink::<L2>(ctx, hop, now, &mut work.neighbour)
}

#[inline(always)]
pub fn flow_of(key: &FlowKey) -> Option<&'static mut Flow> {
    // SAFETY: a map value lives until the program ends, whatever becomes of its entry; fields are written one by one.
    FLOWS.get_ptr_mut(key).map(|flow| unsafe { &mut *flow })
}
