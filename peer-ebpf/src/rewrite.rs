//! Changes to the packet. Checksums of layer 4 always by the kernel's helpers: they know whether they are complete, partial
//! or none.

use core::mem::offset_of;
use core::ptr;

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::bpf_csum_diff;
use aya_ebpf::programs::TcContext;
use peer_common::{Addr, DropReason};

use crate::icmp::Quoted;
use crate::parse::{FRAGMENT_LEN, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, Packet, Part};
use crate::verifier::{opaque_address, store, store_from};

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

/// What one end of a packet becomes.
pub struct Translation<'a> {
    pub end: End,
    pub addr: &'a Addr,
    /// Port or echo identifier.
    pub port: u16,
}

/// Takes one hop off and, where wanted, replaces address and port of one end. The caller has seen that one hop is left.
///
/// The headers are written where they lie: the parser has had them in the linear part, and a packet that others share is
/// made our own by the kernel before a program begins that writes. The checksum of layer 4 is left to the helpers.
#[inline(always)]
pub fn forward<const L2: usize>(
    ctx: &TcContext,
    packet: &Packet,
    translation: Option<Translation<'_>>,
) -> Result<(), DropReason> {
    let summed = if packet.is_v4 { v4::<L2>(ctx, packet, &translation)? } else { v6::<L2>(ctx, packet, &translation)? };
    let Some(Translation { end, addr, port }) = translation else { return Ok(()) };
    // The first fragment carries the only checksum of layer 4, and has been corrected for the whole packet.
    if !summed || packet.part == Part::Later {
        return Ok(());
    }
    let (old_addr, old_port) = old(packet, end);
    let l4 = L2 + packet.l4();
    let (checksum, flags) = match packet.key.protocol {
        IPPROTO_TCP => (l4 + 16, 0),
        IPPROTO_UDP => (l4 + 6, BPF_F_MARK_MANGLED_0 as u64),
        IPPROTO_ICMP | IPPROTO_ICMPV6 => (l4 + 2, 0),
        _ => return Err(DropReason::Internal),
    };
    // ICMP has no pseudo header, ICMPv6 has one.
    if packet.key.protocol != IPPROTO_ICMP {
        checksum_address(ctx, packet.is_v4, checksum, old_addr, addr, flags | BPF_F_PSEUDO_HDR as u64)?;
    }
    if port != old_port {
        done(ctx.l4_csum_replace(checksum, old_port as u64, port as u64, flags | 2))?;
    }
    Ok(())
}

/// Returns whether there may be a checksum of layer 4.
#[inline(always)]
fn v4<const L2: usize>(
    ctx: &TcContext,
    packet: &Packet,
    translation: &Option<Translation<'_>>,
) -> Result<bool, DropReason> {
    let ip = linear::<L2, 0, { size_of::<Ipv4>() }>(ctx)?.cast::<Ipv4>();
    let word = |ttl: u8| u16::from_ne_bytes([ttl, packet.key.protocol as u8]) as u64;
    // SAFETY: `linear` has checked the length.
    unsafe {
        // RFC 1624 §3: the sum of the complements of what goes, and of what comes.
        let mut sum = !(*ip).checksum as u64 + (!word(packet.ttl) & 0xffff) + word(packet.ttl.wrapping_sub(1));
        if let Some(Translation { end, addr, .. }) = translation {
            let (from, to) = (old(packet, *end).0.words[3], addr.words[3]);
            sum += !from as u64 + to as u64;
            if matches!(end, End::Source) {
                (*ip).source = to;
            } else {
                (*ip).destination = to;
            }
        }
        (*ip).ttl = packet.ttl.wrapping_sub(1);
        (*ip).checksum = !fold(sum);
    }
    match translation {
        Some(Translation { end, port, .. }) if packet.part != Part::Later => {
            set_port::<L2, { size_of::<Ipv4>() }>(ctx, packet, *end, *port)
        }
        _ => Ok(true),
    }
}

/// Returns whether there may be a checksum of layer 4.
#[inline(always)]
fn v6<const L2: usize>(
    ctx: &TcContext,
    packet: &Packet,
    translation: &Option<Translation<'_>>,
) -> Result<bool, DropReason> {
    let ip = linear::<L2, 0, { size_of::<Ipv6>() }>(ctx)?.cast::<Ipv6>();
    // SAFETY: `linear` has checked the length.
    unsafe {
        (*ip).hop_limit = packet.ttl.wrapping_sub(1);
        match translation {
            Some(Translation { end: End::Source, addr, .. }) => (*ip).source = addr.words,
            Some(Translation { end: End::Destination, addr, .. }) => (*ip).destination = addr.words,
            None => {}
        }
    }
    match (translation, packet.part) {
        (Some(Translation { end, port, .. }), Part::All) => {
            set_port::<L2, { size_of::<Ipv6>() }>(ctx, packet, *end, *port)
        }
        (Some(Translation { end, port, .. }), Part::First) => {
            set_port::<L2, { size_of::<Ipv6>() + FRAGMENT_LEN }>(ctx, packet, *end, *port)
        }
        _ => Ok(true),
    }
}

/// Writes the port, or echo identifier, of the header of layer 4 at `AT`. Returns whether there may be a checksum: UDP can do
/// without (RFC 768).
#[inline(always)]
fn set_port<const L2: usize, const AT: usize>(
    ctx: &TcContext,
    packet: &Packet,
    end: End,
    port: u16,
) -> Result<bool, DropReason> {
    /// The shortest header of layer 4.
    const LEN: usize = 8;
    let l4 = linear::<L2, AT, LEN>(ctx)?;
    // SAFETY: `linear` has checked the length; headers are aligned as in the parser.
    unsafe {
        let at = match (packet.key.protocol, end) {
            (IPPROTO_ICMP | IPPROTO_ICMPV6, _) => opaque_address(l4.add(4).cast_const()),
            (_, End::Source) => opaque_address(l4.cast_const()),
            (_, End::Destination) => opaque_address(l4.add(2).cast_const()),
        };
        at.cast_mut().cast::<u16>().write(port);
        Ok(packet.key.protocol != IPPROTO_UDP || l4.add(6).cast::<u16>().read() != 0)
    }
}

/// `LEN` bytes at `L2 + AT` of the linear part.
#[inline(always)]
fn linear<const L2: usize, const AT: usize, const LEN: usize>(ctx: &TcContext) -> Result<*mut u8, DropReason> {
    let start = ctx.data();
    if start + L2 + AT + LEN > ctx.data_end() {
        return Err(DropReason::Rewrite);
    }
    Ok((start + L2 + AT) as *mut u8)
}

/// Address and port of one end as they stand in the packet.
#[inline(always)]
fn old(packet: &Packet, end: End) -> (&Addr, u16) {
    match end {
        End::Source => (&packet.key.src, packet.key.src_port),
        End::Destination => (&packet.key.dst, packet.key.dst_port),
    }
}

/// A sum of words in one word.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
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
