//! Uplink ingress: replies to what was forwarded. Whatever is not exactly ours goes on untouched.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::TcContext;
use peer_common::{Config, Counter, Direction, DropReason, FlowKey, FlowKind, Judged, Mapping, Observe, Way};

use crate::judge::Query;
use crate::maps::{FLOWS, MAPPINGS, Scratch, config, scratch, uplink};
use crate::parse::{IPPROTO_TCP, Packet, TCP_SYN, parse};
use crate::rewrite::{self, End, Translation};
use crate::stats::failed;
use crate::verifier::opaque_address;
use crate::{answer, family, flow, fragment, icmp, judge, mss, observe, redirect, reset, stats, tcp};

#[inline(always)]
pub fn ingress<const L2: usize>(ctx: &TcContext) -> i32 {
    let Some(work) = scratch() else { return TC_ACT_UNSPEC };
    // SAFETY: takes nothing, reads a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let Some(config) = config() else { return TC_ACT_UNSPEC };
    work.query.begin(config);
    let Some((mapping, is_error)) = ours::<L2>(ctx, work, now) else {
        stats::count(Counter::UplinkNext, 1);
        if config.observe & Observe::TRACE != 0 {
            passed_on(config, work);
        }
        return TC_ACT_UNSPEC;
    };
    let passed =
        if is_error { error::<L2>(ctx, config, work, mapping) } else { reply::<L2>(ctx, config, work, mapping, now) };
    match passed {
        Ok(action) => {
            if config.observe & Observe::TRACE != 0 {
                told(config, work, mapping, is_error, 0);
            }
            action
        }
        Err(reason) => {
            stats::count_drop(reason, work.packet.len);
            work.mtu = config.wt0_mtu;
            told(config, work, mapping, is_error, reason as u32 + 1);
            answer::<L2>(ctx, config, work, mapping, reason).unwrap_or(TC_ACT_SHOT)
        }
    }
}

/// Tells the daemon of a packet, under the tuple of its flow.
#[inline(always)]
fn told(config: &Config, work: &mut Scratch, mapping: &Mapping, is_error: bool, verdict: u32) {
    let Scratch { packet, reply, query, .. } = &mut *work;
    if is_error {
        // SAFETY: the same reply; of an address that the compiler knows it would make one with a variable distance.
        flow::set_asked(&mut query.key, unsafe { &*opaque_address(reply) }, mapping);
    } else {
        flow::set_asked(&mut query.key, &packet.key, mapping);
    }
    observe::verdict(config, work, &work.query.key, Way::FromUplink, verdict);
}

/// Tells the daemon of a packet that belongs to no flow. Its tuple is turned as that of an answer would be.
#[inline(always)]
fn passed_on(config: &Config, work: &mut Scratch) {
    let key = &work.packet.key;
    flow::set_reply(&mut work.query.key, key, &key.src, key.src_port);
    observe::passed_on(config, work, &work.query.key);
}

/// Tells the sender why its reply went no further, where it can do something about it.
#[inline(always)]
fn answer<const L2: usize>(
    ctx: &TcContext,
    config: &Config,
    work: &mut Scratch,
    mapping: &mut Mapping,
    reason: DropReason,
) -> Option<i32> {
    if answer::ends_connection(work, reason) {
        return reset::by_uplink::<L2>(ctx, config, work, mapping, reason);
    }
    let error = match reason {
        DropReason::TtlExceeded => icmp::Error::TIME_EXCEEDED,
        DropReason::TooBig => icmp::Error::too_big(config.wt0_mtu),
        _ => return None,
    };
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is the kernel's.
    let ifindex = unsafe { (*skb).ifindex };
    let uplink = uplink(ifindex)?;
    let source = family::choose(work.packet.is_v4, &uplink.addr4, &uplink.addr6);
    if !icmp::turn::<L2>(ctx, &work.packet, &mut work.error, &source, error) {
        return None;
    }
    redirect::back(ctx, ifindex)
}

/// The mapping that the packet answers, if any. A tagged packet belongs to another device.
#[inline(always)]
fn ours<const L2: usize>(ctx: &TcContext, work: &mut Scratch, now: u64) -> Option<(&'static mut Mapping, bool)> {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is the kernel's.
    if unsafe { (*skb).vlan_present } != 0 {
        return None;
    }
    parse::<L2>(ctx, &mut work.packet).ok()?;
    // What another protocol carries may look like IP.
    const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
    const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;
    // SAFETY: as above.
    let protocol = unsafe { (*skb).protocol };
    if protocol != if work.packet.is_v4 { ETH_P_IP } else { ETH_P_IPV6 } {
        return None;
    }
    fragment::complete(&mut work.packet, &mut work.fragment, now);
    let (mapping, is_error) = match work.packet.unjudged {
        None => (MAPPINGS.get_ptr_mut(&work.packet.key)?, false),
        // To the one who sent what it quotes: anything else is not about us.
        Some(DropReason::IcmpType) => {
            if !icmp::read_quoted::<L2>(ctx, &work.packet, &mut work.quoted)
                || work.quoted.key.src != work.packet.key.dst
            {
                return None;
            }
            let quoted = &work.quoted.key;
            flow::set_reply(&mut work.reply, quoted, &quoted.src, quoted.src_port);
            (MAPPINGS.get_ptr_mut(&work.reply)?, true)
        }
        Some(_) => return None,
    };
    // SAFETY: a map value lives until the program ends, whatever becomes of its entry; fields are written one by one.
    Some((unsafe { &mut *mapping }, is_error))
}

