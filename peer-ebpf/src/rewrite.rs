//! Changes to the packet. Always by the kernel's helpers: they know whether the checksum is complete, partial or none.

use core::mem::offset_of;
use core::ptr;

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::bpf_csum_diff;
use aya_ebpf::programs::TcContext;
use peer_common::{Addr, DropReason};

use crate::icmp::Quoted;
use crate::parse::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, Packet, Part};
use crate::verifier::{store, store_from};

/// Which end of the packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

#[repr(C)]
struct Ipv4 {
    version_ihl: u8,
    tos: u8,
    total_len: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

#[repr(C)]
struct Ipv6 {
    version_class_flow: u32,
    payload_len: u16,
    next_header: u8,
    hop_limit: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

/// Takes one hop off. The caller has seen that one is left.
#[inline(always)]
pub fn decrement_ttl<const L2: usize>(ctx: &TcContext, packet: &Packet) -> Result<(), DropReason> {
    let ttl = packet.ttl.wrapping_sub(1);
    if !packet.is_v4 {
        return done(store(ctx, L2 + offset_of!(Ipv6, hop_limit), 1, ttl as u64));
    }
    let word = |ttl: u8| u16::from_ne_bytes([ttl, packet.key.protocol as u8]) as u64;
    done(ctx.l3_csum_replace(L2 + offset_of!(Ipv4, checksum), word(packet.ttl), word(ttl), 2))?;
    done(store(ctx, L2 + offset_of!(Ipv4, ttl), 1, ttl as u64))
}

/// Replaces address and port (or echo identifier) of one end.
#[inline(always)]
pub fn translate<const L2: usize>(
    ctx: &TcContext,
    packet: &Packet,
    end: End,
    addr: &Addr,
    port: u16,
) -> Result<(), DropReason> {
    let (old_addr, old_port) = match end {
        End::Source => (&packet.key.src, packet.key.src_port),
        End::Destination => (&packet.key.dst, packet.key.dst_port),
    };
    if packet.part == Part::Later {
        // The first fragment carries the only checksum of layer 4, and has been corrected for the whole packet.
        return address::<L2>(ctx, packet.is_v4, end, 0, old_addr, addr);
    }
    let l4 = L2 + packet.l4();
    let (checksum, port_at, flags) = match packet.key.protocol {
        IPPROTO_TCP => (l4 + 16, port_offset(l4, end), 0),
        IPPROTO_UDP => (l4 + 6, port_offset(l4, end), BPF_F_MARK_MANGLED_0 as u64),
        IPPROTO_ICMP | IPPROTO_ICMPV6 => (l4 + 2, l4 + 4, 0),
        _ => return Err(DropReason::Internal),
    };
    // ICMP has no pseudo header, ICMPv6 has one.
    if packet.key.protocol != IPPROTO_ICMP {
        checksum_address(ctx, packet.is_v4, checksum, old_addr, addr, flags | BPF_F_PSEUDO_HDR as u64)?;
    }
    address::<L2>(ctx, packet.is_v4, end, 0, old_addr, addr)?;
    if port != old_port {
        done(ctx.l4_csum_replace(checksum, old_port as u64, port as u64, flags | 2))?;
        done(store(ctx, port_at, 2, port as u64))?;
    }
    Ok(())
}

/// Replaces address and port of one end of an ICMP error, `end`, and of the other end of the packet that it quotes: what the
/// sender of the quoted packet sees is a packet as it sent it.
#[inline(always)]
pub fn translate_error<const L2: usize>(
    ctx: &TcContext,
    packet: &Packet,
    quoted: &Quoted,
    end: End,
    addr: &Addr,
    port: u16,
) -> Result<(), DropReason> {
    let icmp = L2 + packet.l4() + 2;
    let (outer, inner_end) = match end {
        End::Source => (&packet.key.src, End::Destination),
        End::Destination => (&packet.key.dst, End::Source),
    };
    let (inner, inner_port) = match inner_end {
        End::Source => (&quoted.key.src, quoted.key.src_port),
        End::Destination => (&quoted.key.dst, quoted.key.dst_port),
    };
    if quoted.checksum != 0 {
        quoted_checksum::<L2>(ctx, packet, quoted, icmp, (inner, inner_port), (addr, port))?;
    }
    let l4 = L2 + quoted.l4 as usize;
    let port_at = match quoted.key.protocol {
        IPPROTO_TCP | IPPROTO_UDP => port_offset(l4, inner_end),
        _ => l4 + 4,
    };
    done(ctx.l4_csum_replace(icmp, inner_port as u64, port as u64, 2))?;
    done(store(ctx, port_at, 2, port as u64))?;
    // The quoted IPv4 header sums to the same as before, its own checksum included; the one of IPv6 has none.
    if !packet.is_v4 {
        checksum_address(ctx, false, icmp, inner, addr, 0)?;
        checksum_address(ctx, false, icmp, outer, addr, BPF_F_PSEUDO_HDR as u64)?;
    }
    address::<L2>(ctx, packet.is_v4, inner_end, quoted.ip as usize, inner, addr)?;
    address::<L2>(ctx, packet.is_v4, end, 0, outer, addr)
}

/// Corrects the quoted checksum of layer 4, and the error's own by the difference.
#[inline(always)]
fn quoted_checksum<const L2: usize>(
    ctx: &TcContext,
    packet: &Packet,
    quoted: &Quoted,
    icmp: usize,
    from: (&Addr, u16),
    to: (&Addr, u16),
) -> Result<(), DropReason> {
    let at = L2 + quoted.checksum as usize;
    let Ok(before) = ctx.load::<u16>(at) else { return Err(DropReason::Rewrite) };
    if before == 0 && quoted.key.protocol == IPPROTO_UDP {
        return Ok(());
    }
    let flags = if quoted.key.protocol == IPPROTO_UDP { BPF_F_MARK_MANGLED_0 as u64 } else { 0 };
    if quoted.key.protocol != IPPROTO_ICMP {
        checksum_address(ctx, packet.is_v4, at, from.0, to.0, flags)?;
    }
    done(ctx.l4_csum_replace(at, from.1 as u64, to.1 as u64, flags | 2))?;
    let Ok(after) = ctx.load::<u16>(at) else { return Err(DropReason::Rewrite) };
    done(ctx.l4_csum_replace(icmp, before as u64, after as u64, 2))
}

/// Corrects the checksum at `at` for an address that changes from `from` to `to`.
#[inline(always)]
fn checksum_address(
    ctx: &TcContext,
    is_v4: bool,
    at: usize,
    from: &Addr,
    to: &Addr,
    flags: u64,
) -> Result<(), DropReason> {
    if is_v4 {
        return done(ctx.l4_csum_replace(at, from.words[3] as u64, to.words[3] as u64, flags | 4));
    }
    let (from, to) = (from.words.as_ptr().cast_mut(), to.words.as_ptr().cast_mut());
    // SAFETY: both point to 16 bytes, which are only read.
    let difference = unsafe { bpf_csum_diff(from, 16, to, 16, 0) };
    if difference < 0 {
        return Err(DropReason::Rewrite);
    }
    done(ctx.l4_csum_replace(at, 0, difference as u64, flags))
}

/// Replaces an address in the IP header that stands `ip` bytes into layer 3, and corrects that header's checksum.
#[inline(always)]
fn address<const L2: usize>(
    ctx: &TcContext,
    is_v4: bool,
    end: End,
    ip: usize,
    from: &Addr,
    to: &Addr,
) -> Result<(), DropReason> {
    let ip = L2 + ip;
    if is_v4 {
        let at = if matches!(end, End::Source) { offset_of!(Ipv4, source) } else { offset_of!(Ipv4, destination) };
        let (from, to) = (from.words[3], to.words[3]);
        done(ctx.l3_csum_replace(ip + offset_of!(Ipv4, checksum), from as u64, to as u64, 4))?;
        return done(store(ctx, ip + at, 4, to as u64));
    }
    let at = if matches!(end, End::Source) { offset_of!(Ipv6, source) } else { offset_of!(Ipv6, destination) };
    // SAFETY: an address has 16 bytes.
    done(unsafe { store_from(ctx, ip + at, ptr::from_ref(to).cast(), 16) })
}

#[inline(always)]
fn port_offset(l4: usize, end: End) -> usize {
    if matches!(end, End::Source) { l4 } else { l4 + 2 }
}

#[inline(always)]
pub fn done(result: Result<(), i64>) -> Result<(), DropReason> {
    result.map_err(|_| DropReason::Rewrite)
}
