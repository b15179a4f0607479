//! What would become of a packet of the mesh: the same questions in the same order as [`crate::mesh`], with nothing written but
//! this CPU's working memory and the answer. By `BPF_PROG_TEST_RUN` only; a property test holds it against the real thing.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::TcContext;
use peer_common::route::NO_ROUTE;
use peer_common::{Config, DropReason, EventKind, Flow, FlowEvent, FlowKind, Judged, Way};

use crate::maps::{DESCRIBED, Scratch, config, scratch};
use crate::mesh::{ask, flow_of};
use crate::parse::{ETH_LEN, parse};
use crate::stats::failed;
use crate::verifier::value;
use crate::{fib, flow, fragment, judge, nat, next_hop, observe};

#[inline(always)]
pub fn packet(ctx: &TcContext) -> i32 {
    let (Some(config), Some(work), Some(event)) = (config(), scratch(), value(&DESCRIBED, 0)) else {
        return TC_ACT_UNSPEC;
    };
    // SAFETY: one run at a time, by the daemon; the helper takes nothing, reads a clock.
    let (event, now) = unsafe { (&mut *event, bpf_ktime_get_coarse_ns()) };
    observe::clear(event);
    (event.event, event.time) = (EventKind::Traced as u8, now);
    let verdict = match ask_all(ctx, config, work, event, now) {
        Ok(()) => 0,
        Err(reason) => reason as u32 + 1,
    };
    observe::set_packet(event, work, &work.packet.key, Way::FromMesh as u32, verdict);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn ask_all(
    ctx: &TcContext,
    config: &Config,
    work: &mut Scratch,
    event: &mut FlowEvent,
    now: u64,
) -> Result<(), DropReason> {
    if config.wt0 == 0 {
        return Err(DropReason::Internal);
    }
    work.query.begin(config);
    parse::<ETH_LEN>(ctx, &mut work.packet)?;
    fragment::complete(&mut work.packet, &mut work.fragment, now);
    let known = if work.packet.unjudged.is_none() { flow_of(&work.packet.key) } else { None };
    match known {
        Some(flow) => known_flow(ctx, config, work, flow, event, now)?,
        None => new_flow(ctx, config, work, event, now)?,
    }
    if event.uplink == 0 {
        return Ok(());
    }
    if work.packet.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    if !flow::fits(&work.packet, 0, event.mtu) {
        work.mtu = event.mtu;
        return Err(DropReason::TooBig);
    }
    if next_hop::has_failed(&mut work.hop) { Err(DropReason::HostUnreachable) } else { Ok(()) }
}

#[inline(always)]
fn known_flow(
    ctx: &TcContext,
    config: &Config,
    work: &mut Scratch,
    flow: &Flow,
    event: &mut FlowEvent,
    now: u64,
) -> Result<(), DropReason> {
    observe::set_flow(event, flow);
    if flow.policy_generation != work.query.generation {
        if flow.kind == FlowKind::FromNode as u8 {
            judge::peer_of(&mut work.query.keys, &work.packet.key.src).ok_or(DropReason::ForeignSource)?;
        } else {
            work.query.judged = Judged::Again as u8;
            failed(ask(work))?;
            let routed = flow.kind == FlowKind::FromLan as u8 && work.query.kind == FlowKind::Routed as u8;
            if work.query.kind != flow.kind && !routed {
                return Err(DropReason::SourceChanged);
            }
        }
    }
    if flow.next_hop != 0 && next_hop::current(flow).is_none() {
        let route = judge::route_to(&mut work.query.keys, &work.packet.key.dst).ok_or(DropReason::NoRoute)?;
        failed(fib::resolve(ctx, config, route, &work.packet.key, &mut work.hop))?;
        if flow.kind == FlowKind::Masqueraded as u8
            && work.hop.entry.source != flow.nat_addr
            && !fib::may_keep_source(next_hop::uplink(flow), &work.hop.entry, &flow.nat_addr)
        {
            return Err(DropReason::SourceChanged);
        }
        set_hop(event, work);
    } else if let Some(hop) = next_hop::current(flow) {
        work.hop.entry = *hop;
    }
    let local = flow.kind == FlowKind::ToNode as u8 || flow.kind == FlowKind::FromNode as u8;
    if !local && flow::may_lack_mapping(flow, now) && nat::mapping_lost(work, flow) {
        return Err(DropReason::SourceChanged);
    }
    Ok(())
}

#[inline(always)]
fn new_flow(
    ctx: &TcContext,
    config: &Config,
    work: &mut Scratch,
    event: &mut FlowEvent,
    now: u64,
) -> Result<(), DropReason> {
    work.query.judged = Judged::New as u8;
    failed(ask(work))?;
    let for_node = work.query.route.id == NO_ROUTE;
    event.kind = work.query.kind;
    if work.packet.unjudged.is_some() || !judge::opens(&work.packet) {
        event.kind = 0;
        return if for_node { Ok(()) } else { Err(DropReason::IcmpType) };
    }
    if !flow::quota_left(config, work.query.peer_id) {
        return Err(DropReason::PeerQuota);
    }
    if for_node {
        return Ok(());
    }
    let masquerade = work.query.kind == FlowKind::Masqueraded as u8;
    match fib::resolve(ctx, config, &work.query.route, &work.packet.key, &mut work.hop) {
        0 => {}
        // A source that is kept may also leave by the kernel's own forwarding.
        code if code == DropReason::NotUplink as u32 + 1 && !masquerade => return Ok(()),
        code => return failed(code),
    }
    set_hop(event, work);
    if !masquerade {
        (event.nat_addr, event.nat_port) = (work.packet.key.src, work.packet.key.src_port);
        return Ok(());
    }
    if work.hop.entry.source.is_none() {
        return Err(DropReason::NoSourceAddress);
    }
    flow::begin(work, work.query.kind, now);
    work.flow.peer_id = work.query.peer_id;
    work.flow.nat_addr = work.hop.entry.source;
    event.nat_addr = work.hop.entry.source;
    failed(nat::find_port(ctx, config, work, ETH_LEN as u32))?;
    event.nat_port = work.flow.nat_port;
    Ok(())
}

#[inline(always)]
fn set_hop(event: &mut FlowEvent, work: &Scratch) {
    let hop = &work.hop.entry;
    (event.uplink, event.next_hop, event.mtu) = (hop.uplink, hop.addr, hop.mtu);
}
