//! Counters, all per CPU: no atomics, no shared cache lines.

use peer_common::route::{MAX_ROUTES, NO_ROUTE};
use peer_common::{Counter, Direction, DropReason, PacketCount};

use crate::maps::{COUNTERS, DROPS, ROUTE_COUNTERS};
use crate::parse::Packet;
use crate::verifier::value;

/// How many packets a super-packet stands for. TUN leaves the kernel's own count at zero.
#[inline(always)]
pub fn segments(packet: &Packet, gso_size: u32) -> u64 {
    if gso_size == 0 {
        return 1;
    }
    let payload = packet.payload();
    if payload > u16::MAX as u32 {
        return 1;
    }
    payload.div_ceil(gso_size).max(1) as u64
}

#[inline(always)]
pub fn count(counter: Counter, packets: u64) {
    if let Some(slot) = value(&COUNTERS, counter as u32) {
        // SAFETY: this CPU's own slot; programs of this type do not interrupt one another on a CPU.
        unsafe { *slot += packets };
    }
}

#[inline(always)]
pub fn count_drop(reason: DropReason, bytes: u32) {
    if let Some(slot) = value(&DROPS, reason as u32) {
        add(slot, 1, bytes as u64);
    }
}

#[inline(always)]
pub fn count_route(route_id: u32, direction: Direction, packets: u64, bytes: u64) {
    if route_id == NO_ROUTE || route_id >= MAX_ROUTES {
        return;
    }
    if let Some(slot) = value(&ROUTE_COUNTERS, route_id * 2 + direction as u32) {
        add(slot, packets, bytes);
    }
}

/// What a function of its own returns, read: 0, or a drop reason plus 1.
#[inline(always)]
pub fn failed(code: u32) -> Result<(), DropReason> {
    match code {
        0 => Ok(()),
        // SAFETY: functions of their own return 0 or a reason plus 1.
        code => Err(unsafe { core::mem::transmute::<u32, DropReason>(code - 1) }),
    }
}

#[inline(always)]
fn add(slot: *mut PacketCount, packets: u64, bytes: u64) {
    // SAFETY: as in `count`.
    unsafe {
        (*slot).packets += packets;
        (*slot).bytes += bytes;
    }
}
