//! What the programs tell the daemon: flows that open and are forgotten, packets that are dropped, packets that somebody
//! follows. Each record is made in this CPU's own memory and then copied to the ring buffer; when nobody listens, all that
//! it costs is a look at the configuration.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use peer_common::route::NO_ROUTE;
use peer_common::{
    Addr, Config, Counter, DropReason, EventKind, Flow, FlowEvent, FlowKey, Judged, Mapping, Observe, TraceFilter, Way,
};

use crate::maps::{EVENT, EVENT_BUDGETS, EVENTS, FLOWS, MAPPINGS, NEXT_HOPS, Scratch, TRACE, config};
use crate::stats;
use crate::verifier::value;

/// Records that a CPU may make at once, of each kind.
const BURST: u32 = 1024;
/// Nanoseconds between two followed packets of a CPU, and how many at once.
const TRACE_INTERVAL: u64 = 1_000_000;
const TRACE_BURST: u32 = 256;

/// Which budget.
#[repr(u32)]
#[derive(Clone, Copy)]
enum Of {
    Flows,
    Drops,
    Traces,
}

/// Budgets of a CPU.
pub const BUDGETS: u32 = 3;

/// Tells of a flow that was opened. Returns 0, as functions of their own must return something.
#[inline(never)]
pub fn opened(key: &FlowKey, flow: &Flow) -> u32 {
    let Some(config) = config() else { return 0 };
    if config.observe & Observe::FLOWS == 0 || !may_tell(Of::Flows, config.event_interval as u64, BURST) {
        return 0;
    }
    let Some(event) = begin(EventKind::Opened) else { return 0 };
    event.key = *key;
    set_flow(event, flow);
    tell(event);
    0
}

/// Prepares what is told of a flow that is about to be forgotten, while it and its mapping are still there. Returns whether
/// it is to be told: by [`tell_closed`], once it is gone. `why`: what would have befallen a packet otherwise.
#[inline(never)]
pub fn closing(key: &FlowKey, flow: &Flow, reply: &FlowKey, why: DropReason) -> u32 {
    let Some(config) = config() else { return 0 };
    if config.observe & Observe::FLOWS == 0 || !may_tell(Of::Flows, config.event_interval as u64, BURST) {
        return 0;
    }
    let Some(event) = begin(EventKind::Closed) else { return 0 };
    event.key = *key;
    set_flow(event, flow);
    set_answers(event, key, reply);
    event.verdict = why as u32 + 1;
    1
}

/// Tells what [`closing`] has prepared.
#[inline(always)]
pub fn tell_closed() {
    if let Some(event) = value(&EVENT, 0) {
        // SAFETY: this CPU's own.
        tell(unsafe { &mut *event });
    }
}

/// What was decided of a packet, to be told if anybody wants to know. `key` is the tuple as it enters from the mesh, or would;
/// `verdict` 0 or a drop reason plus 1.
#[inline(always)]
pub fn verdict(config: &Config, work: &Scratch, key: &FlowKey, way: Way, verdict: u32) {
    let wanted = if verdict == 0 { Observe::TRACE } else { Observe::TRACE | Observe::DROPS };
    if config.observe & wanted != 0 {
        told(config, work, key, way as u32, verdict);
    }
}

/// Returns 0, as functions of their own must return something.
#[inline(never)]
fn told(config: &Config, work: &Scratch, key: &FlowKey, way: u32, verdict: u32) -> u32 {
    if config.observe & Observe::TRACE != 0 {
        if let Some(event) = begin(EventKind::Traced) {
            set_packet(event, work, key, way, verdict);
            // By the tuple in the record: what could not be read has none.
            if followed(&event.key, way) && may_tell(Of::Traces, TRACE_INTERVAL, TRACE_BURST) {
                set_known(event, key, verdict);
                tell(event);
            }
        }
    }
    if verdict != 0 && config.observe & Observe::DROPS != 0 && may_tell(Of::Drops, config.event_interval as u64, BURST)
    {
        if let Some(event) = begin(EventKind::Dropped) {
            set_packet(event, work, key, way, verdict);
            tell(event);
        }
    }
    0
}

/// Whether somebody follows packets of this tuple. What an uplink passes on belongs to no flow: its other end counts.
#[inline(always)]
fn followed(key: &FlowKey, way: u32) -> bool {
    let Some(filter) = value(&TRACE, 0) else { return false };
    // SAFETY: an array's value lives as long as the program; the helper takes nothing, reads a clock.
    let (filter, now): (&TraceFilter, u64) = unsafe { (&*filter, bpf_ktime_get_coarse_ns()) };
    now < filter.until && filter.takes(key, way != Way::Unmatched as u32)
}

/// As [`verdict`], of what an uplink passes on because it belongs to no flow.
#[inline(always)]
pub fn passed_on(config: &Config, work: &Scratch, key: &FlowKey) {
    if config.observe & Observe::TRACE != 0 {
        told(config, work, key, Way::Unmatched as u32, 0);
    }
}

