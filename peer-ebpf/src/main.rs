//! TC programs of *peer*: forwarding and source NAT between wt0 and the uplinks. Entry points only.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};

mod maps;

/// wt0 ingress: mesh → anywhere.
#[classifier]
pub fn peer_wt0_in(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// wt0 egress: the node, or the LAN, towards the mesh.
#[classifier]
pub fn peer_wt0_out(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Uplink ingress: replies.
#[classifier]
pub fn peer_uplink_in(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
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
