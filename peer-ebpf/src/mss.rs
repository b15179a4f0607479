//! Maximum segment size: lowered on SYNs to what fits the smaller of both sides (RFC 4459 §3.2), so that nobody has to
//! find out by loss.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{bpf_loop, bpf_skb_load_bytes};
use aya_ebpf::programs::TcContext;
use peer_common::{Counter, DropReason};

use crate::maps::scratch;
use crate::parse::{Packet, TCP_LEN, TCP_SYN};
use crate::rewrite::done;
use crate::stats;
use crate::verifier::{opaque, store};

/// The options of a TCP header, 40 bytes at most, and how far they have been looked through.
#[repr(C)]
pub struct Options {
    /// Up to a power of two: an index is kept inside by a mask.
    bytes: [u8; 64],
    at: u32,
    len: u32,
    /// Where the wanted one begins, plus 1; 0: not found.
    found: u32,
    /// Kind and length of the wanted one, as they stand in the packet: kind in the lowest byte.
    wanted: u32,
}

const MASK: u32 = 63;

const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: u8 = 4;
/// RFC 7323 §3.2.
const TIMESTAMPS: u8 = 8;
const TIMESTAMPS_LEN: u8 = 10;

/// Lowers the option of a SYN, if it has one, to what `mtu` leaves for a segment.
#[inline(always)]
pub fn clamp<const L2: usize>(
    ctx: &TcContext,
    packet: &Packet,
    options: &mut Options,
    mtu: u32,
) -> Result<(), DropReason> {
    if packet.tcp_flags & TCP_SYN == 0 || packet.key.protocol != crate::parse::IPPROTO_TCP {
        return Ok(());
    }
    let l4 = packet.l4() as u32;
    let most = mtu.saturating_sub(l4 + TCP_LEN as u32);
    let Some(at) = find(ctx, L2 as u32, packet, options, (MSS, MSS_LEN)) else { return Ok(()) };
    let mss = word(options, at + 2);
    if mss <= most {
        return Ok(());
    }
    let at = at as usize + 2;
    let (from, to) = (mss as u16, most as u16);
    let word = |value: u16| {
        // Checksums are made of words: behind an odd number of bytes the value lies across two of them.
        if at & 1 == 0 { value.to_be() as u64 } else { value.swap_bytes().to_be() as u64 }
    };
    let l4 = L2 + packet.l4();
    done(ctx.l4_csum_replace(l4 + 16, word(from), word(to), 2))?;
    done(store(ctx, l4 + TCP_LEN + at, 2, to.to_be() as u64))?;
    stats::count(Counter::MssClamped, 1);
    Ok(())
}

/// The time that the sender of a TCP packet says it is, host byte order, if it says so. Layer 3 starts at `l2`.
#[inline(always)]
pub fn timestamp(ctx: &TcContext, l2: u32, packet: &Packet, options: &mut Options) -> Option<u32> {
    let at = find(ctx, l2, packet, options, (TIMESTAMPS, TIMESTAMPS_LEN))?;
    Some(word(options, at + 2) << 16 | word(options, at + 4))
}

/// Where the first option of this kind and length begins.
#[inline(always)]
fn find(ctx: &TcContext, l2: u32, packet: &Packet, options: &mut Options, (kind, size): (u8, u8)) -> Option<u32> {
    let start = packet.l4() as u32 + TCP_LEN as u32;
    options.wanted = (size as u32) << 8 | kind as u32;
    look(ctx, l2 + start, packet.headers.wrapping_sub(start), options).checked_sub(1)
}

/// Looks through `len` bytes of options that start at `offset` of the packet. Returns what [`Options::found`] says.
#[inline(never)]
fn look(ctx: &TcContext, offset: u32, len: u32, options: *mut Options) -> u32 {
    if len < MSS_LEN as u32 || len > 40 {
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
        ptr::write_volatile(&raw mut (*options).found, 0);
        if bpf_skb_load_bytes(ctx.as_ptr(), offset, (&raw mut (*options).bytes).cast(), len) != 0 {
            return 0;
        }
        // Every option but "nothing" has two bytes or more; 40 steps see them all. A loop of our own would be followed step
        // by step by the verifier, and grow over its limit.
        let step: extern "C" fn(u32, *mut c_void) -> i64 = step;
        bpf_loop(40, step as *mut c_void, ptr::null_mut(), 0);
        ptr::read_volatile(&raw const (*options).found)
    }
}

extern "C" fn step(_index: u32, _context: *mut c_void) -> i64 {
    // What is read back from a map has no history: an index that the verifier knows in the first step and does not know in
    // the next is refused without CAP_PERFMON.
    let Some(work) = scratch() else { return 1 };
    let options = &mut work.options;
    let at = options.at;
    if at + MSS_LEN as u32 > options.len {
        return 1;
    }
    match byte(options, at) {
        END => return 1,
        NOTHING => options.at = at + 1,
        kind => {
            let size = byte(options, at + 1) as u32;
            if size << 8 | kind as u32 == options.wanted && at + size <= options.len {
                options.found = at + 1;
                return 1;
            }
            if size < 2 {
                return 1;
            }
            options.at = at + size;
        }
    }
    0
}

#[inline(always)]
fn word(options: &Options, at: u32) -> u32 {
    (byte(options, at) as u32) << 8 | byte(options, at + 1) as u32
}

#[inline(always)]
fn byte(options: &Options, at: u32) -> u8 {
    // SAFETY: the mask keeps the index inside.
    unsafe { *options.bytes.as_ptr().add((opaque(at) & MASK) as usize) }
}
