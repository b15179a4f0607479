//! A packet that somebody describes. Pure.

use std::net::IpAddr;

use crate::flows::End;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// The first packet of a flow, from the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// IP protocol number.
    pub protocol: u8,
    /// Who sends it. Of ICMP echo the port is the identifier.
    pub source: End,
    /// Whom it is for. Of ICMP echo the port is nothing.
    pub destination: End,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Bytes of layer 3; no less than the headers have.
    pub len: u16,
}

/// The largest packet that a program can be asked about: a page, less what the kernel puts beside it.
pub const MAX_LEN: u16 = 3000;

impl Packet {
    /// As small as it can be.
    #[must_use]
    pub fn new(protocol: u8, source: End, destination: End) -> Self {
        Self { protocol, source, destination, ttl: 64, len: 0 }
    }

    /// Behind a link header, without checksums, which no program looks at. `None`: the ends are of two families.
    #[must_use]
    pub fn frame(&self) -> Option<Vec<u8>> {
        let header = if self.source.addr.is_ipv4() { 20 } else { 40 };
        let mut payload = self.payload();
        payload.resize(payload.len().max(usize::from(self.len.min(MAX_LEN)).saturating_sub(header)), 0);
        if self.protocol == UDP {
            let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            payload[4..6].copy_from_slice(&len.to_be_bytes());
        }
        let kind: u16 = if self.source.addr.is_ipv4() { 0x0800 } else { 0x86dd };
        let mut frame = vec![0; 12];
        frame.extend(kind.to_be_bytes());
        match (self.source.addr, self.destination.addr) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let len = u16::try_from(20 + payload.len()).ok()?;
                frame.extend([0x45, 0]);
                frame.extend(len.to_be_bytes());
                frame.extend([0, 1, 0x40, 0, self.ttl, self.protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let len = u16::try_from(payload.len()).ok()?;
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(len.to_be_bytes());
                frame.extend([self.protocol, self.ttl]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            _ => return None,
        }
        frame.extend(payload);
        Some(frame)
    }

    /// Layer 4, as short as its header.
    fn payload(&self) -> Vec<u8> {
        const SYN: u8 = 2;
        let mut bytes = Vec::new();
        match self.protocol {
            TCP | UDP => {
                bytes.extend(self.source.port.to_be_bytes());
                bytes.extend(self.destination.port.to_be_bytes());
                let rest: &[u8] = if self.protocol == TCP {
                    &[0, 0, 0, 0, 0, 0, 0, 0, 5 << 4, SYN, 4, 0, 0, 0, 0, 0]
                } else {
                    &[0; 4]
                };
                bytes.extend(rest);
            }
            ICMP | ICMPV6 => {
                bytes.extend([if self.protocol == ICMP { 8 } else { 128 }, 0, 0, 0]);
                bytes.extend(self.source.port.to_be_bytes());
                bytes.extend([0, 1]);
            }
            _ => bytes.resize(8, 0),
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    fn end(addr: &str, port: u16) -> End {
        End { addr: addr.parse().expect("an address"), port }
    }

    #[test]
    fn a_parser_of_others_reads_what_was_described() {
        for (source, destination) in [("100.64.0.2", "198.51.100.80"), ("fd00::2", "2001:db8::80")] {
            for (protocol, len) in [(TCP, 0), (UDP, 0), (UDP, 1500), (TCP, 1281)] {
                let packet =
                    Packet { len, ttl: 9, ..Packet::new(protocol, end(source, 40_000), end(destination, 443)) };
                let frame = packet.frame().expect("one family");
                let parsed = SlicedPacket::from_ethernet(&frame).expect("well-formed");
                let ttl = match parsed.net.expect("layer 3") {
                    NetSlice::Ipv4(ip) => ip.header().ttl(),
                    NetSlice::Ipv6(ip) => ip.header().hop_limit(),
                    NetSlice::Arp(_) => panic!("ARP"),
                };
                let ports = match parsed.transport.expect("layer 4") {
                    TransportSlice::Tcp(tcp) => {
                        assert!(tcp.syn() && !tcp.ack() && protocol == TCP);
                        (tcp.source_port(), tcp.destination_port())
                    }
                    TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
                    other => panic!("{other:?}"),
                };
                assert_eq!((ttl, ports), (9, (40_000, 443)));
                let least = frame.len() - 14;
                assert!(least == usize::from(len) || len == 0, "{least} bytes");
            }
        }
    }

    #[test]
    fn echo_has_its_identifier_and_anything_else_its_number() {
        let echo = Packet::new(ICMP, end("100.64.0.2", 7), end("198.51.100.80", 0)).frame().expect("one family");
        assert_eq!((echo[14 + 20], &echo[14 + 24..14 + 26]), (8, &[0, 7][..]));
        let sctp = Packet::new(132, end("fd00::2", 0), end("fd00::3", 0)).frame().expect("one family");
        let parsed = SlicedPacket::from_ethernet(&sctp).expect("well-formed");
        let NetSlice::Ipv6(ip) = parsed.net.expect("layer 3") else { panic!("IPv6") };
        assert_eq!(ip.header().next_header(), IpNumber(132));
        assert_eq!(Packet::new(TCP, end("fd00::2", 1), end("10.0.0.1", 1)).frame(), None, "two families");
    }
}
