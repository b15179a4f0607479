//! Out of a device.

use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, bpf_redir_neigh};
use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_neigh, bpf_skb_change_head};
use aya_ebpf::programs::TcContext;
use peer_common::layout::REDIRECTED_MARK;
use peer_common::next_hop::{LINK_HEADER, tick};
use peer_common::{DropReason, NextHop};

use crate::fib::{AF_INET, AF_INET6};
use crate::parse::ETH_LEN;

/// Out of an uplink by the stored link header; without one, and once in a tick, by the kernel's neighbour table, so that a
/// neighbour that moves is followed. `params` is room for what the kernel is told.
#[inline(always)]
pub fn to_uplink<const L2: usize>(
    ctx: &TcContext,
    hop: &mut NextHop,
    now: u64,
    params: &mut bpf_redir_neigh,
) -> Result<i32, DropReason> {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is the kernel's. Mark 0 means nothing to anybody, and TUN's queue number would be taken for
    // an endpoint by Cilium's bandwidth manager.
    // Volatile, or LLVM makes one store of two context fields, which the verifier refuses.
    unsafe {
        ptr::write_volatile(&raw mut (*skb).mark, 0);
        ptr::write_volatile(&raw mut (*skb).queue_mapping, 0);
    }
    if L2 == 0 {
        // Without a link header the kernel frees the packet silently.
        // SAFETY: as above.
        if unsafe { bpf_skb_change_head(skb, ETH_LEN as u32, 0) } != 0 {
            return Err(DropReason::Rewrite);
        }
    }
    let uplink = hop.uplink;
    let tick = tick(now);
    if hop.asked == tick {
        if hop.flags & NextHop::HEADER != 0 {
            write_header(ctx, hop)?;
            // SAFETY: takes numbers only.
            return Ok(unsafe { bpf_redirect(uplink, 0) } as i32);
        }
    } else {
        hop.asked = tick;
    }
    let addr = &hop.addr;
    if addr.is_none() {
        // SAFETY: no parameters are allowed: the kernel looks the next hop up.
        return Ok(unsafe { bpf_redirect_neigh(uplink, ptr::null_mut(), 0, 0) } as i32);
    }
    // SAFETY: integers and a union of integers.
    *params = unsafe { core::mem::zeroed() };
    if addr.is_v4() {
        params.nh_family = AF_INET as u32;
        params.__bindgen_anon_1.ipv4_nh = addr.words[3];
    } else {
        params.nh_family = AF_INET6 as u32;
        params.__bindgen_anon_1.ipv6_nh = addr.words;
    }
    let len = size_of::<bpf_redir_neigh>() as i32;
    // SAFETY: the parameters are a whole, initialised structure of the length given.
    Ok(unsafe { bpf_redirect_neigh(uplink, ptr::from_mut(params), len, 0) } as i32)
}

/// Writes the stored link header over the packet's. Where it lies, as [`crate::rewrite::forward`] does: a helper would cost as
/// much as the rest.
#[inline(always)]
fn write_header(ctx: &TcContext, hop: &NextHop) -> Result<(), DropReason> {
    let start = ctx.data();
    if start + LINK_HEADER > ctx.data_end() {
        return Err(DropReason::Rewrite);
    }
    let (from, to) = (hop.header.as_ptr(), start as *mut u8);
    // SAFETY: both have as many bytes. The entry's are aligned to eight; the packet's are as in the parser.
    unsafe {
        *to.cast::<u64>() = *from.cast::<u64>();
        *to.add(8).cast::<u32>() = *from.add(8).cast::<u32>();
        *to.add(12).cast::<u16>() = *from.add(12).cast::<u16>();
    }
    Ok(())
}

/// Back where the frame came from, to its sender. `None`: the kernel refused.
#[inline(always)]
pub fn back(ctx: &TcContext, ifindex: u32) -> Option<i32> {
    const MAC: usize = 6;
    let destination = ctx.load::<[u8; MAC]>(0).ok()?;
    let source = ctx.load::<[u8; MAC]>(MAC).ok()?;
    ctx.store(0, &source, 0).ok()?;
    ctx.store(MAC, &destination, 0).ok()?;
    // SAFETY: takes numbers only.
    Some(unsafe { bpf_redirect(ifindex, 0) } as i32)
}

/// Out of wt0; the kernel strips the link header.
#[inline(always)]
pub fn to_mesh(ctx: &TcContext, wt0: u32) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is the kernel's.
    unsafe {
        (*skb).mark = REDIRECTED_MARK;
        bpf_redirect(wt0, 0) as i32
    }
}
