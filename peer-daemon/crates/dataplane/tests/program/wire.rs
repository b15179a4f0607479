//! Packets byte by byte, and an independent, strict checker of everything that carries a checksum.

use std::net::IpAddr;
use std::ops::Range;

pub(crate) const ETH: usize = 14;
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const ICMPV6: u8 = 58;

/// The one's complement sum of RFC 1071, folded to 16 bits; not yet complemented.
pub(crate) fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            total += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

pub(crate) fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

pub(crate) fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// What stands in an IP header besides addresses and protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ip {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    /// IPv4: flags and offset as they stand; IPv6: offset and flag of a fragment header, if not zero.
    pub(crate) fragment: u16,
    pub(crate) id: u16,
}

impl Ip {
    pub(crate) const DONT: u16 = 0x4000;

    pub(crate) fn new(src: IpAddr, dst: IpAddr, protocol: u8) -> Self {
        Self { src, dst, protocol, ttl: 64, fragment: 0, id: 1 }
    }

    /// The packet, behind a link header.
    pub(crate) fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let kind: u16 = if self.src.is_ipv4() { 0x0800 } else { 0x86dd };
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        frame.extend(kind.to_be_bytes());
        frame.extend(self.packet(payload));
        frame
    }

    /// The packet from layer 3 on.
    pub(crate) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.src.is_ipv4() {
            bytes.extend([0x45, 0]);
            bytes.extend((20 + payload.len() as u16).to_be_bytes());
            bytes.extend(self.id.to_be_bytes());
            bytes.extend(self.fragment.to_be_bytes());
            bytes.extend([self.ttl, self.protocol, 0, 0]);
            bytes.extend(octets(self.src));
            bytes.extend(octets(self.dst));
            let header = !sum(&[&bytes]);
            put16(&mut bytes, 10, header);
        } else {
            let is_fragment = self.fragment != 0;
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend((payload.len() as u16 + if is_fragment { 8 } else { 0 }).to_be_bytes());
            bytes.extend([if is_fragment { FRAGMENT } else { self.protocol }, self.ttl]);
            bytes.extend(octets(self.src));
            bytes.extend(octets(self.dst));
            if is_fragment {
                bytes.extend([self.protocol, 0]);
                bytes.extend(self.fragment.to_be_bytes());
                bytes.extend(u32::from(self.id).to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }
}

/// The pseudo header of RFC 9293 §3.1 or RFC 8200 §8.1; the one of ICMP over IPv4 is empty.
fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    if protocol == ICMP {
        return Vec::new();
    }
    let mut pseudo = octets(src);
    pseudo.extend(octets(dst));
    pseudo.extend((len as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    pseudo
}

/// Where the checksum stands in a header of layer 4.
pub(crate) fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP => Some(6),
        ICMP | ICMPV6 => Some(2),
        _ => None,
    }
}

/// Fills in the checksum of a whole payload of layer 4.
pub(crate) fn seal(src: IpAddr, dst: IpAddr, protocol: u8, payload: &mut [u8]) {
    let Some(at) = checksum_at(protocol).filter(|at| at + 2 <= payload.len()) else { return };
    put16(payload, at, 0);
    let found = !sum(&[&pseudo_header(src, dst, protocol, payload.len()), payload]);
    put16(payload, at, if found == 0 && protocol == UDP { 0xffff } else { found });
}

/// Leaves the checksum to a device: the sum of the pseudo header stands in its place.
pub(crate) fn unfinish(src: IpAddr, dst: IpAddr, protocol: u8, payload: &mut [u8]) {
    let at = checksum_at(protocol).expect("a protocol with a checksum");
    put16(payload, at, sum(&[&pseudo_header(src, dst, protocol, payload.len())]));
}

/// A UDP datagram without the headers below.
pub(crate) fn udp_payload(src: (IpAddr, u16), dst: (IpAddr, u16), data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(src.1.to_be_bytes());
    bytes.extend(dst.1.to_be_bytes());
    bytes.extend((8 + data.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    seal(src.0, dst.0, UDP, &mut bytes);
    bytes
}

/// A TCP segment without the headers below; `options` is a multiple of four.
pub(crate) fn tcp_payload(src: (IpAddr, u16), dst: (IpAddr, u16), flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(src.1.to_be_bytes());
    bytes.extend(dst.1.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 1]);
    bytes.extend([((20 + options.len()) as u8 / 4) << 4, flags, 4, 0, 0, 0, 0, 0]);
    bytes.extend(options);
    bytes.extend(data);
    seal(src.0, dst.0, TCP, &mut bytes);
    bytes
}

/// An ICMP message of the family of `src`.
pub(crate) fn icmp_payload(src: IpAddr, dst: IpAddr, kind: (u8, u8), rest: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind.0, kind.1, 0, 0];
    bytes.extend(rest);
    bytes.extend(data);
    seal(src, dst, icmp_of(src), &mut bytes);
    bytes
}

