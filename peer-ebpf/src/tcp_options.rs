//! Options of a TCP header: read for the few packets whose options say something to us, SYN and FIN.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{bpf_loop, bpf_skb_load_bytes};
use aya_ebpf::programs::TcContext;

use crate::maps::scratch;
use crate::parse::{Packet, TCP_LEN};

/// The options of a TCP header, 40 bytes at most: where they stand, how far they have been looked through, and what was found.
#[repr(C)]
pub struct Options {
    /// Where they start in the packet.
    start: u32,
    at: u32,
    len: u32,
    /// The maximum segment size in the upper half, and where it stands among the options in the lower one; 0: none.
    mss: u32,
    /// The shift of the window.
    scale: u32,
    timestamp: u32,
    has_timestamp: u32,
    /// A piece of the packet, copied here.
    piece: [u8; 4],
}

const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: u32 = 4;
const SCALE: u8 = 3;
const SCALE_LEN: u32 = 3;
const TIMESTAMP: u8 = 8;
const TIMESTAMP_LEN: u32 = 10;

/// No window is shifted by more (RFC 7323 §2.3).
pub const MAX_SCALE: u8 = 14;

/// Reads what the packet, one of TCP, has. The functions below say what that is, until another packet is read.
#[inline(always)]
pub fn read<const L2: usize>(ctx: &TcContext, packet: &Packet, options: *mut Options) {
    read_at(ctx, L2 as u32, packet, options);
}

/// As [`read`], of a packet whose layer 3 starts at `l2`.
#[inline(always)]
pub fn read_at(ctx: &TcContext, l2: u32, packet: &Packet, options: *mut Options) {
    let l4 = packet.l4() as u32;
    look_through(ctx, l2 + l4 + TCP_LEN as u32, packet.headers.wrapping_sub(l4 + TCP_LEN as u32), options);
}

/// The maximum segment size in the upper half, and where it stands among the options in the lower one; 0: there is none.
#[inline(always)]
pub fn mss(options: *const Options) -> u32 {
    // SAFETY: this CPU's own; the callback writes by a pointer of its own, hence volatile.
    unsafe { ptr::read_volatile(&raw const (*options).mss) }
}

/// What the window is to be shifted by (RFC 7323 §2); 0 without the option.
#[inline(always)]
pub fn scale(options: *const Options) -> u8 {
    // SAFETY: as in `mss`.
    unsafe { ptr::read_volatile(&raw const (*options).scale) as u8 }
}

/// The sender's timestamp, TSval (RFC 7323 §3).
#[inline(always)]
pub fn timestamp(options: *const Options) -> Option<u32> {
    // SAFETY: as in `mss`.
    unsafe {
        let there = ptr::read_volatile(&raw const (*options).has_timestamp) != 0;
        there.then(|| ptr::read_volatile(&raw const (*options).timestamp))
    }
}

/// Looks through `len` bytes of options that start at `offset` of the packet. Returns 0, as functions of their own must
/// return something.
#[inline(never)]
fn look_through(ctx: &TcContext, offset: u32, len: u32, options: *mut Options) -> u32 {
    // SAFETY: as in `mss`; field by field, so that nothing is made on the stack.
    unsafe {
        ptr::write_volatile(&raw mut (*options).mss, 0);
        ptr::write_volatile(&raw mut (*options).scale, 0);
        ptr::write_volatile(&raw mut (*options).timestamp, 0);
        ptr::write_volatile(&raw mut (*options).has_timestamp, 0);
    }
    if len < SCALE_LEN || len > 40 {
        return 0;
    }
    let mut skb = ctx.as_ptr();
    // SAFETY: as above; the callback has the signature that the helper wants, and is done with `skb` when the helper returns.
    unsafe {
        ptr::write_volatile(&raw mut (*options).start, offset);
        ptr::write_volatile(&raw mut (*options).at, 0);
        ptr::write_volatile(&raw mut (*options).len, len);
        // Every option but "nothing" has two bytes or more; 40 steps see them all. A loop of our own would be followed step
        // by step by the verifier, and grow over its limit.
        let step: extern "C" fn(u32, *mut c_void) -> i64 = step;
        bpf_loop(40, step as *mut c_void, (&raw mut skb).cast(), 0);
    }
    0
}

/// Looks at one option of the packet that `skb` points to. Returns 0, or 1 when there are no more.
///
/// Pieces are copied to a place that is always the same. An index that the verifier does not know would have it tell all
/// numbers apart from there on, without CAP_PERFMON, and grow over its limit before Linux 6.8.
extern "C" fn step(_index: u32, skb: *mut c_void) -> i64 {
    // SAFETY: `look_through` passes the place of its pointer to the context.
    let skb = unsafe { *skb.cast::<*mut c_void>() };
    let Some(work) = scratch() else { return 1 };
    let options = &mut work.options;
    let at = options.at;
    if at + 2 > options.len {
        return 1;
    }
    let Some([kind, size, ..]) = piece(skb, options, at, 2) else { return 1 };
    if kind == END {
        return 1;
    }
    if kind == NOTHING {
        options.at = at + 1;
        return 0;
    }
    let size = size as u32;
    if size < 2 || at + size > options.len {
        return 1;
    }
    options.at = at + size;
    if kind == MSS && size == MSS_LEN && options.mss == 0 {
        let Some([high, low, ..]) = piece(skb, options, at + 2, 2) else { return 1 };
        options.mss = (high as u32) << 24 | (low as u32) << 16 | (at + 2);
    } else if kind == SCALE && size == SCALE_LEN {
        let Some([scale, ..]) = piece(skb, options, at + 2, 1) else { return 1 };
        options.scale = if scale < MAX_SCALE { scale } else { MAX_SCALE } as u32;
    } else if kind == TIMESTAMP && size == TIMESTAMP_LEN {
        let Some(value) = piece(skb, options, at + 2, 4) else { return 1 };
        options.timestamp = u32::from_be_bytes(value);
        options.has_timestamp = 1;
    }
    0
}

/// `len` bytes, four at most, at `at` of the options. `None`: the kernel refused.
#[inline(always)]
fn piece(skb: *mut c_void, options: &mut Options, at: u32, len: u32) -> Option<[u8; 4]> {
    let piece = &raw mut options.piece;
    // SAFETY: the context is the kernel's; the piece has room, and is written by the helper, hence volatile.
    unsafe {
        if bpf_skb_load_bytes(skb, options.start + at, piece.cast(), len) != 0 {
            return None;
        }
        Some(ptr::read_volatile(piece))
    }
}
