//! Sockets of the node: a port that one of them uses is not taken, or its replies would be ours.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as V4,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as V6,
};
use aya_ebpf::helpers::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::programs::TcContext;
use peer_common::FlowKey;

use crate::parse::IPPROTO_TCP;

/// Whether a socket of the node would get the packets of `reply`: connected, bound or listening.
#[inline(always)]
pub fn uses(ctx: &TcContext, reply: &FlowKey) -> bool {
    // SAFETY: integers and unions of integers.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if reply.dst.is_v4() {
        tuple.__bindgen_anon_1.ipv4 =
            V4 { saddr: reply.src.words[3], daddr: reply.dst.words[3], sport: reply.src_port, dport: reply.dst_port };
        size_of::<V4>()
    } else {
        tuple.__bindgen_anon_1.ipv6 =
            V6 { saddr: reply.src.words, daddr: reply.dst.words, sport: reply.src_port, dport: reply.dst_port };
        size_of::<V6>()
    } as u32;
    let netns = BPF_F_CURRENT_NETNS as u64;
    let tuple = ptr::from_mut(&mut tuple);
    // SAFETY: the tuple is initialised for its family and lives on the stack; each socket found is released.
    unsafe {
        if reply.protocol == IPPROTO_TCP {
            // Also sees what waits in TIME_WAIT and half-open requests.
            let socket = bpf_skc_lookup_tcp(ctx.as_ptr(), tuple, size, netns, 0);
            if socket.is_null() {
                return false;
            }
            bpf_sk_release(socket.cast::<c_void>());
            return true;
        }
        let socket = bpf_sk_lookup_udp(ctx.as_ptr(), tuple, size, netns, 0);
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket.cast::<c_void>());
        true
    }
}
