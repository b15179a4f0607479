//! wt0 ingress: a packet of the mesh, already decrypted, on its way to the node or through it.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::TcContext;
use peer_common::route::NO_ROUTE;
use peer_common::{Config, Counter, Direction, DropReason, Flow, FlowKey, FlowKind, Route};

use crate::fib;
use crate::flow;
use crate::judge;
use crate::maps::{CONFIG, FLOWS, Scratch, scratch};
use crate::nat;
use crate::parse::{Packet, parse};
use crate::redirect;
use crate::rewrite::{self, End};
use crate::stats;

/// Layer 3 starts at `L2`: 0 on wt0, 14 behind a link header.
#[inline(always)]
pub fn ingress<const L2: usize>(ctx: &TcContext) -> i32 {
    match forward::<L2>(ctx) {
        Ok(action) => action,
        Err(reason) => {
            stats::count_drop(reason, ctx.len());
            crate::log_exhaustion(ctx, reason);
            TC_ACT_SHOT
        }
    }
}

#[inline(always)]
fn forward<const L2: usize>(ctx: &TcContext) -> Result<i32, DropReason> {
    let config = CONFIG.get(0).ok_or(DropReason::Internal)?;
    if config.wt0 == 0 {
        return Err(DropReason::Internal);
    }
    let work = scratch().ok_or(DropReason::Internal)?;
    parse::<L2>(ctx, &mut work.packet)?;
    // SAFETY: takes nothing, reads a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let known = if work.packet.unjudged.is_none() { flow_of(&work.packet.key) } else { None };
    let flow = match known {
        Some(flow) if flow.policy_generation == config.policy_generation => flow,
        known => match judged(ctx, config, work, known, now)? {
            Some(flow) => flow,
            None => {
                stats::count(Counter::ToNode, 1);
                return Ok(TC_ACT_UNSPEC);
            }
        },
    };
    if flow.uplink != 0 && flow.route_generation != config.route_generation {
        renew_hop(ctx, config, work, flow)?;
    }
    follow::<L2>(ctx, &work.packet, flow, now)
}

/// Judges a packet without a current flow: `known` is the one that an older policy accepted. Returns the flow that it
/// has now; `None` for what the node takes without one.
#[inline(always)]
fn judged(
    ctx: &TcContext,
    config: &Config,
    work: &mut Scratch,
    known: Option<&'static mut Flow>,
    now: u64,
) -> Result<Option<&'static mut Flow>, DropReason> {
    if let Some(flow) = known {
        stats::count(Counter::FlowsRejudged, 1);
        if flow.kind == FlowKind::FromNode as u8 {
            judge::peer_of(&work.packet.key.src).ok_or(DropReason::ForeignSource)?;
            flow.policy_generation = config.policy_generation;
            return Ok(Some(flow));
        }
        let accepted = judge::judge(config, &work.packet.key, None)?;
        // The LAN's own flows are routed ones; the rest is what the tables say now.
        let routed = flow.kind == FlowKind::FromLan as u8 && accepted.kind as u8 == FlowKind::Routed as u8;
        if accepted.kind as u8 != flow.kind && !routed {
            nat::forget(&work.packet.key, flow);
            return Err(DropReason::SourceChanged);
        }
        flow.policy_id = accepted.policy_id;
        flow.peer_id = accepted.peer_id;
        flow.route_id = accepted.route.map_or(NO_ROUTE, |route| route.id);
        flow.policy_generation = config.policy_generation;
        return Ok(Some(flow));
    }
    let accepted = judge::judge(config, &work.packet.key, work.packet.unjudged)?;
    if work.packet.unjudged.is_some() || !judge::opens(&work.packet) {
        // Only the node itself takes what opens no flow.
        return if accepted.route.is_none() { Ok(None) } else { Err(DropReason::IcmpType) };
    }
    flow::begin(work, config, accepted.kind as u8, now);
    work.flow.policy_id = accepted.policy_id;
    work.flow.peer_id = accepted.peer_id;
    match accepted.route {
        None => failed(flow::insert_local(&work.packet.key, &work.flow))?,
        Some(route) => failed(open(ctx, config, route, work))?,
    }
    match flow_of(&work.packet.key) {
        Some(flow) => Ok(Some(flow)),
        None => Err(DropReason::TableFull),
    }
}

