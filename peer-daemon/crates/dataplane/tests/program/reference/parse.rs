//! Reading a packet the slow way: slices and early returns.

use std::net::IpAddr;

use peer_common::DropReason;

use crate::wire::{FRAGMENT, ICMP, ICMPV6, TCP, UDP, get16, is_error};

/// A 5-tuple; echo identifiers stand where `peer_common::FlowKey` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tuple {
    pub(crate) src: (IpAddr, u16),
    pub(crate) dst: (IpAddr, u16),
    pub(crate) protocol: u8,
}

impl Tuple {
    pub(crate) fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, protocol: self.protocol }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    All,
    First,
    Later,
}

/// What a TCP header says besides ports and flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
    /// Bytes of payload.
    pub(crate) data: u32,
    pub(crate) scale: u8,
    pub(crate) timestamp: Option<u32>,
}

#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) tuple: Tuple,
    /// Why the tuple does not judge the packet.
    pub(crate) problem: Option<DropReason>,
    pub(crate) len: usize,
    /// Bytes of layers 3 and 4, 0 where unknown.
    pub(crate) headers: usize,
    pub(crate) l4: usize,
    pub(crate) ttl: u8,
    pub(crate) tcp_flags: u8,
    pub(crate) tcp: Segment,
    pub(crate) is_query: bool,
    pub(crate) icmp_kind: u8,
    pub(crate) part: Part,
    pub(crate) whole: bool,
    pub(crate) id: u32,
}

impl Parsed {
    pub(crate) fn is_v4(&self) -> bool {
        self.tuple.src.0.is_ipv4()
    }
}

/// `None`: malformed.
pub(crate) fn parse(l3: &[u8]) -> Option<Parsed> {
    if l3.len() < 20 {
        return None;
    }
    match l3[0] >> 4 {
        4 => parse_v4(l3),
        6 => parse_v6(l3),
        _ => None,
    }
}

fn blank(src: IpAddr, dst: IpAddr, protocol: u8, len: usize, ttl: u8) -> Parsed {
    Parsed {
        tuple: Tuple { src: (src, 0), dst: (dst, 0), protocol },
        problem: None,
        len,
        headers: 0,
        l4: 0,
        ttl,
        tcp_flags: 0,
        tcp: Segment::default(),
        is_query: false,
        icmp_kind: 0,
        part: Part::All,
        whole: true,
        id: 0,
    }
}

fn parse_v4(l3: &[u8]) -> Option<Parsed> {
    let header_len = usize::from(l3[0] & 15) * 4;
    let len = usize::from(get16(l3, 2));
    if header_len < 20 || len < header_len || len > l3.len() {
        return None;
    }
    let addr = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&l3[at..at + 4]).expect("four"));
    let mut parsed = blank(addr(12), addr(16), l3[9], len, l3[8]);
    if header_len > 20 {
        parsed.problem = Some(DropReason::IpOptions);
        return Some(parsed);
    }
    let fragment = get16(l3, 6);
    parsed.l4 = 20;
    parsed.whole = fragment & 0x4000 != 0;
    parsed.id = get16(l3, 4).into();
    layer4(l3, parsed, fragment & 0x1fff != 0, fragment & 0x2000 != 0)
}

fn parse_v6(l3: &[u8]) -> Option<Parsed> {
    if l3.len() < 40 {
        return None;
    }
    let len = 40 + usize::from(get16(l3, 4));
    if len > l3.len() {
        return None;
    }
    let addr = |at: usize| <[u8; 16]>::try_from(&l3[at..at + 16]).expect("sixteen").into();
    let (src, dst): (std::net::Ipv6Addr, std::net::Ipv6Addr) = (addr(8), addr(24));
    if src.to_ipv4_mapped().is_some() || dst.to_ipv4_mapped().is_some() {
        return None;
    }
    let mut parsed = blank(src.into(), dst.into(), l3[6], len, l3[7]);
    parsed.l4 = 40;
    match l3[6] {
        FRAGMENT if len < 48 => None,
        FRAGMENT => {
            parsed.tuple.protocol = l3[40];
            parsed.l4 = 48;
            parsed.id = u32::from_be_bytes([l3[44], l3[45], l3[46], l3[47]]);
            // A fragment header on a whole packet is an atomic fragment: a first one with nothing to follow.
            layer4(l3, parsed, get16(l3, 42) & 0xfff8 != 0, true)
        }
        0 | 43 | 51 | 60 | 135 | 139 | 140 => {
            parsed.problem = Some(DropReason::ExtensionHeader);
            Some(parsed)
        }
        _ => layer4(l3, parsed, false, false),
    }
}

