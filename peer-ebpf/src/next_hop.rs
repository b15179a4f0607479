//! The table of next hops: a way that was resolved gets an entry, which flows name by its number.

use aya_ebpf::bindings::BPF_NOEXIST;
use peer_common::next_hop::{UNLISTED, tick};
use peer_common::{Counter, DropReason, Flow, NextHop};

use crate::fib::Hop;
use crate::maps::{FREE_NEXT_HOPS, NEXT_HOP_NUMBERS, NEXT_HOPS, REACH};
use crate::stats;
use crate::verifier::value;

const EEXIST: i32 = -17;

/// Silent neighbours that a peer may reach for at once, and nanoseconds until one more: the kernel's neighbour table holds
/// 1024 entries by default, and one without an answer is in it for three seconds.
const REACH_BURST: u32 = 64;
const REACH_REFILL: u64 = 31_250_000;

/// Ticks until a packet may make the kernel ask once more for a neighbour that does not answer. The daemon has it ask every second:
/// this is for the time without one.
const RETRY: u32 = 8;

/// The next hop of a flow, if it has one in force. None: the flow has no way, or it must be resolved anew.
#[inline(always)]
pub fn current(flow: &Flow) -> Option<&'static mut NextHop> {
    // SAFETY: an array's value lives as long as the program; fields are written one by one.
    let entry = value(&NEXT_HOPS, flow.next_hop).map(|entry| unsafe { &mut *entry })?;
    (entry.generation == flow.next_hop_generation).then_some(entry)
}

/// The uplink of the flow's next hop, in force or not: an entry that a flow names is nobody else's.
#[inline(always)]
pub fn uplink(flow: &Flow) -> Option<u32> {
    // SAFETY: as above.
    value(&NEXT_HOPS, flow.next_hop).map(|entry| unsafe { (*entry).uplink })
}

/// Whether a packet may leave for the neighbour. One whose link address is not known may be reached for once in a tick, and
/// by each peer up to a limit; for one that does not answer, hardly ever.
#[inline(always)]
pub fn may_ask(hop: &NextHop, peer_id: u32, now: u64) -> Result<(), DropReason> {
    if hop.flags & NextHop::HEADER != 0 {
        return Ok(());
    }
    let tick = tick(now);
    if hop.flags & NextHop::FAILED != 0 && tick.wrapping_sub(hop.asked) < RETRY {
        return Err(DropReason::HostUnreachable);
    }
    if hop.asked == tick || hop.flags & NextHop::GATEWAY != 0 || hop.addr.is_none() {
        return Ok(());
    }
    match value(&REACH, peer_id) {
        // SAFETY: as above. Another CPU's token may get lost.
        Some(budget) if unsafe { !(*budget).take(REACH_REFILL, REACH_BURST) } => Err(DropReason::SilentNeighbours),
        _ => Ok(()),
    }
}

/// The number of the entry for what `hop` was resolved to, made if there is none; [`UNLISTED`] when all are taken.
/// `hop.entry.generation` is the one that a flow must name.
#[inline(never)]
pub fn number(hop: &mut Hop) -> u32 {
    hop.key = hop.entry.key();
    if let Some(number) = known(hop) {
        return number;
    }
    let Ok(Some(free)) = FREE_NEXT_HOPS.pop() else {
        stats::count(Counter::NextHopsUnlisted, 1);
        return UNLISTED;
    };
    hop.number = free;
    // SAFETY: an array's value lives as long as the program, and nobody else has this number.
    let Some(entry) = value(&NEXT_HOPS, free as u32).map(|entry| unsafe { &mut *entry }) else { return UNLISTED };
    hop.entry.generation = entry.generation;
    *entry = hop.entry;
    match NEXT_HOP_NUMBERS.insert(&hop.key, &hop.number, BPF_NOEXIST as u64) {
        Ok(()) => {
            stats::count(Counter::NextHopsMade, 1);
            free as u32
        }
        Err(code) => {
            let _ = FREE_NEXT_HOPS.push(hop.number, 0);
            // Another CPU was first.
            if code == EEXIST { known(hop).unwrap_or(UNLISTED) } else { UNLISTED }
        }
    }
}

/// Whether the kernel has asked in vain for what `hop` was resolved to.
#[inline(always)]
pub fn has_failed(hop: &mut Hop) -> bool {
    hop.key = hop.entry.key();
    // SAFETY: values are replaced whole by the daemon.
    let Some(number) = (unsafe { NEXT_HOP_NUMBERS.get(&hop.key) }).copied() else { return false };
    // SAFETY: as in `current`.
    value(&NEXT_HOPS, number as u32).is_some_and(|entry| unsafe { (*entry).flags } & NextHop::FAILED != 0)
}

#[inline(always)]
fn known(hop: &mut Hop) -> Option<u32> {
    // SAFETY: values are replaced whole by the daemon.
    let number = unsafe { NEXT_HOP_NUMBERS.get(&hop.key) }.copied()? as u32;
    // SAFETY: as in `current`.
    hop.entry.generation = value(&NEXT_HOPS, number).map(|entry| unsafe { (*entry).generation })?;
    Some(number)
}
