//! wt0 egress: what the node itself sends into the mesh, and what the LAN does on routes that keep sources. The flow
//! that it leaves behind lets the answer in through default deny.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::TcContext;
use peer_common::layout::REDIRECTED_MARK;
use peer_common::route::NO_ROUTE;
use peer_common::{Config, Counter, Direction, DropReason, FlowKind, LocalKind, Route, Way};

use crate::maps::{FLOWS, LOCALS, Scratch, config, scratch};
use crate::parse::parse;
use crate::{flow, fragment, judge, mss, nat, observe, stats, tcp_options};

#[inline(always)]
pub fn egress<const L2: usize>(ctx: &TcContext) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is the kernel's.
    unsafe {
        if (*skb).mark == REDIRECTED_MARK {
            // Judged and translated by uplink ingress.
            (*skb).mark = 0;
            return TC_ACT_UNSPEC;
        }
    }
    let (Some(config), Some(work)) = (config(), scratch()) else {
        stats::count_drop(DropReason::Internal, ctx.len());
        return TC_ACT_SHOT;
    };
    match send::<L2>(ctx, config, work) {
        Ok(()) => {
            observe::verdict(config, work, &work.packet.key, Way::ToMesh, 0);
            TC_ACT_UNSPEC
        }
        Err(reason) => {
            stats::count_drop(reason, ctx.len());
            observe::verdict(config, work, &work.packet.key, Way::ToMesh, reason as u32 + 1);
            TC_ACT_SHOT
        }
    }
}

#[inline(always)]
fn send<const L2: usize>(ctx: &TcContext, config: &Config, work: &mut Scratch) -> Result<(), DropReason> {
    work.query.begin(config);
    parse::<L2>(ctx, &mut work.packet)?;
    // SAFETY: takes nothing, reads a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    fragment::complete(&mut work.packet, &mut work.fragment, now);
    // SAFETY: values are replaced whole by the daemon.
    let own =
        unsafe { LOCALS.get(&work.packet.key.src) }.is_some_and(|local| local.kind != LocalKind::Broadcast as u32);
    let segments = stats::segments(&work.packet, flow::gso_size(ctx));
    stats::count(Counter::FromNode, segments);
    if work.packet.unjudged.is_some() {
        // Fragments and errors of the node's own; what the LAN sends must name a flow.
        let reason = work.packet.unjudged.unwrap_or(DropReason::NoRoute);
        turn(work);
        return if own { Ok(()) } else { Err(reason) };
    }
    // What is needed of it, at once: on ways that the CPU only may take ahead, the verifier would not find its address.
    let (route_id, masquerade) = if own {
        (NO_ROUTE, false)
    } else {
        match judge::route_to(&mut work.query.keys, &work.packet.key.src) {
            Some(route) => (route.id, route.flags & Route::MASQUERADE != 0),
            None => {
                turn(work);
                return Err(DropReason::NoRoute);
            }
        }
    };
    fragment::remember(&work.packet, &mut work.fragment, now);
    turn(work);
    if mss::may_have(&work.packet) {
        tcp_options::read::<L2>(ctx, &work.packet, &raw mut work.options);
    }
    mss::clamp::<L2>(ctx, &work.packet, &raw const work.options, config.wt0_mtu)?;
    if let Some(flow) = FLOWS.get_ptr_mut(&work.packet.key) {
        stats::count_route(route_id, Direction::In, segments, work.packet.len as u64);
        // SAFETY: a map value lives until the program ends, whatever becomes of its entry.
        flow::touch_from_node(unsafe { &mut *flow }, now);
        return Ok(());
    }
    if masquerade {
        return Err(DropReason::NoRoute);
    }
    let kind = if own { FlowKind::FromNode } else { FlowKind::FromLan };
    flow::begin(work, kind as u8, now);
    let failed = if own {
        flow::insert_local(&work.packet.key, &work.flow)
    } else {
        work.flow.route_id = route_id;
        nat::open_routed(work)
    };
    if failed != 0 {
        return Err(DropReason::TableFull);
    }
    stats::count_route(route_id, Direction::In, segments, work.packet.len as u64);
    Ok(())
}

/// Flows stand under the tuple that enters from the mesh.
#[inline(always)]
fn turn(work: &mut Scratch) {
    work.packet.key = work.packet.key.reversed();
}
