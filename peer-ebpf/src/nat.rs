//! Mappings: allocation without locks. The reverse entry goes in first and only if it is new: that is the reservation.
//!
//! A flow takes the first free port of those probed. Where ports towards its remote run out, [`peer_common::reuse`] says which
//! mapping gives its own away, and [`peer_common::ports`] how many a peer may have: nothing of that costs a flow anything
//! while there are free ports, but for the two counters.

use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_loop;
use aya_ebpf::programs::TcContext;
use peer_common::hash::siphash13;
use peer_common::ports::{self, pair};
use peer_common::reuse::{self, Newcomer};
use peer_common::{Config, Counter, DropReason, Flow, FlowKey, FlowKind, Mapping, TcpWindow};

use crate::maps::{FLOWS, MAPPINGS, MEMBER_PORTS, REMOTE_PORTS, Scratch, config, scratch};
use crate::parse::{IPPROTO_TCP, IPPROTO_UDP, TCP_ACK, TCP_SYN};
use crate::verifier::value;
use crate::{flow, observe, socket, stats, tcp_options};

/// Ports tried before any other flow's is taken. Ports are overloaded per remote endpoint, so that a collision needs many flows
/// to one and the same endpoint.
const PROBES: u32 = 32;
/// Ports looked at after that, and mappings that may be taken at which the look ends: the oldest of them goes. A peer
/// bound to its own, an eighth of all, misses them once in 2.6 × 10⁷ times.
const SCARCE_PROBES: u32 = 128;
const ENOUGH: u32 = 8;

const EEXIST: i32 = -17;

/// The search for a port.
#[repr(C)]
pub struct Search {
    min: u32,
    range: u32,
    offset: u32,
    step: u32,
    /// 0, or a drop reason plus 1; [`SEARCHING`] until then.
    outcome: u32,
    /// Not 0: ports are scarce, and the peer has its share. No free one is for it.
    bound: u32,
    /// Mappings met that may be taken.
    found: u32,
    /// Port of the best one, network byte order, ...
    port: u32,
    /// ... and what [`reuse::rank`] said of it; 0: none yet.
    rank: u64,
    new: Newcomer,
    pad: u32,
    /// The flow that has that mapping.
    old: FlowKey,
}

const SEARCHING: u32 = u32::MAX;

type Step = extern "C" fn(u32, *mut c_void) -> i64;

/// Opens `work.flow` for the packet's key with the mapping that undoes it; `nat_addr` is set by the caller. Another CPU
/// may have opened the same flow: then its entry stands. Layer 3 starts at `l2`. Returns 0, or a drop reason plus 1.
#[inline(never)]
pub fn open_masqueraded(ctx: &TcContext, config: &Config, work: *mut Scratch, l2: u32) -> u32 {
    // SAFETY: this CPU's own; no reference into it lives while the callback has its own.
    if !begin_search(config, unsafe { &mut *work }) {
        return DropReason::PortsExhausted as u32 + 1;
    }
    match search(ctx, work, step::<false>) {
        SEARCHING => open_reusing(ctx, work, l2),
        outcome => outcome,
    }
}

/// As [`open_masqueraded`], but writes nothing: `work.flow` gets the port that the flow would get.
#[inline(never)]
pub fn find_port(ctx: &TcContext, config: &Config, work: *mut Scratch, l2: u32) -> u32 {
    // SAFETY: as there.
    if !begin_search(config, unsafe { &mut *work }) {
        return DropReason::PortsExhausted as u32 + 1;
    }
    match search(ctx, work, step::<true>) {
        SEARCHING => find_reusable(ctx, work, l2),
        outcome => outcome,
    }
}

/// The search among free ports, unless the peer may have none of them.
#[inline(always)]
fn search(ctx: &TcContext, work: *mut Scratch, step: Step) -> u32 {
    // SAFETY: as in `open_masqueraded`.
    if unsafe { (*work).search.bound } != 0 { SEARCHING } else { run(ctx, work, PROBES, step) }
}

