//! Uplink ingress: replies to what was forwarded. Whatever is not exactly ours goes on untouched.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::TcContext;
use peer_common::route::NO_ROUTE;
use peer_common::{Config, Counter, Direction, DropReason, FlowKey, FlowKind, Mapping};

use crate::flow;
use crate::judge;
use crate::maps::{CONFIG, FLOWS, MAPPINGS, scratch};
use crate::parse::{Packet, parse};
use crate::redirect;
use crate::rewrite::{self, End};
use crate::stats;

#[inline(always)]
pub fn ingress<const L2: usize>(ctx: &TcContext) -> i32 {
    let Some(work) = scratch() else { return TC_ACT_UNSPEC };
    let packet = &mut work.packet;
    let Some((config, mapping)) = ours::<L2>(ctx, packet) else {
        stats::count(Counter::UplinkNext, 1);
        return TC_ACT_UNSPEC;
    };
    match reply::<L2>(ctx, config, packet, mapping) {
        Ok(action) => action,
        Err(reason) => {
            stats::count_drop(reason, packet.len);
            TC_ACT_SHOT
        }
    }
}

/// The mapping that the packet answers, if any. A tagged packet belongs to another device.
#[inline(always)]
fn ours<const L2: usize>(ctx: &TcContext, packet: &mut Packet) -> Option<(&'static Config, &'static mut Mapping)> {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is the kernel's.
    if unsafe { (*skb).vlan_present } != 0 {
        return None;
    }
    if parse::<L2>(ctx, packet).is_err() || packet.unjudged.is_some() {
        return None;
    }
    let mapping = MAPPINGS.get_ptr_mut(&packet.key)?;
    let config = CONFIG.get(0)?;
    // SAFETY: a map value lives until the program ends, whatever becomes of its entry; fields are written one by one.
    Some((config, unsafe { &mut *mapping }))
}

#[inline(always)]
fn reply<const L2: usize>(
    ctx: &TcContext,
    config: &Config,
    packet: &Packet,
    mapping: &mut Mapping,
) -> Result<i32, DropReason> {
    if mapping.policy_generation != config.policy_generation {
        judge_again(config, &packet.key, mapping)?;
    }
    if packet.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let gso_size = flow::gso_size(ctx);
    if !flow::fits(packet, gso_size, config.wt0_mtu) {
        return Err(DropReason::TooBig);
    }
    let segments = stats::segments(packet, gso_size);
    // SAFETY: takes nothing, reads a clock.
    flow::touch_in(mapping, packet, segments, unsafe { bpf_ktime_get_coarse_ns() });
    stats::count(Counter::ForwardedIn, segments);
    stats::count_route(mapping.route_id, Direction::In, segments, packet.len as u64);
    rewrite::decrement_ttl::<L2>(ctx, packet)?;
    if mapping.kind == FlowKind::Masqueraded as u8 {
        rewrite::translate::<L2>(ctx, packet, End::Destination, &mapping.peer_addr, mapping.peer_port)?;
    }
    Ok(redirect::to_mesh(ctx, config.wt0))
}

/// The policy has changed: a reply of a revoked flow must not pass either. The flow's own entry says so when a packet
/// of the mesh was first to notice.
#[inline(always)]
fn judge_again(config: &Config, key: &FlowKey, mapping: &mut Mapping) -> Result<(), DropReason> {
    let forward = FlowKey {
        src: mapping.peer_addr,
        dst: key.src,
        src_port: mapping.peer_port,
        dst_port: key.src_port,
        protocol: key.protocol,
    };
    // SAFETY: read only; fields are written one by one.
    let known = unsafe { FLOWS.get(forward) };
    match known {
        Some(flow) if flow.policy_generation == config.policy_generation => mapping.route_id = flow.route_id,
        _ => {
            stats::count(Counter::FlowsRejudged, 1);
            let accepted = judge::judge(config, &forward, None)?;
            mapping.route_id = accepted.route.map_or(NO_ROUTE, |route| route.id);
        }
    }
    mapping.policy_generation = config.policy_generation;
    Ok(())
}