/// An ICMP error about a packet that we forwarded. It refreshes nothing (RFC 5508 REQ-6).
#[inline(always)]
fn error<const L2: usize>(
    ctx: &TcContext,
    config: &Config,
    work: &mut Scratch,
    mapping: &mut Mapping,
) -> Result<i32, DropReason> {
    if mapping.policy_generation != work.query.generation {
        judge_again(&work.reply, &mut work.query, mapping)?;
    }
    // Our port, so that nobody else is spoken of: what does not fit is not passed on to the node either.
    if work.quoted.key.protocol == IPPROTO_TCP && !was_sent(work, mapping) {
        return Err(DropReason::IcmpUnmatched);
    }
    if work.packet.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    stats::count(Counter::IcmpErrors, 1);
    rewrite::decrement_ttl::<L2>(ctx, &work.packet)?;
    if mapping.kind == FlowKind::Masqueraded as u8 {
        let (addr, port) = (&mapping.peer_addr, mapping.peer_port);
        rewrite::translate_error::<L2>(ctx, &work.packet, &work.quoted, End::Destination, addr, port)?;
    }
    Ok(redirect::to_mesh(ctx, config.wt0))
}

/// Whether the peer has sent the segment that is quoted, and has no answer to it yet.
#[inline(always)]
fn was_sent(work: &mut Scratch, mapping: &Mapping) -> bool {
    let Scratch { reply, quoted, query, .. } = work;
    flow::set_asked(&mut query.key, reply, mapping);
    // SAFETY: read only.
    let Some(flow) = (unsafe { FLOWS.get(&query.key) }) else { return true };
    tcp::on_the_way(quoted.seq, (&flow.tcp, flow.tcp_seen), (&mapping.tcp, mapping.tcp_seen))
}

#[inline(always)]
fn reply<const L2: usize>(
    ctx: &TcContext,
    config: &Config,
    work: &mut Scratch,
    mapping: &mut Mapping,
    now: u64,
) -> Result<i32, DropReason> {
    fragment::remember(&work.packet, &mut work.fragment, now);
    let packet = &work.packet;
    if mapping.policy_generation != work.query.generation {
        judge_again(&packet.key, &mut work.query, mapping)?;
    }
    if packet.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let gso_size = flow::gso_size(ctx);
    // What may be fragmented is, by the daemon.
    if packet.whole && !flow::fits(packet, gso_size, config.wt0_mtu) {
        return Err(DropReason::TooBig);
    }
    let segments = stats::segments(packet, gso_size);
    flow::touch_in(mapping, packet, segments, now);
    tcp::see_in::<L2>(ctx, work, mapping);
    let packet = &work.packet;
    stats::count(Counter::ForwardedIn, segments);
    stats::count_route(mapping.route_id, Direction::In, segments, packet.len as u64);
    mss::clamp::<L2>(ctx, packet, &raw const work.options, smaller_mtu(ctx, config, packet))?;
    let translation = Translation { end: End::Destination, addr: &mapping.peer_addr, port: mapping.peer_port };
    rewrite::forward::<L2>(ctx, packet, (mapping.kind == FlowKind::Masqueraded as u8).then_some(translation))?;
    Ok(redirect::to_mesh(ctx, config.wt0))
}

/// The smaller of both sides' MTU: what the answering side is told bounds what it is sent, too. Only a SYN needs it.
#[inline(always)]
fn smaller_mtu(ctx: &TcContext, config: &Config, packet: &Packet) -> u32 {
    if packet.tcp_flags & TCP_SYN == 0 {
        return config.wt0_mtu;
    }
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is the kernel's.
    let uplink = uplink(unsafe { (*skb).ifindex });
    uplink.map_or(config.wt0_mtu, |uplink| if uplink.mtu < config.wt0_mtu { uplink.mtu } else { config.wt0_mtu })
}

/// The policy has changed: a reply of a revoked flow must not pass either. The flow's own entry says so when a packet
/// of the mesh was first to notice.
#[inline(always)]
fn judge_again(reply: &FlowKey, query: &mut Query, mapping: &mut Mapping) -> Result<(), DropReason> {
    flow::set_asked(&mut query.key, reply, mapping);
    query.unjudged = None;
    // SAFETY: read only; fields are written one by one.
    let known = unsafe { FLOWS.get(&query.key) };
    match known {
        Some(flow) if flow.policy_generation == query.generation => mapping.route_id = flow.route_id,
        _ => {
            stats::count(Counter::FlowsRejudged, 1);
            query.judged = Judged::Again as u8;
            failed(judge::judge(query))?;
            mapping.route_id = query.route.id;
        }
    }
    mapping.policy_generation = query.generation;
    Ok(())
}
