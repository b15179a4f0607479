//! What an operator must act on, told at most once a second and CPU: by aya-log, from a program of its own, because not
//! every verifier takes aya-log's macros, and what one refuses must not keep the others from being loaded.

use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::warn;
use peer_common::DropReason;

use crate::maps::{LAST_REFUSAL, LOGGER, REFUSALS, scratch};
use crate::verifier::value;

const PORTS_EXHAUSTED: u32 = DropReason::PortsExhausted as u32;
const PORT_SHARE: u32 = DropReason::PortShare as u32;
const PEER_QUOTA: u32 = DropReason::PeerQuota as u32;
const TABLE_FULL: u32 = DropReason::TableFull as u32;

/// Tells of a packet that is dropped because something is exhausted. Does not come back where the logging program is
/// there: that one drops the packet.
#[inline(always)]
pub fn tell_exhaustion(ctx: &TcContext, reason: DropReason) {
    let exhausted = matches!(
        reason,
        DropReason::PortsExhausted | DropReason::PortShare | DropReason::PeerQuota | DropReason::TableFull
    );
    if !exhausted || !may_tell() {
        return;
    }
    let Some(work) = scratch() else { return };
    work.refused = reason as u32;
    // SAFETY: the context is the kernel's, and nothing waits to be released.
    unsafe { LOGGER.tail_call(ctx, 0) };
    // Full: the daemon has not read for long, and knows already.
    if let Some(mut entry) = REFUSALS.reserve::<u32>(0) {
        entry.write(reason as u32);
        entry.submit(0);
    }
}

/// The logging program: says why the packet is dropped, and drops it.
#[inline(always)]
pub fn refused(ctx: &TcContext) -> i32 {
    // Literals only: the verifier cannot bound a string chosen at run time.
    match scratch().map(|work| work.refused) {
        Some(PORTS_EXHAUSTED) => warn!(ctx, "new flow refused: no free port"),
        Some(PORT_SHARE) => warn!(ctx, "new flow refused: ports are scarce, and its peer has its share"),
        Some(PEER_QUOTA) => warn!(ctx, "new flow refused: its peer has too many"),
        Some(TABLE_FULL) => warn!(ctx, "new flow refused: flow table full"),
        _ => {}
    }
    TC_ACT_SHOT
}

/// Whether this CPU has said nothing for a second.
#[inline(always)]
fn may_tell() -> bool {
    let Some(last) = value(&LAST_REFUSAL, 0) else { return false };
    // SAFETY: takes nothing, reads a clock; the slot is this CPU's own.
    unsafe {
        let now = bpf_ktime_get_coarse_ns();
        if now.wrapping_sub(*last) < 1_000_000_000 {
            return false;
        }
        *last = now;
    }
    true
}
