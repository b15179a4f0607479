//! Changes to the packet. Always by the kernel's helpers: they know whether the checksum is complete, partial or none.

use core::mem::offset_of;

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::bpf_csum_diff;
use aya_ebpf::programs::TcContext;
use peer_common::{Addr, DropReason};

use crate::parse::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, Packet};

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
        return done(ctx.store(L2 + offset_of!(Ipv6, hop_limit), &ttl, 0));
    }
    let word = |ttl: u8| u16::from_ne_bytes([ttl, packet.key.protocol as u8]) as u64;
    done(ctx.l3_csum_replace(L2 + offset_of!(Ipv4, checksum), word(packet.ttl), word(ttl), 2))?;
    done(ctx.store(L2 + offset_of!(Ipv4, ttl), &ttl, 0))
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
    let l4 = L2 + packet.l4();
    let (checksum, port_at, flags) = match packet.key.protocol {
        IPPROTO_TCP => (l4 + 16, port_offset(l4, end), 0),
        IPPROTO_UDP => (l4 + 6, port_offset(l4, end), BPF_F_MARK_MANGLED_0 as u64),
        IPPROTO_ICMP | IPPROTO_ICMPV6 => (l4 + 2, l4 + 4, 0),
        _ => return Err(DropReason::Internal),
    };
    if packet.is_v4 {
        let at = L2 + if matches!(end, End::Source) { offset_of!(Ipv4, source) } else { offset_of!(Ipv4, destination) };
        let (from, to) = (old_addr.words[3], addr.words[3]);
        // ICMP has no pseudo header.
        if packet.key.protocol != IPPROTO_ICMP {
            let flags = flags | BPF_F_PSEUDO_HDR as u64 | 4;
            done(ctx.l4_csum_replace(checksum, from as u64, to as u64, flags))?;
        }
        done(ctx.l3_csum_replace(L2 + offset_of!(Ipv4, checksum), from as u64, to as u64, 4))?;
        done(ctx.store(at, &to, 0))?;
    } else {
        let at = L2 + if matches!(end, End::Source) { offset_of!(Ipv6, source) } else { offset_of!(Ipv6, destination) };
        let mut from = old_addr.words;
        let mut to = addr.words;
        // SAFETY: both point to 16 initialised bytes of the stack.
        let difference = unsafe { bpf_csum_diff(from.as_mut_ptr(), 16, to.as_mut_ptr(), 16, 0) };
        if difference < 0 {
            return Err(DropReason::Rewrite);
        }
        done(ctx.l4_csum_replace(checksum, 0, difference as u64, flags | BPF_F_PSEUDO_HDR as u64))?;
        done(ctx.store(at, &to, 0))?;
    }
    if port != old_port {
        done(ctx.l4_csum_replace(checksum, old_port as u64, port as u64, flags | 2))?;
        done(ctx.store(port_at, &port, 0))?;
    }
    Ok(())
}

#[inline(always)]
fn port_offset(l4: usize, end: End) -> usize {
    if matches!(end, End::Source) { l4 } else { l4 + 2 }
}

#[inline(always)]
fn done(result: Result<(), i64>) -> Result<(), DropReason> {
    result.map_err(|_| DropReason::Rewrite)
}
