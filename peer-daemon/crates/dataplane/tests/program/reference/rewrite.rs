//! Changing a packet and correcting its checksums by difference (RFC 1624), so that a wrong one stays wrong.

use std::net::IpAddr;

use super::parse::{Parsed, Part, Quoted, Tuple};
use crate::wire::{ETH, ICMP, Ip, TCP, UDP, checksum_at, get16, icmp_of, icmp_payload, octets, put16, seal, sum};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

impl End {
    fn other(self) -> Self {
        if self == Self::Source { Self::Destination } else { Self::Source }
    }
}

/// Corrects the checksum at `at` for `old` that becomes `new`. A UDP checksum of zero is none.
fn correct(l3: &mut [u8], at: usize, udp: bool, old: &[u8], new: &[u8]) {
    let before = get16(l3, at);
    if udp && before == 0 {
        return;
    }
    // Bytes are summed by pairs: what stands behind an odd one is zero.
    let mut complement: Vec<u8> = old.iter().map(|byte| !byte).collect();
    complement.resize(old.len().next_multiple_of(2), 0xff);
    let after = !sum(&[&(!before).to_be_bytes(), &complement, new]);
    put16(l3, at, if udp && after == 0 { 0xffff } else { after });
}

pub(crate) fn decrement_ttl(frame: &mut [u8]) {
    let l3 = &mut frame[ETH..];
    if l3[0] >> 4 == 6 {
        l3[7] -= 1;
        return;
    }
    let old = [l3[8], l3[9]];
    l3[8] -= 1;
    let new = [l3[8], l3[9]];
    correct(l3, 10, false, &old, &new);
}

/// Replaces the address in the IP header at `ip`.
fn set_address(l3: &mut [u8], ip: usize, end: End, to: IpAddr) {
    let to = octets(to);
    let first = match (to.len(), end) {
        (4, End::Source) => 12,
        (4, End::Destination) => 16,
        (_, End::Source) => 8,
        (_, End::Destination) => 24,
    };
    let range = ip + first..ip + first + to.len();
    let old = l3[range.clone()].to_vec();
    if to.len() == 4 {
        correct(l3, ip + 10, false, &old, &to);
    }
    l3[range].copy_from_slice(&to);
}

fn port_at(protocol: u8, end: End) -> usize {
    match (protocol, end) {
        (TCP | UDP, End::Source) => 0,
        (TCP | UDP, End::Destination) => 2,
        _ => 4,
    }
}

/// Replaces one end of a packet.
pub(crate) fn translate(frame: &mut [u8], parsed: &Parsed, end: End, to: (IpAddr, u16)) {
    let l3 = &mut frame[ETH..];
    let protocol = parsed.tuple.protocol;
    let from = if end == End::Source { parsed.tuple.src } else { parsed.tuple.dst };
    if parsed.part != Part::Later {
        let at = parsed.l4 + checksum_at(protocol).expect("a protocol with a checksum");
        if protocol != ICMP {
            correct(l3, at, protocol == UDP, &octets(from.0), &octets(to.0));
        }
        let port = parsed.l4 + port_at(protocol, end);
        if from.1 != to.1 {
            correct(l3, at, protocol == UDP, &from.1.to_be_bytes(), &to.1.to_be_bytes());
        }
        put16(l3, port, to.1);
    }
    set_address(l3, 0, end, to.0);
}

