//! Sockets of the node: a port that one of them uses is not taken, or its replies would be ours.

use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as V6,
};
use aya_ebpf::helpers::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::programs::TcContext;
use peer_common::FlowKey;

use crate::parse::IPPROTO_TCP;
use crate::verifier::opaque_address;

/// The kernel's tuple of IPv4.
pub type V4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1;

// The key of a flow begins as the kernel's tuple of IPv6.
const _: () =
    assert!(offset_of!(FlowKey, src) == offset_of!(V6, saddr) && offset_of!(FlowKey, dst) == offset_of!(V6, daddr));
const _: () = assert!(
    offset_of!(FlowKey, src_port) == offset_of!(V6, sport) && offset_of!(FlowKey, dst_port) == offset_of!(V6, dport)
);

/// Whether a socket of the node would get the packets of `reply`: connected, bound or listening. `v4` is room for a
/// question: not on the stack, see [`crate::verifier`].
#[inline(always)]
pub fn uses(ctx: &TcContext, reply: &FlowKey, v4: &mut V4) -> bool {
    let (tuple, size) = if reply.dst.is_v4() {
        (v4.saddr, v4.daddr) = (reply.src.words[3], reply.dst.words[3]);
        (v4.sport, v4.dport) = (reply.src_port, reply.dst_port);
        (ptr::from_mut(v4).cast::<bpf_sock_tuple>(), size_of::<V4>() as u32)
    } else {
        (opaque_address(reply).cast_mut().cast(), size_of::<V6>() as u32)
    };
    let netns = BPF_F_CURRENT_NETNS as u64;
    // SAFETY: the tuple is whole for its size, and only read; each socket found is released.
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
