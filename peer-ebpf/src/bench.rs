//! Entries for benches: the production code behind one that restores the packet (a run leaves it translated) and chooses
//! which flow it belongs to. What that costs is measured by itself and subtracted.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_skb_store_bytes};
use aya_ebpf::programs::TcContext;
use peer_common::bench::HEADERS;

use crate::maps::{BENCH, BENCH_PORTS};
use crate::parse::ETH_LEN;
use crate::{mesh, uplink};

/// Which way the packet goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Out,
    In,
}

const SOURCE: usize = ETH_LEN + 12;
const DESTINATION: usize = ETH_LEN + 16;
const SOURCE_PORT: usize = ETH_LEN + 20;
const DESTINATION_PORT: usize = ETH_LEN + 22;

#[inline(always)]
pub fn prepared(ctx: &TcContext, way: Way) -> i32 {
    prepare(ctx, way);
    TC_ACT_UNSPEC
}

#[inline(always)]
pub fn out(ctx: &TcContext) -> i32 {
    prepare(ctx, Way::Out);
    mesh::ingress::<ETH_LEN>(ctx)
}

#[inline(always)]
pub fn back(ctx: &TcContext) -> i32 {
    prepare(ctx, Way::In);
    uplink::ingress::<ETH_LEN>(ctx)
}

/// Writes the headers of a flow chosen by the plan.
#[inline(always)]
fn prepare(ctx: &TcContext, way: Way) {
    let Some(plan) = BENCH.get_ptr_mut(0) else { return };
    // SAFETY: one bench runs at a time; the helper takes nothing.
    let (plan, random) = unsafe { (&mut *plan, bpf_get_prandom_u32()) };
    if plan.flows == 0 || plan.hosts == 0 {
        return;
    }
    let flow = if plan.in_turn == 0 {
        random % plan.flows
    } else {
        let flow = plan.next;
        plan.next = if flow + 1 < plan.flows { flow + 1 } else { 0 };
        flow
    };
    let host = (plan.first_host + flow.wrapping_mul(plan.stride) % plan.hosts) as u16;
    let (address_at, port_at, port) = match way {
        Way::Out => (DESTINATION, SOURCE_PORT, ((plan.first_port + flow / plan.hosts) as u16).to_be()),
        Way::In => (SOURCE, DESTINATION_PORT, BENCH_PORTS.get(flow).map_or(0, |port| *port as u16)),
    };
    set(&mut plan.headers, address_at + 2, host.to_be());
    set(&mut plan.headers, port_at, port);
    // SAFETY: the context is the kernel's, and the headers are as long as that.
    unsafe { bpf_skb_store_bytes(ctx.as_ptr().cast(), 0, plan.headers.as_ptr().cast(), HEADERS as u32, 0) };
}

#[inline(always)]
fn set(headers: &mut [u8; 56], at: usize, value: u16) {
    // SAFETY: constants inside the headers, even as the map is aligned.
    unsafe { *headers.as_mut_ptr().add(at).cast::<u16>() = value };
}