/// Replaces one end of an ICMP error and the other end of what it quotes.
pub(crate) fn translate_error(frame: &mut [u8], parsed: &Parsed, quoted: &Quoted, end: End, to: (IpAddr, u16)) {
    let l3 = &mut frame[ETH..];
    let icmp = parsed.l4 + 2;
    let inner_end = end.other();
    let inner = if inner_end == End::Source { quoted.tuple.src } else { quoted.tuple.dst };
    let outer = if end == End::Source { parsed.tuple.src } else { parsed.tuple.dst };
    let before = l3[parsed.l4 + 8..parsed.len].to_vec();
    let protocol = quoted.tuple.protocol;
    let checksum = quoted.l4 + checksum_at(protocol).expect("a protocol with a checksum");
    if checksum + 2 <= parsed.len {
        if protocol != ICMP {
            correct(l3, checksum, protocol == UDP, &octets(inner.0), &octets(to.0));
        }
        correct(l3, checksum, protocol == UDP, &inner.1.to_be_bytes(), &to.1.to_be_bytes());
    }
    put16(l3, quoted.l4 + port_at(protocol, inner_end), to.1);
    set_address(l3, quoted.ip, inner_end, to.0);
    let after = l3[parsed.l4 + 8..parsed.len].to_vec();
    correct(l3, icmp, false, &before, &after);
    if !parsed.is_v4() {
        correct(l3, icmp, false, &octets(outer.0), &octets(to.0));
    }
    set_address(l3, 0, end, to.0);
}

/// Lowers the segment size of a SYN to what `mtu` leaves. Returns whether it did.
pub(crate) fn clamp(frame: &mut [u8], parsed: &Parsed, mtu: usize) -> bool {
    if parsed.tuple.protocol != TCP || parsed.tcp_flags & 2 == 0 || parsed.part == Part::Later {
        return false;
    }
    let l3 = &mut frame[ETH..];
    let most = mtu.saturating_sub(parsed.l4 + 20) as u16;
    let (mut at, end) = (parsed.l4 + 20, parsed.headers);
    while at + 4 <= end {
        match (l3[at], l3[at + 1]) {
            (0, _) => return false,
            (1, _) => at += 1,
            (2, 4) => {
                if get16(l3, at + 2) <= most {
                    return false;
                }
                // Whole words around the value, wherever it begins.
                let words = (at + 2) & !1..(at + 5) & !1;
                let old = l3[words.clone()].to_vec();
                put16(l3, at + 2, most);
                let new = l3[words].to_vec();
                correct(l3, parsed.l4 + 16, false, &old, &new);
                return true;
            }
            (_, 0 | 1) => return false,
            (_, size) => at += usize::from(size),
        }
    }
    false
}

/// What an error says.
#[derive(Clone, Copy)]
pub(crate) enum Said {
    TimeExceeded,
    /// With the MTU.
    TooBig(usize),
    /// With the code of the packet's family.
    Unreachable(u8),
}

/// The error that tells the sender of `frame` that it cannot go on: from layer 3 on.
pub(crate) fn own_error(l3: &[u8], parsed: &Parsed, source: IpAddr, said: Said) -> Vec<u8> {
    let most = if parsed.is_v4() { 576 - 28 } else { 1280 - 48 };
    let (kind, rest) = match (said, parsed.is_v4()) {
        (Said::TimeExceeded, true) => ((11, 0), 0),
        (Said::TimeExceeded, false) => ((3, 0), 0),
        (Said::TooBig(mtu), true) => ((3, 4), mtu as u32),
        (Said::TooBig(mtu), false) => ((2, 0), mtu as u32),
        (Said::Unreachable(code), true) => ((3, code), 0),
        (Said::Unreachable(code), false) => ((1, code), 0),
    };
    let to = parsed.tuple.src.0;
    own(source, to, icmp_of(to), &icmp_payload(source, to, kind, rest.to_be_bytes(), &l3[..parsed.len.min(most)]))
}

/// A reset, from layer 3 on.
pub(crate) fn own_reset(tuple: Tuple, seq: u32, ack: u32, flags: u8) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(tuple.src.1.to_be_bytes());
    segment.extend(tuple.dst.1.to_be_bytes());
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    seal(tuple.src.0, tuple.dst.0, TCP, &mut segment);
    own(tuple.src.0, tuple.dst.0, TCP, &segment)
}

fn own(source: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    Ip { fragment: if to.is_ipv4() { Ip::DONT } else { 0 }, id: 0, ..Ip::new(source, to, protocol) }.packet(payload)
}