#[inline(always)]
fn run(ctx: &TcContext, work: *mut Scratch, probes: u32, step: Step) -> u32 {
    let mut context = ctx.as_ptr();
    // A loop of our own would be followed step by step by the verifier, and grow over its limit.
    // SAFETY: the callback has the signature that the helper wants; its context, a pointer, lives on the stack.
    unsafe {
        bpf_loop(probes, step as *mut c_void, (&raw mut context).cast(), 0);
        (*work).search.outcome
    }
}

/// Looks on, now for mappings that may be taken, too, and takes the best one. Returns as [`open_masqueraded`].
#[inline(never)]
fn open_reusing(ctx: &TcContext, work: *mut Scratch, l2: u32) -> u32 {
    // SAFETY: as in `open_masqueraded`.
    set_newcomer(ctx, unsafe { &mut *work }, l2);
    match run(ctx, work, SCARCE_PROBES, scarce_step::<false>) {
        // SAFETY: as in `open_masqueraded`.
        SEARCHING => take_over(unsafe { &mut *work }),
        outcome => outcome,
    }
}

/// As [`open_reusing`], but writes nothing.
#[inline(never)]
fn find_reusable(ctx: &TcContext, work: *mut Scratch, l2: u32) -> u32 {
    // SAFETY: as in `open_masqueraded`.
    set_newcomer(ctx, unsafe { &mut *work }, l2);
    match run(ctx, work, SCARCE_PROBES, scarce_step::<true>) {
        SEARCHING => {
            // SAFETY: as in `open_masqueraded`.
            let Scratch { flow, search, .. } = unsafe { &mut *work };
            flow.nat_port = search.port as u16;
            refusal(search)
        }
        outcome => outcome,
    }
}

/// What becomes of a flow that found no free port: 0 if there is a mapping to take, else a drop reason plus 1.
#[inline(always)]
fn refusal(search: &Search) -> u32 {
    match (search.rank, search.bound) {
        (0, 0) => DropReason::PortsExhausted as u32 + 1,
        (0, _) => DropReason::PortShare as u32 + 1,
        _ => 0,
    }
}

/// `false`: there are no ports.
#[inline(always)]
fn begin_search(config: &Config, work: &mut Scratch) -> bool {
    let Scratch { packet, flow, mapping, search, .. } = work;
    let key = &packet.key;
    set_mapping(mapping, key, flow);
    let range = config.nat_port_count as u32;
    if range < 2 {
        return false;
    }
    let hash = hash(config, key);
    let min = config.nat_port_min as u32;
    let wanted = u16::from_be(key.src_port) as u32;
    let keep = has_ports(key) && wanted >= min && wanted < min + range;
    (search.min, search.range) = (min, range);
    search.offset = if keep { wanted - min } else { (hash as u32) % range };
    // The range is a prime: every step visits all of it.
    search.step = 1 + ((hash >> 32) as u32) % (range - 1);
    search.outcome = SEARCHING;
    (search.found, search.port, search.rank) = (0, 0, 0);
    search.bound = is_bound(config, key, flow, range) as u32;
    true
}

/// Whether ports towards the remote are scarce, and the flow's peer has its share of them.
#[inline(always)]
fn is_bound(config: &Config, key: &FlowKey, flow: &Flow, range: u32) -> bool {
    let remote = ports::remote_hash(config.hash_key, key, &flow.nat_addr);
    // SAFETY: as in `count`.
    let used = |counter: Option<*mut u32>| counter.map_or(0, |count| unsafe { *count });
    ports::scarce(used(value(&REMOTE_PORTS, ports::remote_place(remote))), range)
        && used(value(&MEMBER_PORTS, ports::member_place(remote, flow.peer_id))) >= ports::share(range)
}

/// Counts a port that a masqueraded flow has taken, or given back.
#[inline(always)]
fn count(key: &FlowKey, flow: &Flow, taken: bool) {
    if flow.kind != FlowKind::Masqueraded as u8 {
        return;
    }
    let Some(config) = config() else { return };
    let remote = ports::remote_hash(config.hash_key, key, &flow.nat_addr);
    let change = |counter: Option<*mut u32>| {
        if let Some(counter) = counter {
            // SAFETY: a map value lives until the program ends. Another CPU's addition may get lost; the daemon counts anew
            // at each scan.
            unsafe { *counter = if taken { (*counter).saturating_add(1) } else { (*counter).saturating_sub(1) } };
        }
    };
    change(value(&REMOTE_PORTS, ports::remote_place(remote)));
    change(value(&MEMBER_PORTS, ports::member_place(remote, flow.peer_id)));
}