fn layer4(l3: &[u8], mut parsed: Parsed, later: bool, more: bool) -> Option<Parsed> {
    if later {
        parsed.part = Part::Later;
        parsed.problem = Some(DropReason::Fragment);
        return Some(parsed);
    }
    if more {
        parsed.part = Part::First;
    }
    let bytes = &l3[parsed.l4..parsed.len];
    let is_icmp = if parsed.is_v4() { parsed.tuple.protocol == ICMP } else { parsed.tuple.protocol == ICMPV6 };
    match parsed.tuple.protocol {
        TCP => {
            let size = usize::from(*bytes.get(12)? >> 4) * 4;
            if bytes.len() < 20 || size < 20 || size > bytes.len() {
                return None;
            }
            (parsed.tuple.src.1, parsed.tuple.dst.1) = (get16(bytes, 0), get16(bytes, 2));
            parsed.headers = parsed.l4 + size;
            parsed.tcp_flags = bytes[13];
            parsed.tcp = Segment {
                seq: get32(bytes, 4),
                ack: get32(bytes, 8),
                window: get16(bytes, 14),
                data: (bytes.len() - size) as u32,
                scale: option(&bytes[20..size], 3, 3).map_or(0, |value| value[0].min(14)),
                timestamp: option(&bytes[20..size], 8, 10).map(|value| get32(value, 0)),
            };
        }
        UDP => {
            if bytes.len() < 8 {
                return None;
            }
            (parsed.tuple.src.1, parsed.tuple.dst.1) = (get16(bytes, 0), get16(bytes, 2));
            parsed.headers = parsed.l4 + 8;
        }
        _ if is_icmp => {
            if bytes.len() < 8 {
                return None;
            }
            parsed.headers = parsed.l4 + 8;
            parsed.icmp_kind = bytes[0];
            match query(bytes[0], parsed.is_v4()) {
                Some(true) => {
                    parsed.is_query = true;
                    parsed.tuple.src.1 = get16(bytes, 4);
                }
                Some(false) => parsed.tuple.dst.1 = get16(bytes, 4),
                None => parsed.problem = Some(DropReason::IcmpType),
            }
        }
        _ => parsed.problem = Some(DropReason::Protocol),
    }
    Some(parsed)
}

/// Whether an ICMP type asks (`true`) or answers.
fn query(kind: u8, v4: bool) -> Option<bool> {
    match (kind, v4) {
        (8, true) | (128, false) => Some(true),
        (0, true) | (129, false) => Some(false),
        _ => None,
    }
}

fn get32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The value of the last option of that kind and length.
fn option(mut options: &[u8], kind: u8, size: usize) -> Option<&[u8]> {
    let mut found = None;
    loop {
        options = match *options {
            [1, ref rest @ ..] => rest,
            [met, len, ..] if met != 0 && len >= 2 && usize::from(len) <= options.len() => {
                let (option, rest) = options.split_at(len.into());
                if (met, option.len()) == (kind, size) {
                    found = Some(&option[2..]);
                }
                rest
            }
            _ => return found,
        };
    }
}

/// What an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted {
    pub(crate) tuple: Tuple,
    /// Offset of the quoted IP header from layer 3 of the error.
    pub(crate) ip: usize,
    /// Offset of its layer 4.
    pub(crate) l4: usize,
    /// Its sequence number, of TCP.
    pub(crate) seq: u32,
}

/// `None`: no error that is translated, or none that quotes enough.
pub(crate) fn quoted(l3: &[u8], parsed: &Parsed) -> Option<Quoted> {
    let is_translated = match parsed.tuple.protocol {
        ICMP => matches!(parsed.icmp_kind, 3 | 11 | 12),
        ICMPV6 => matches!(parsed.icmp_kind, 1..=4),
        _ => false,
    };
    if parsed.part != Part::All || !is_translated || !is_error(parsed.tuple.protocol, parsed.icmp_kind) {
        return None;
    }
    let ip = parsed.l4 + 8;
    // What is read must lie in the packet, an IP header also in what a link put behind it.
    let quote = &l3[ip..];
    let end = parsed.len.checked_sub(ip)?;
    let (src, dst, mut protocol, mut l4): (IpAddr, IpAddr, u8, usize) = if parsed.is_v4() {
        if quote.len() < 20 || quote[0] != 0x45 || get16(quote, 6) & 0x1fff != 0 {
            return None;
        }
        let addr = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&quote[at..at + 4]).expect("four"));
        (addr(12), addr(16), quote[9], 20)
    } else {
        if quote.len() < 40 {
            return None;
        }
        let addr = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&quote[at..at + 16]).expect("sixteen"));
        (addr(8), addr(24), quote[6], 40)
    };
    if !parsed.is_v4() && protocol == FRAGMENT {
        if quote.len() < 48 || get16(quote, 42) & 0xfff8 != 0 {
            return None;
        }
        (protocol, l4) = (quote[40], 48);
    }
    if end < l4 + 8 {
        return None;
    }
    let header = &quote[l4..l4 + 8];
    let (src_port, dst_port) = match protocol {
        TCP | UDP => (get16(header, 0), get16(header, 2)),
        ICMP | ICMPV6 => match header[0] {
            8 | 128 => (get16(header, 4), 0),
            0 | 129 => (0, get16(header, 4)),
            _ => return None,
        },
        _ => return None,
    };
    Some(Quoted {
        tuple: Tuple { src: (src, src_port), dst: (dst, dst_port), protocol },
        ip,
        l4: ip + l4,
        seq: get32(header, 4),
    })
}
