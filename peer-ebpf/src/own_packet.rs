//! Packets of our own: made in working memory, written over the packet that they answer.

use core::mem::offset_of;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_NET};
use aya_ebpf::helpers::{bpf_csum_diff, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_store_bytes};
use aya_ebpf::programs::TcContext;
use peer_common::Addr;

use crate::parse::{V4_LEN, V6_LEN};

/// Where layer 4 begins in a buffer, so that both families have their header right before it.
pub const L4_AT: usize = V6_LEN;

/// Hop limit of what we send.
const TTL: u16 = 64;
const DONT_FRAGMENT: u32 = 0x4000;
/// Bytes that [`resize`] cuts out of the packet: more than stand before any header of layer 4.
const CUT: u32 = 64;

/// What is summed besides the headers: length and protocol, as the end of a pseudo header.
pub type Pseudo = [u32; 2];

#[repr(C)]
struct HeaderV4 {
    version_tos_len: [u16; 2],
    id_fragment: u32,
    ttl_protocol: u16,
    checksum: u16,
    source: u32,
    destination: u32,
}

#[repr(C)]
struct HeaderV6 {
    version_class_flow: u32,
    len_next_hop: [u16; 2],
    source: Addr,
    destination: Addr,
}

/// Who sends a packet, and to whom.
pub struct Ends<'a> {
    pub is_v4: bool,
    pub source: &'a Addr,
    pub destination: &'a Addr,
}

/// Makes the packet `len` bytes long, whatever they are, without any offload. Changing its tail alone would leave a checksum
/// that the device is to complete (TSO, GRO, a veth's peer): it would be written into the middle of what is ours. The
/// kernel gives that up when the place where summing starts is cut out, hence a cut at the front after growth at the end.
#[inline(always)]
pub fn resize(ctx: &TcContext, len: u32) -> bool {
    // SAFETY: the context is the kernel's; packet pointers are not used any more.
    unsafe {
        bpf_skb_change_tail(ctx.as_ptr().cast(), len + CUT, 0) == 0
            && bpf_skb_adjust_room(ctx.as_ptr().cast(), -(CUT as i32), BPF_ADJ_ROOM_NET, 0) == 0
    }
}

/// Writes `len` bytes of a buffer over the packet, from offset `at` on, and lets the kernel correct what it has summed.
///
/// # Safety
/// `from` has as many bytes.
#[inline(always)]
pub unsafe fn overwrite(ctx: &TcContext, at: u32, from: *const u8, len: u32) -> bool {
    // SAFETY: the context is the kernel's, the rest the caller's promise.
    unsafe { bpf_skb_store_bytes(ctx.as_ptr().cast(), at, from.cast(), len, BPF_F_RECOMPUTE_CSUM as u64) == 0 }
}

/// Writes the IP header in front of `len` bytes of layer 4, which begin at [`L4_AT`] of `buffer`. Returns the sum of the pseudo
/// header (RFC 9293 §3.1, RFC 8200 §8.1).
///
/// # Safety
/// `buffer` has [`L4_AT`] bytes before layer 4 and is aligned to four.
#[inline(always)]
pub unsafe fn set_header(buffer: *mut u8, pseudo: &mut Pseudo, ends: &Ends<'_>, protocol: u32, len: u32) -> i64 {
    let Ends { is_v4, source, destination } = ends;
    *pseudo = [len.to_be(), protocol.to_be()];
    // SAFETY: the caller's promise.
    unsafe {
        let sum = if *is_v4 {
            let at = buffer.add(V6_LEN - V4_LEN).cast::<HeaderV4>();
            *at = HeaderV4 {
                version_tos_len: [0x4500_u16.to_be(), ((V4_LEN as u32 + len) as u16).to_be()],
                id_fragment: DONT_FRAGMENT.to_be(),
                ttl_protocol: (TTL << 8 | protocol as u16).to_be(),
                checksum: 0,
                source: source.words[3],
                destination: destination.words[3],
            };
            (*at).checksum = !fold(bpf_csum_diff(ptr::null_mut(), 0, at.cast(), V4_LEN as u32, 0));
            let addresses = buffer.add(V6_LEN - V4_LEN + offset_of!(HeaderV4, source));
            bpf_csum_diff(ptr::null_mut(), 0, addresses.cast(), 8, 0)
        } else {
            *buffer.cast::<HeaderV6>() = HeaderV6 {
                version_class_flow: 0x6000_0000_u32.to_be(),
                len_next_hop: [(len as u16).to_be(), ((protocol as u16) << 8 | TTL).to_be()],
                source: **source,
                destination: **destination,
            };
            let addresses = buffer.add(offset_of!(HeaderV6, source));
            bpf_csum_diff(ptr::null_mut(), 0, addresses.cast(), 32, 0)
        };
        bpf_csum_diff(ptr::null_mut(), 0, pseudo.as_mut_ptr(), 8, sum as u32)
    }
}

#[inline(always)]
pub fn fold(sum: i64) -> u16 {
    let sum = sum as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