/// What the search for a mapping to take must know of the packet.
#[inline(always)]
fn set_newcomer(ctx: &TcContext, work: &mut Scratch, l2: u32) {
    let Scratch { packet, flow, options, search, .. } = work;
    let new = &mut search.new;
    (new.protocol, new.peer_id) = (packet.key.protocol, flow.peer_id);
    new.syn = new.protocol == IPPROTO_TCP && packet.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
    new.timestamped = false;
    if new.syn {
        let options = &raw mut *options;
        tcp_options::read_at(ctx, l2, packet, options);
        if let Some(timestamp) = tcp_options::timestamp(options) {
            (new.timestamped, new.timestamp) = (true, timestamp);
        }
    }
}

/// An identifier of ICMP is always fresh: Cilium tracks the whole range of them.
#[inline(always)]
fn has_ports(key: &FlowKey) -> bool {
    key.protocol == IPPROTO_TCP || key.protocol == IPPROTO_UDP
}

extern "C" fn step<const DRY: bool>(_index: u32, context: *mut c_void) -> i64 {
    let Some(work) = scratch() else { return 1 };
    // SAFETY: what `run` has put there: the context of the program.
    let ctx = TcContext::new(unsafe { *context.cast::<*mut c_void>() }.cast());
    next_port(work);
    work.search.outcome = try_port::<DRY>(&ctx, work);
    i64::from(work.search.outcome != SEARCHING)
}

extern "C" fn scarce_step<const DRY: bool>(_index: u32, context: *mut c_void) -> i64 {
    let Some(work) = scratch() else { return 1 };
    // SAFETY: as in `step`.
    let ctx = TcContext::new(unsafe { *context.cast::<*mut c_void>() }.cast());
    next_port(work);
    if MAPPINGS.get_ptr_mut(&work.reply).is_none() {
        if work.search.bound == 0 {
            work.search.outcome = try_port::<DRY>(&ctx, work);
        }
    } else {
        consider(&ctx, work);
    }
    i64::from(work.search.outcome != SEARCHING || work.search.found >= ENOUGH)
}

/// Sets `work.reply` to that of the next port.
#[inline(always)]
fn next_port(work: &mut Scratch) {
    let Scratch { packet, flow, reply, search, .. } = work;
    let port = ((search.min + search.offset) as u16).to_be();
    flow::set_reply(reply, &packet.key, &flow.nat_addr, port);
    // The range is not empty: compared here as well, because the verifier does not know.
    search.offset = (search.offset + search.step).checked_rem(search.range).unwrap_or(0);
}

/// Keeps the mapping of `work.reply` in mind if it may be taken, and is better than those before.
#[inline(never)]
fn consider(ctx: &TcContext, work: &mut Scratch) -> u32 {
    let Scratch { packet, flow, reply, tuple, search, query, .. } = work;
    let Some(mapping) = MAPPINGS.get_ptr_mut(&*reply) else { return 0 };
    // SAFETY: a map value lives until the program ends, whatever becomes of its entry.
    let mapping = unsafe { &*mapping };
    flow::set_asked(&mut query.key, reply, mapping);
    // SAFETY: as above; read only.
    let Some(old) = (unsafe { FLOWS.get(&query.key) }) else { return 0 };
    if old.nat_port != reply.dst_port || old.nat_addr != reply.dst || search.bound != 0 && old.peer_id != flow.peer_id {
        return 0;
    }
    let rank = reuse::rank(&search.new, old, mapping, flow.created);
    if rank == 0 || has_ports(&packet.key) && socket::uses(ctx, reply, tuple) {
        return 0;
    }
    search.found += 1;
    if rank > search.rank {
        (search.rank, search.port, search.old) = (rank, reply.dst_port as u32, query.key);
    }
    0
}

