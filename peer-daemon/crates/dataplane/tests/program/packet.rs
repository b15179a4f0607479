//! Packets behind a link header, and what a strict reader says of them.

use std::net::IpAddr;

use etherparse::{NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice, ip_number};

pub(crate) const PAYLOAD: &[u8] = b"odd sized payload";
pub(crate) const TTL: u8 = 64;

fn ip(src: IpAddr, dst: IpAddr) -> PacketBuilderStep<etherparse::IpHeaders> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => link.ipv4(src.octets(), dst.octets(), TTL),
        (IpAddr::V6(src), IpAddr::V6(dst)) => link.ipv6(src.octets(), dst.octets(), TTL),
        _ => panic!("one family"),
    }
}

macro_rules! write {
    ($builder:expr) => {{
        let mut bytes = Vec::new();
        $builder.write(&mut bytes, PAYLOAD).expect("a vector takes all");
        bytes
    }};
}

/// TCP with an ACK, or with a SYN.
pub(crate) fn tcp(src: (IpAddr, u16), dst: (IpAddr, u16), syn: bool) -> Vec<u8> {
    let step = ip(src.0, dst.0).tcp(src.1, dst.1, 1, 1024);
    if syn { write!(step.syn()) } else { write!(step.ack(1)) }
}

pub(crate) fn udp(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Vec<u8> {
    write!(ip(src.0, dst.0).udp(src.1, dst.1))
}

/// UDP without a checksum.
pub(crate) fn udp_unchecked(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Vec<u8> {
    let mut bytes = udp(src, dst);
    let l4 = 14 + if src.0.is_ipv4() { 20 } else { 40 };
    bytes[l4 + 6..l4 + 8].fill(0);
    bytes
}

pub(crate) fn echo_request(src: IpAddr, dst: IpAddr, id: u16) -> Vec<u8> {
    if src.is_ipv4() {
        write!(ip(src, dst).icmpv4_echo_request(id, 1))
    } else {
        write!(ip(src, dst).icmpv6_echo_request(id, 1))
    }
}

pub(crate) fn echo_reply(src: IpAddr, dst: IpAddr, id: u16) -> Vec<u8> {
    if src.is_ipv4() {
        write!(ip(src, dst).icmpv4_echo_reply(id, 1))
    } else {
        write!(ip(src, dst).icmpv6_echo_reply(id, 1))
    }
}

/// Any protocol number over a payload that means nothing.
pub(crate) fn protocol(src: IpAddr, dst: IpAddr, number: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    ip(src, dst).write(&mut bytes, etherparse::IpNumber(number), PAYLOAD).expect("a vector takes all");
    bytes
}

/// An IPv4 header with a router alert option (RFC 2113) before UDP.
pub(crate) fn with_option(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Vec<u8> {
    let plain = udp(src, dst);
    let mut bytes = plain[..14 + 20].to_vec();
    bytes.extend([0x94, 4, 0, 0]);
    bytes.extend(&plain[14 + 20..]);
    bytes[14] = 0x46;
    let total = (bytes.len() - 14) as u16;
    bytes[16..18].copy_from_slice(&total.to_be_bytes());
    fix_ipv4_checksum(&mut bytes);
    bytes
}

/// A fragment of a UDP datagram that is not the first.
pub(crate) fn later_fragment(src: (IpAddr, u16), dst: (IpAddr, u16)) -> Vec<u8> {
    let mut bytes = udp(src, dst);
    bytes[21] = 4;
    fix_ipv4_checksum(&mut bytes);
    bytes
}

/// An IPv6 packet whose first header is `number`, with a plausible 8-byte extension header before UDP.
pub(crate) fn with_extension(src: (IpAddr, u16), dst: (IpAddr, u16), number: u8) -> Vec<u8> {
    let plain = udp(src, dst);
    let mut bytes = plain[..14 + 40].to_vec();
    bytes.extend([ip_number::UDP.0, 0, 1, 4, 0, 0, 0, 0]);
    bytes.extend(&plain[14 + 40..]);
    bytes[14 + 6] = number;
    let length = (bytes.len() - 14 - 40) as u16;
    bytes[14 + 4..14 + 6].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// Sets the TTL or hop limit.
pub(crate) fn with_ttl(mut bytes: Vec<u8>, ttl: u8) -> Vec<u8> {
    if bytes[14] >> 4 == 4 {
        bytes[14 + 8] = ttl;
        fix_ipv4_checksum(&mut bytes);
    } else {
        bytes[14 + 7] = ttl;
    }
    bytes
}

fn fix_ipv4_checksum(bytes: &mut [u8]) {
    let header = 14..14 + usize::from(bytes[14] & 0x0f) * 4;
    bytes[24..26].fill(0);
    let sum: u32 = bytes[header].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// What a receiver sees.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) src: (IpAddr, u16),
    pub(crate) dst: (IpAddr, u16),
    pub(crate) ttl: u8,
    /// A UDP checksum of zero: none.
    pub(crate) unchecked: bool,
}

/// Reads a packet and insists on every checksum. Echo identifiers stand as the source port of a request and the
/// destination port of a reply.
pub(crate) fn read(bytes: &[u8]) -> Seen {
    let packet = SlicedPacket::from_ethernet(bytes).expect("parses");
    let (src, dst, ttl): (IpAddr, IpAddr, u8) = match packet.net.as_ref().expect("has layer 3") {
        NetSlice::Ipv4(v4) => {
            let header = v4.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum(), "IPv4 header checksum");
            (header.source_addr().into(), header.destination_addr().into(), header.ttl())
        }
        NetSlice::Ipv6(v6) => {
            let header = v6.header();
            (header.source_addr().into(), header.destination_addr().into(), header.hop_limit())
        }
        NetSlice::Arp(_) => panic!("ARP"),
    };
    let (src_port, dst_port, found, calculated) = match packet.transport.as_ref().expect("has layer 4") {
        TransportSlice::Tcp(tcp) => {
            let sum = match (src, dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => tcp.calc_checksum_ipv4(src.octets(), dst.octets()),
                (IpAddr::V6(src), IpAddr::V6(dst)) => tcp.calc_checksum_ipv6(src.octets(), dst.octets()),
                _ => unreachable!("one family"),
            };
            (tcp.source_port(), tcp.destination_port(), tcp.checksum(), sum.expect("short enough"))
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let sum = match (src, dst) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => {
                    header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), udp.payload())
                }
                (IpAddr::V6(src), IpAddr::V6(dst)) => {
                    header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), udp.payload())
                }
                _ => unreachable!("one family"),
            };
            (udp.source_port(), udp.destination_port(), udp.checksum(), sum.expect("short enough"))
        }
        TransportSlice::Icmpv4(icmp) => {
            let sum = icmp.icmp_type().calc_checksum(icmp.payload());
            let (src, dst) = match icmp.icmp_type() {
                etherparse::Icmpv4Type::EchoRequest(echo) => (echo.id, 0),
                etherparse::Icmpv4Type::EchoReply(echo) => (0, echo.id),
                other => panic!("{other:?}"),
            };
            (src, dst, icmp.checksum(), sum)
        }
        TransportSlice::Icmpv6(icmp) => {
            let (IpAddr::V6(from), IpAddr::V6(to)) = (src, dst) else { panic!("family") };
            let sum = icmp.icmp_type().calc_checksum(from.octets(), to.octets(), icmp.payload()).expect("short enough");
            let (src, dst) = match icmp.icmp_type() {
                etherparse::Icmpv6Type::EchoRequest(echo) => (echo.id, 0),
                etherparse::Icmpv6Type::EchoReply(echo) => (0, echo.id),
                other => panic!("{other:?}"),
            };
            (src, dst, icmp.checksum(), sum)
        }
        TransportSlice::Igmp(_) => panic!("IGMP"),
    };
    let unchecked = found == 0 && matches!(packet.transport, Some(TransportSlice::Udp(_)));
    if !unchecked {
        assert_eq!(found, calculated, "layer 4 checksum of {src}:{src_port} → {dst}:{dst_port}");
    }
    Seen { src: (src, src_port), dst: (dst, dst_port), ttl, unchecked }
}
