//! wt0 ingress, behind `peer_wt0_in`: drops what that has not passed. Somebody may detach it, and the kernel, which
//! forwards on wt0, would take unjudged packets until it is back. Redirected packets never come here.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::programs::TcContext;
use peer_common::DropReason;
use peer_common::layout::PASSED_INDEX;

use crate::stats;

/// Lets the packet go on, and tells [`ingress`] so.
#[inline(always)]
pub fn pass(ctx: &TcContext) -> i32 {
    // SAFETY: the context of this run; programs may write the field.
    unsafe { (*ctx.skb.skb).tc_index = PASSED_INDEX };
    TC_ACT_UNSPEC
}

/// The second look.
#[inline(always)]
pub fn ingress(ctx: &TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the context of this run.
    if unsafe { (*skb).tc_index } != PASSED_INDEX {
        stats::count_drop(DropReason::Unjudged, ctx.len());
        return TC_ACT_SHOT;
    }
    // SAFETY: as above; nobody behind us sees it.
    unsafe { (*skb).tc_index = 0 };
    TC_ACT_UNSPEC
}
