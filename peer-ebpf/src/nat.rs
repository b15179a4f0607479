//! Mappings: allocation without locks. The reverse entry goes in first and only if it is new: that is the reservation.

use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_loop;
use aya_ebpf::programs::TcContext;
use peer_common::hash::siphash13;
use peer_common::{Addr, Config, Counter, DropReason, Flow, FlowKey, Mapping, TcpWindow};

use crate::maps::{FLOWS, MAPPINGS, Scratch, scratch};
use crate::parse::{IPPROTO_TCP, IPPROTO_UDP};
use crate::{flow, observe, socket, stats};

/// Ports tried before giving up. Ports are overloaded per remote endpoint, so that a collision needs many flows to
/// one and the same endpoint.
const PROBES: u32 = 32;

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
}

const SEARCHING: u32 = u32::MAX;

/// Opens `work.flow` for the packet's key with the mapping that undoes it; `nat_addr` is set by the caller. Another CPU
/// may have opened the same flow: then its entry stands. Returns 0, or a drop reason plus 1.
#[inline(never)]
pub fn open_masqueraded(ctx: &TcContext, config: &Config, work: *mut Scratch) -> u32 {
    // SAFETY: this CPU's own; no reference into it lives while the callback has its own.
    if !begin_search(config, unsafe { &mut *work }) {
        return DropReason::PortsExhausted as u32 + 1;
    }
    search(ctx, work, step::<false>)
}

/// As [`open_masqueraded`], but writes nothing: `work.flow` gets the port that the flow would get.
#[inline(never)]
pub fn find_port(ctx: &TcContext, config: &Config, work: *mut Scratch) -> u32 {
    // SAFETY: as there.
    if !begin_search(config, unsafe { &mut *work }) {
        return DropReason::PortsExhausted as u32 + 1;
    }
    search(ctx, work, step::<true>)
}

#[inline(always)]
fn search(ctx: &TcContext, work: *mut Scratch, step: extern "C" fn(u32, *mut c_void) -> i64) -> u32 {
    let mut context = ctx.as_ptr();
    // A loop of our own would be followed step by step by the verifier, and grow over its limit.
    // SAFETY: the callback has the signature that the helper wants; its context, a pointer, lives on the stack.
    unsafe {
        bpf_loop(PROBES, step as *mut c_void, (&raw mut context).cast(), 0);
        match (*work).search.outcome {
            SEARCHING => DropReason::PortsExhausted as u32 + 1,
            outcome => outcome,
        }
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
    true
}

/// An identifier of ICMP is always fresh: Cilium tracks the whole range of them.
#[inline(always)]
fn has_ports(key: &FlowKey) -> bool {
    key.protocol == IPPROTO_TCP || key.protocol == IPPROTO_UDP
}

extern "C" fn step<const DRY: bool>(_index: u32, context: *mut c_void) -> i64 {
    let Some(work) = scratch() else { return 1 };
    // SAFETY: what `open_masqueraded` has put there: the context of the program.
    let ctx = TcContext::new(unsafe { *context.cast::<*mut c_void>() }.cast());
    work.search.outcome = try_port::<DRY>(&ctx, work);
    i64::from(work.search.outcome != SEARCHING)
}

/// Tries one port; `DRY`: takes none. Returns what [`Search::outcome`] says.
#[inline(always)]
fn try_port<const DRY: bool>(ctx: &TcContext, work: &mut Scratch) -> u32 {
    let Scratch { packet, flow, mapping, reply, tuple, search, .. } = work;
    let key = &packet.key;
    let port = ((search.min + search.offset) as u16).to_be();
    flow::set_reply(reply, key, &flow.nat_addr, port);
    // The range is not empty: compared here as well, because the verifier does not know.
    search.offset = (search.offset + search.step).checked_rem(search.range).unwrap_or(0);
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

/// Forgets a flow and its mapping, unless that is another's by now. Returns 0, as functions of their own must return something.
#[inline(never)]
pub fn forget(key: &FlowKey, flow: &Flow, reply: &mut FlowKey) -> u32 {
    flow::set_reply(reply, key, &flow.nat_addr, flow.nat_port);
    let told = observe::closing(key, flow, reply);
    if FLOWS.remove(key).is_ok() {
        flow::closed(flow);
        if told != 0 {
            observe::tell_closed();
        }
    }
    if owner(key, reply) == Owner::Us {
        let _ = MAPPINGS.remove(&*reply);
    }
    0
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

#[inline(always)]
fn pair(addr: &Addr, at: usize) -> u64 {
    (addr.words[at] as u64) << 32 | addr.words[at + 1] as u64
}