/// Takes the mapping that the search found from its flow, which is forgotten. Of two CPUs that want the same one the second finds
/// the flow gone, or the port reserved, and drops the packet: a SYN comes again, with the next one of the oldest.
#[inline(never)]
fn take_over(work: &mut Scratch) -> u32 {
    let Scratch { packet, flow, mapping, reply, search, .. } = work;
    let refused = refusal(search);
    if refused != 0 {
        return refused;
    }
    let exhausted = DropReason::PortsExhausted as u32 + 1;
    // SAFETY: a map value lives until the program ends, whatever becomes of its entry; read only.
    let Some(old) = (unsafe { FLOWS.get(&search.old) }) else { return exhausted };
    if forget_for(&search.old, old, reply, DropReason::PortsExhausted) == 0 {
        return exhausted;
    }
    flow.nat_port = search.port as u16;
    flow::set_reply(reply, &packet.key, &flow.nat_addr, flow.nat_port);
    match MAPPINGS.insert(&*reply, &*mapping, BPF_NOEXIST as u64) {
        Ok(()) => {
            stats::count(Counter::PortsReused, 1);
            insert_flow(&packet.key, flow, reply)
        }
        Err(_) => exhausted,
    }
}

/// Tries the port of `work.reply`; `DRY`: takes none. Returns what [`Search::outcome`] says.
#[inline(always)]
fn try_port<const DRY: bool>(ctx: &TcContext, work: &mut Scratch) -> u32 {
    let Scratch { packet, flow, mapping, reply, tuple, .. } = work;
    let key = &packet.key;
    let port = reply.dst_port;
    if has_ports(key) && socket::uses(ctx, reply, tuple) {
        if !DRY {
            stats::count(Counter::PortSockets, 1);
        }
        return SEARCHING;
    }
    if DRY {
        flow.nat_port = port;
        return if owner(key, reply) == Owner::Another { SEARCHING } else { 0 };
    }
    match MAPPINGS.insert(&*reply, &*mapping, BPF_NOEXIST as u64) {
        Ok(()) => {
            flow.nat_port = port;
            return insert_flow(key, flow, reply);
        }
        Err(EEXIST) => {}
        Err(_) => return DropReason::TableFull as u32 + 1,
    }
    if let Some(owner) = MAPPINGS.get_ptr_mut(&*reply) {
        // SAFETY: a map value lives until the program ends, whatever becomes of its entry.
        let owner = unsafe { &mut *owner };
        if owner.peer_addr == key.src && owner.peer_port == key.src_port {
            // Our own: made by another CPU just now, or left over from a flow whose forward entry was lost.
            owner.policy_generation = flow.policy_generation;
            flow.nat_port = port;
            return insert_flow(key, flow, reply);
        }
    }
    stats::count(Counter::PortProbes, 1);
    SEARCHING
}

/// Opens `flow` without translation: the mapping has the flow's own addresses.
#[inline(never)]
pub fn open_routed(work: &mut Scratch) -> u32 {
    let Scratch { packet, flow, mapping, reply, .. } = work;
    let key = &packet.key;
    flow.nat_addr = key.src;
    flow.nat_port = key.src_port;
    flow::set_reply(reply, key, &key.src, key.src_port);
    set_mapping(mapping, key, flow);
    match MAPPINGS.insert(&*reply, &*mapping, BPF_NOEXIST as u64) {
        Ok(()) | Err(EEXIST) => insert_flow(key, flow, reply),
        Err(_) => DropReason::TableFull as u32 + 1,
    }
}

/// Forgets a flow whose way has changed, and its mapping, unless that is another's by now.
#[inline(always)]
pub fn forget(key: &FlowKey, flow: &Flow, reply: &mut FlowKey) {
    forget_for(key, flow, reply, DropReason::SourceChanged);
}