/// The protocol number of ICMP in the family of `addr`.
pub(crate) fn icmp_of(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { ICMP } else { ICMPV6 }
}

/// An ICMP error from `src` to `dst` about `quoted`, a packet from layer 3 on.
pub(crate) fn icmp_error(src: IpAddr, dst: IpAddr, kind: (u8, u8), quoted: &[u8]) -> Vec<u8> {
    Ip::new(src, dst, icmp_of(src)).frame(&icmp_payload(src, dst, kind, [0, 0, 5, 0], quoted))
}

/// An IP header as it stands, without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    /// Offset of layer 4.
    pub(crate) l4: usize,
    /// Bytes of layer 3 that the header promises.
    pub(crate) len: usize,
    pub(crate) is_fragment: bool,
    pub(crate) is_first: bool,
}

/// Whether [`header`] can read what stands there.
pub(crate) fn is_readable(bytes: &[u8]) -> bool {
    bytes.len() >= 20 && bytes[0] == 0x45 || bytes.len() >= 48 && bytes[0] >> 4 == 6
}

/// Reads the IP header at the start of `bytes`, without insisting that all of the packet is there.
pub(crate) fn header(bytes: &[u8]) -> Header {
    let addr4 = |range: Range<usize>| IpAddr::from(<[u8; 4]>::try_from(&bytes[range]).expect("four"));
    let addr6 = |range: Range<usize>| IpAddr::from(<[u8; 16]>::try_from(&bytes[range]).expect("sixteen"));
    if bytes[0] >> 4 == 4 {
        let fragment = get16(bytes, 6);
        return Header {
            src: addr4(12..16),
            dst: addr4(16..20),
            protocol: bytes[9],
            ttl: bytes[8],
            l4: 20,
            len: get16(bytes, 2).into(),
            is_fragment: fragment & 0x3fff != 0,
            is_first: fragment & 0x1fff == 0,
        };
    }
    let is_fragment = bytes[6] == FRAGMENT;
    Header {
        src: addr6(8..24),
        dst: addr6(24..40),
        protocol: if is_fragment { bytes[40] } else { bytes[6] },
        ttl: bytes[7],
        l4: if is_fragment { 48 } else { 40 },
        len: 40 + usize::from(get16(bytes, 4)),
        is_fragment,
        is_first: !is_fragment || get16(bytes, 42) & 0xfff8 == 0,
    }
}

/// Insists on every checksum of the frame: IP header, layer 4, and for an ICMP error those of what it quotes as far as
/// it is quoted whole. Returns the header.
pub(crate) fn assert_sound(frame: &[u8]) -> Header {
    let outer = assert_sound_outside(frame);
    let bytes = &frame[ETH..];
    if !outer.is_fragment && is_error(outer.protocol, bytes[outer.l4]) {
        let quote = &bytes[outer.l4 + 8..outer.len];
        let inner = header(quote);
        if inner.len <= quote.len() {
            assert_part(&quote[..inner.len], &inner, "quoted ");
        } else if inner.src.is_ipv4() {
            assert_eq!(sum(&[&quote[..20]]), 0xffff, "quoted IPv4 header checksum");
        }
    }
    outer
}

/// As [`assert_sound`], whatever an ICMP error quotes.
pub(crate) fn assert_sound_outside(frame: &[u8]) -> Header {
    let bytes = &frame[ETH..];
    let outer = header(bytes);
    assert!(outer.len <= bytes.len(), "the packet is all there: {outer:?} in {}", bytes.len());
    assert_part(&bytes[..outer.len], &outer, "");
    outer
}

fn assert_part(bytes: &[u8], header: &Header, which: &str) {
    if header.src.is_ipv4() {
        assert_eq!(sum(&[&bytes[..20]]), 0xffff, "{which}IPv4 header checksum");
    }
    let Some(at) = checksum_at(header.protocol).filter(|_| !header.is_fragment) else { return };
    let payload = &bytes[header.l4..];
    if header.protocol == UDP && get16(payload, at) == 0 {
        return;
    }
    let pseudo = pseudo_header(header.src, header.dst, header.protocol, payload.len());
    assert_eq!(sum(&[&pseudo, payload]), 0xffff, "{which}checksum of layer 4, {header:?}");
}

/// Whether a frame is a TCP reset.
pub(crate) fn is_reset(frame: &[u8]) -> bool {
    let l3 = &frame[ETH..];
    is_readable(l3) && header(l3).protocol == TCP && l3[header(l3).l4 + 13] & 4 != 0
}

/// Whether an ICMP type is an error that quotes a packet.
pub(crate) fn is_error(protocol: u8, kind: u8) -> bool {
    match protocol {
        ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
        ICMPV6 => kind < 128,
        _ => false,
    }
}