/// Resolves the next hop again: routes have changed.
#[inline(always)]
fn renew_hop(ctx: &TcContext, config: &Config, work: &mut Scratch, flow: &mut Flow) -> Result<(), DropReason> {
    let route = judge::route_to(&work.packet.key.dst).ok_or(DropReason::NoRoute)?;
    failed(fib::resolve(ctx, config, route, &work.packet.key, &mut work.hop))?;
    if flow.kind == FlowKind::Masqueraded as u8 && work.hop.source != flow.nat_addr {
        nat::forget(&work.packet.key, flow);
        return Err(DropReason::SourceChanged);
    }
    flow.next_hop = work.hop.next_hop;
    flow.uplink = work.hop.uplink;
    flow.mtu = work.hop.mtu;
    flow.route_generation = config.route_generation;
    Ok(())
}

/// Opens `work.flow` by `route`. Returns 0, or a drop reason plus 1.
#[inline(always)]
fn open(ctx: &TcContext, config: &Config, route: &Route, work: &mut Scratch) -> u32 {
    let masquerade = route.flags & Route::MASQUERADE != 0;
    work.flow.route_id = route.id;
    match fib::resolve(ctx, config, route, &work.packet.key, &mut work.hop) {
        0 => {}
        // A source that is kept may also leave by the kernel's own forwarding.
        code if code == DropReason::NotUplink as u32 + 1 && !masquerade => {
            return flow::insert_local(&work.packet.key, &work.flow);
        }
        code => return code,
    }
    work.flow.next_hop = work.hop.next_hop;
    work.flow.uplink = work.hop.uplink;
    work.flow.mtu = work.hop.mtu;
    if !masquerade {
        return nat::open_routed(work);
    }
    work.flow.nat_addr = work.hop.source;
    if work.hop.source.is_none() {
        return DropReason::NoSourceAddress as u32 + 1;
    }
    nat::open_masqueraded(config, work)
}

/// Sends the packet the way of its flow.
#[inline(always)]
fn follow<const L2: usize>(ctx: &TcContext, packet: &Packet, flow: &mut Flow, now: u64) -> Result<i32, DropReason> {
    let gso_size = flow::gso_size(ctx);
    let segments = stats::segments(packet, gso_size);
    if flow.uplink == 0 {
        flow::touch_out(flow, packet, segments, now);
        stats::count(if flow.route_id == NO_ROUTE { Counter::ToNode } else { Counter::ToStack }, segments);
        return Ok(TC_ACT_UNSPEC);
    }
    if packet.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    if !flow::fits(packet, gso_size, flow.mtu) {
        return Err(DropReason::TooBig);
    }
    flow::touch_out(flow, packet, segments, now);
    stats::count(Counter::ForwardedOut, segments);
    stats::count_route(flow.route_id, Direction::Out, segments, packet.len as u64);
    rewrite::decrement_ttl::<L2>(ctx, packet)?;
    if flow.kind == FlowKind::Masqueraded as u8 {
        rewrite::translate::<L2>(ctx, packet, End::Source, &flow.nat_addr, flow.nat_port)?;
    }
    redirect::to_uplink::<L2>(ctx, flow.uplink, &flow.next_hop)
}

#[inline(always)]
fn flow_of(key: &FlowKey) -> Option<&'static mut Flow> {
    // SAFETY: a map value lives until the program ends, whatever becomes of its entry; fields are written one by one.
    FLOWS.get_ptr_mut(key).map(|flow| unsafe { &mut *flow })
}

#[inline(always)]
fn failed(code: u32) -> Result<(), DropReason> {
    match code {
        0 => Ok(()),
        // SAFETY: functions of their own return 0 or a reason plus 1.
        code => Err(unsafe { core::mem::transmute::<u32, DropReason>(code - 1) }),
    }
}