/// What is known of the packet itself and of the rules that it was judged by.
#[inline(always)]
pub fn set_packet(event: &mut FlowEvent, work: &Scratch, key: &FlowKey, way: u32, verdict: u32) {
    event.verdict = verdict;
    event.way = way as u8;
    if verdict == DropReason::Malformed as u32 + 1 {
        return;
    }
    let packet = &work.packet;
    event.key = *key;
    (event.len, event.ttl, event.tcp_flags) = (packet.len, packet.ttl, packet.tcp_flags);
    let query = &work.query;
    event.judged = query.judged;
    event.policy_generation = query.generation;
    if query.judged != Judged::Not as u8 {
        (event.peer_id, event.policy_id, event.route_id) = (query.peer_id, query.policy_id, query.route.id);
        (event.identity, event.class) = (query.identity, query.class);
    }
    if verdict == DropReason::TooBig as u32 + 1 {
        event.mtu = work.mtu;
    }
}

/// What the tables hold of the flow. Of a packet that is dropped, what the rules say now stays as it is.
#[inline(always)]
fn set_known(event: &mut FlowEvent, key: &FlowKey, verdict: u32) {
    if verdict == DropReason::Malformed as u32 + 1 {
        return;
    }
    // SAFETY: read only; fields are written one by one.
    let Some(flow) = (unsafe { FLOWS.get(key) }) else { return };
    let (rule, peer, route, generation) = (event.policy_id, event.peer_id, event.route_id, event.policy_generation);
    let mtu = event.mtu;
    set_flow(event, flow);
    event.policy_generation = generation;
    if event.judged != Judged::Not as u8 {
        (event.policy_id, event.peer_id, event.route_id) = (rule, peer, route);
    }
    if mtu != 0 {
        event.mtu = mtu;
    }
}

#[inline(always)]
pub fn set_flow(event: &mut FlowEvent, flow: &Flow) {
    event.created = flow.created;
    (event.packets, event.bytes) = (flow.packets, flow.bytes);
    (event.nat_addr, event.nat_port) = (flow.nat_addr, flow.nat_port);
    set_hop(event, flow);
    (event.route_id, event.policy_id, event.peer_id) = (flow.route_id, flow.policy_id, flow.peer_id);
    event.policy_generation = flow.policy_generation;
    event.kind = flow.kind;
}

/// The next hop as its entry says, in force or not.
#[inline(always)]
fn set_hop(event: &mut FlowEvent, flow: &Flow) {
    (event.next_hop, event.uplink, event.mtu) = (Addr::NONE, 0, 0);
    if flow.next_hop == 0 {
        return;
    }
    if let Some(hop) = value(&NEXT_HOPS, flow.next_hop) {
        // SAFETY: an array's value lives as long as the program.
        let hop = unsafe { &*hop };
        (event.next_hop, event.uplink, event.mtu) = (hop.addr, hop.uplink, hop.mtu);
    }
}

/// What came back, as the mapping has counted it.
#[inline(always)]
fn set_answers(event: &mut FlowEvent, key: &FlowKey, reply: &FlowKey) {
    // SAFETY: as above.
    let Some(mapping): Option<&Mapping> = (unsafe { MAPPINGS.get(reply) }) else { return };
    if mapping.peer_addr == key.src && mapping.peer_port == key.src_port {
        (event.reply_packets, event.reply_bytes) = (mapping.packets, mapping.bytes);
    }
}

/// This CPU's record, empty but for kind and time.
#[inline(always)]
fn begin(kind: EventKind) -> Option<&'static mut FlowEvent> {
    let event = value(&EVENT, 0)?;
    // SAFETY: this CPU's own; the helper takes nothing, reads a clock.
    let (event, now) = unsafe { (&mut *event, bpf_ktime_get_coarse_ns()) };
    clear(event);
    (event.event, event.time) = (kind as u8, now);
    Some(event)
}

/// Word by word: what the compiler makes of one assignment may be a call of a function that is not there.
#[inline(always)]
pub fn clear(event: &mut FlowEvent) {
    event.created = 0;
    (event.packets, event.bytes, event.reply_packets, event.reply_bytes) = (0, 0, 0, 0);
    event.key = FlowKey { src: Addr::NONE, dst: Addr::NONE, src_port: 0, dst_port: 0, protocol: 0 };
    (event.nat_addr, event.next_hop) = (Addr::NONE, Addr::NONE);
    (event.uplink, event.route_id, event.policy_id, event.peer_id) = (0, NO_ROUTE, 0, 0);
    (event.identity, event.class, event.policy_generation, event.mtu) = (0, 0, 0, 0);
    (event.len, event.verdict, event.nat_port) = (0, 0, 0);
    (event.kind, event.way, event.judged, event.ttl, event.tcp_flags) = (0, 0, 0, 0, 0);
}

#[inline(always)]
fn may_tell(of: Of, interval: u64, burst: u32) -> bool {
    let Some(budget) = value(&EVENT_BUDGETS, of as u32) else { return false };
    // SAFETY: this CPU's own.
    let may = unsafe { (*budget).take(interval, burst) };
    if !may {
        stats::count(Counter::EventsLimited, 1);
    }
    may
}

#[inline(always)]
fn tell(event: &mut FlowEvent) {
    if EVENTS.output::<FlowEvent>(&*event, 0).is_err() {
        stats::count(Counter::EventsLost, 1);
    }
}
