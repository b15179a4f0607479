//! Options of a TCP header: read for the few packets whose options say something to us, SYN and FIN.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{bpf_loop, bpf_skb_load_bytes};
use aya_ebpf::programs::TcContext;

use crate::maps::scratch;
use crate::parse::{Packet, TCP_LEN};
use crate::verifier::opaque;

/// The options of a TCP header, 40 bytes at most, how far they have been looked through, and what was found.
#[repr(C)]
pub struct Options {
    /// Up to a power of two: an index is kept inside by a mask.
    bytes: [u8; 64],
    at: u32,
    len: u32,
    /// The maximum segment size in the upper half, and where it stands among the options in the lower one; 0: none.
    mss: u32,
    /// The shift of the window.
    scale: u32,
    timestamp: u32,
    has_timestamp: u32,
}

const MASK: u32 = 63;

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
    // The compiler knows the bounds and would leave the mask out; the verifier needs it, and before Linux 6.8 learns nothing
    // from a comparison with zero.
    let len = (opaque(len - 1) & MASK) + 1;
    // SAFETY: the context is the kernel's, and the buffer is longer than any options; the callback has the signature that
    // the helper wants, and reads and writes by a pointer of its own, hence volatile.
    unsafe {
        ptr::write_volatile(&raw mut (*options).at, 0);
        ptr::write_volatile(&raw mut (*options).len, len);
        if bpf_skb_load_bytes(ctx.as_ptr(), offset, (&raw mut (*options).bytes).cast(), len) != 0 {
            return 0;
        }
        // Every option but "nothing" has two bytes or more; 40 steps see them all. A loop of our own would be followed step
        // by step by the verifier, and grow over its limit.
        let step: extern "C" fn(u32, *mut c_void) -> i64 = step;
        bpf_loop(40, step as *mut c_void, ptr::null_mut(), 0);
    }
    0
}

extern "C" fn step(_index: u32, _context: *mut c_void) -> i64 {
    // What is read back from a map has no history: an index that the verifier knows in the first step and does not know in
    // the next is refused without CAP_PERFMON.
    let Some(work) = scratch() else { return 1 };
    let options = &mut work.options;
    let at = options.at;
    if at + 2 > options.len {
        return 1;
    }
    let kind = byte(options, at);
    if kind == END {
        return 1;
    }
    if kind == NOTHING {
        options.at = at + 1;
        return 0;
    }
    let size = byte(options, at + 1) as u32;
    if size < 2 || at + size > options.len {
        return 1;
    }
    options.at = at + size;
    if kind == MSS && size == MSS_LEN && options.mss == 0 {
        options.mss = number(options, at + 2) << 16 | (at + 2);
    } else if kind == SCALE && size == SCALE_LEN {
        let scale = byte(options, at + 2);
        options.scale = if scale < MAX_SCALE { scale } else { MAX_SCALE } as u32;
    } else if kind == TIMESTAMP && size == TIMESTAMP_LEN {
        options.timestamp = number(options, at + 2) << 16 | number(options, at + 4);
        options.has_timestamp = 1;
    }
    0
}

/// Two bytes.
#[inline(always)]
fn number(options: &Options, at: u32) -> u32 {
    (byte(options, at) as u32) << 8 | byte(options, at + 1) as u32
}

#[inline(always)]
fn byte(options: &Options, at: u32) -> u8 {
    // SAFETY: the mask keeps the index inside.
    unsafe { *options.bytes.as_ptr().add((opaque(at) & MASK) as usize) }
}