/// As [`forget`], for another reason. Returns whether it was there.
#[inline(never)]
fn forget_for(key: &FlowKey, flow: &Flow, reply: &mut FlowKey, why: DropReason) -> u32 {
    flow::set_reply(reply, key, &flow.nat_addr, flow.nat_port);
    let told = observe::closing(key, flow, reply, why);
    let removed = FLOWS.remove(key).is_ok();
    if removed {
        flow::closed(flow);
        count(key, flow, false);
        if told != 0 {
            observe::tell_closed();
        }
    }
    // Of two CPUs that take one port only the first may: the mapping is the new flow's by then.
    if (removed || why as u32 != DropReason::PortsExhausted as u32) && owner(key, reply) == Owner::Us {
        let _ = MAPPINGS.remove(&*reply);
    }
    removed as u32
}

/// Whose the mapping of a reply is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Nobody,
    Us,
    Another,
}

/// Whose the mapping at `reply` is, seen from the flow of `key`.
#[inline(always)]
fn owner(key: &FlowKey, reply: &FlowKey) -> Owner {
    let Some(mapping) = MAPPINGS.get_ptr_mut(reply) else { return Owner::Nobody };
    // SAFETY: a map value lives until the program ends, whatever becomes of its entry.
    let mapping = unsafe { &*mapping };
    if mapping.peer_addr == key.src && mapping.peer_port == key.src_port { Owner::Us } else { Owner::Another }
}

/// Whether the mapping of a live flow belongs to another flow by now.
#[inline(always)]
pub fn mapping_lost(work: &mut Scratch, flow: &Flow) -> bool {
    let Scratch { packet, reply, .. } = work;
    flow::set_reply(reply, &packet.key, &flow.nat_addr, flow.nat_port);
    owner(&packet.key, reply) == Owner::Another
}

/// Puts the mapping of a live flow back if it is missing: the daemon may have taken it for expired just when a packet came.
/// `false`: it belongs to another flow by now.
#[inline(never)]
pub fn reassert(work: &mut Scratch, flow: &Flow) -> bool {
    let Scratch { packet, mapping, reply, .. } = work;
    let key = &packet.key;
    flow::set_reply(reply, key, &flow.nat_addr, flow.nat_port);
    match owner(key, reply) {
        Owner::Us => return true,
        Owner::Another => return false,
        Owner::Nobody => {}
    }
    set_mapping(mapping, key, flow);
    stats::count(Counter::MappingsHealed, 1);
    matches!(MAPPINGS.insert(&*reply, &*mapping, BPF_NOEXIST as u64), Ok(()))
}

#[inline(always)]
fn insert_flow(key: &FlowKey, flow: &mut Flow, reply: &FlowKey) -> u32 {
    match FLOWS.insert(key, &*flow, BPF_NOEXIST as u64) {
        Ok(()) => {
            flow::opened(key, flow);
            count(key, flow, true);
            0
        }
        Err(EEXIST) => {
            // Another CPU was first; when it took another port, ours is not needed.
            if let Some(winner) = FLOWS.get_ptr_mut(key) {
                // SAFETY: as above.
                let port = unsafe { (*winner).nat_port };
                if port != flow.nat_port {
                    let _ = MAPPINGS.remove(reply);
                    flow.nat_port = port;
                }
            }
            0
        }
        Err(_) => {
            let _ = MAPPINGS.remove(reply);
            DropReason::TableFull as u32 + 1
        }
    }
}

#[inline(always)]
fn set_mapping(mapping: &mut Mapping, key: &FlowKey, flow: &Flow) {
    *mapping = Mapping {
        peer_addr: key.src,
        last_seen: flow.last_seen,
        packets: 0,
        bytes: 0,
        policy_generation: flow.policy_generation,
        route_id: flow.route_id,
        peer_port: key.src_port,
        kind: flow.kind,
        tcp_seen: 0,
        tcp: TcpWindow::default(),
    };
}

/// Deterministic for the tuple, so that a lost mapping is made again as it was (most of the time).
#[inline(always)]
fn hash(config: &Config, key: &FlowKey) -> u64 {
    siphash13(
        config.hash_key,
        [
            pair(&key.src, 0),
            pair(&key.src, 2),
            pair(&key.dst, 0),
            pair(&key.dst, 2),
            (key.src_port as u64) << 32 | (key.dst_port as u64) << 16 | key.protocol as u64,
        ],
    )
}
