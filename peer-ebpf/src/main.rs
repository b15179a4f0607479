//! TC programs of *peer*: forwarding and source NAT between wt0 and the uplinks. Entry points only.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::{macros::classifier, programs::TcContext};

mod answer;
mod bench;
mod budget;
mod describe;
mod family;
mod fib;
mod flow;
mod fragment;
mod icmp;
mod judge;
mod last;
mod log;
mod maps;
mod mesh;
mod mss;
mod nat;
mod next_hop;
mod observe;
mod own;
mod own_packet;
mod parse;
mod policy;
mod redirect;
mod reset;
mod rewrite;
mod socket;
mod stats;
mod tcp;
mod tcp_options;
mod uplink;
mod verifier;

/// wt0 ingress: mesh → anywhere.
#[classifier]
pub fn peer_wt0_in(ctx: TcContext) -> i32 {
    mesh::ingress::<0>(&ctx)
}

/// wt0 ingress, behind [`peer_wt0_in`]: drops what that has not passed.
#[classifier]
pub fn peer_wt0_last(ctx: TcContext) -> i32 {
    last::ingress(&ctx)
}

/// wt0 egress: the node, or the LAN, towards the mesh.
#[classifier]
pub fn peer_wt0_out(ctx: TcContext) -> i32 {
    own::egress::<0>(&ctx)
}

/// Uplink ingress: replies.
#[classifier]
pub fn peer_uplink_in(ctx: TcContext) -> i32 {
    uplink::ingress::<{ parse::ETH_LEN }>(&ctx)
}

/// Where [`peer_wt0_in`] goes on to say that something is exhausted.
#[classifier]
pub fn peer_refused(ctx: TcContext) -> i32 {
    log::refused(&ctx)
}

/// [`peer_wt0_in`] behind a link header, the only form that `BPF_PROG_TEST_RUN` feeds. Loaded by tests and benches only.
#[classifier]
pub fn peer_test_wt0_in(ctx: TcContext) -> i32 {
    mesh::ingress::<{ parse::ETH_LEN }>(&ctx)
}

/// [`peer_wt0_out`] behind a link header. Loaded by tests and benches only.
#[classifier]
pub fn peer_test_wt0_out(ctx: TcContext) -> i32 {
    own::egress::<{ parse::ETH_LEN }>(&ctx)
}

/// What would become of a packet behind a link header, for `trace`. Never attached.
#[classifier]
pub fn peer_describe(ctx: TcContext) -> i32 {
    describe::packet(&ctx)
}

/// Nothing: what a run costs by itself. This and all that follow are loaded by benches only.
#[classifier]
pub fn peer_bench_none(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// The packet of a flow, chosen and written.
#[classifier]
pub fn peer_bench_prep(ctx: TcContext) -> i32 {
    bench::prepared(&ctx, bench::Way::Out)
}

/// The reply of a flow, chosen and written.
#[classifier]
pub fn peer_bench_prin(ctx: TcContext) -> i32 {
    bench::prepared(&ctx, bench::Way::In)
}

/// [`peer_wt0_in`] on the packet of a chosen flow.
#[classifier]
pub fn peer_bench_out(ctx: TcContext) -> i32 {
    bench::out(&ctx)
}

/// [`peer_uplink_in`] on the reply of a chosen flow.
#[classifier]
pub fn peer_bench_in(ctx: TcContext) -> i32 {
    bench::back(&ctx)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lends GPL-only helpers (`bpf_redirect_neigh` among them) only under a compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
