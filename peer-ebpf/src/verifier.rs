//! What verifiers of several kernels ask for.
//!
//! Without CAP_PERFMON, kernels before 6.8 refuse to write a part of eight bytes of the stack where a whole number, or its
//! other half, has been; which of them share their eight bytes is the compiler's choice. So whatever is less than eight
//! bytes, or made of such, is written elsewhere: into the map of working memory, or as one number of eight bytes.

use core::arch::asm;
use core::ptr;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{bpf_map_lookup_elem, bpf_skb_store_bytes};
use aya_ebpf::maps::Map;
use aya_ebpf::programs::TcContext;

/// The same number, of which the compiler knows nothing any more: it keeps the mask that the verifier needs. In a register:
/// `black_box` would take it through the stack.
#[inline(always)]
pub fn opaque(number: u32) -> u32 {
    opaque_wide(number as u64) as u32
}

/// As [`opaque`]: what is computed from it stays a computation, where the compiler would rather jump.
#[inline(always)]
pub fn opaque_wide(mut number: u64) -> u64 {
    // SAFETY: moves a register to itself. Without any instruction two lines of the source would stand at one offset, which
    // the kernel refuses.
    unsafe { asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack, preserves_flags)) };
    number
}

/// As [`opaque`], of an address: what is chosen from it and another stays two addresses, which the compiler cannot make one
/// with a variable distance.
#[inline(always)]
pub fn opaque_address<T>(mut address: *const T) -> *const T {
    // SAFETY: as above.
    unsafe { asm!("{0} = {0}", inout(reg) address, options(pure, nomem, nostack, preserves_flags)) };
    address
}

/// The value under a number, which lives until the program ends.
#[inline(always)]
pub fn value<M: Map<Key = u32>>(map: &'static M, key: u32) -> Option<*mut M::Value> {
    // The lower half comes first: BPF programs have the byte order of these machines.
    let key = key as u64;
    // SAFETY: a map is known to the kernel by its address, and reads a key of four bytes.
    let value = unsafe { bpf_map_lookup_elem(ptr::from_ref(map).cast_mut().cast(), (&raw const key).cast()) };
    (!value.is_null()).then_some(value.cast())
}

/// Writes the lowest `bytes` of a number at `offset` of the packet, as they are in memory.
#[inline(always)]
pub fn store(ctx: &TcContext, offset: usize, bytes: usize, number: u64) -> Result<(), i64> {
    // SAFETY: the context is the kernel's; no more than the number is read.
    unsafe { store_from(ctx, offset, (&raw const number).cast(), bytes) }
}

/// Writes what lies at `from`, `len` bytes, at `offset` of the packet.
///
/// # Safety
/// That much can be read there.
#[inline(always)]
pub unsafe fn store_from(ctx: &TcContext, offset: usize, from: *const u8, len: usize) -> Result<(), i64> {
    // SAFETY: the context is the kernel's, the rest the caller's promise.
    let result = unsafe { bpf_skb_store_bytes(ctx.as_ptr().cast(), offset as u32, from.cast(), len as u32, 0) };
    if result == 0 { Ok(()) } else { Err(result) }
}
