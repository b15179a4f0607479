//! Packets that no honest program sends.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};

use super::namespace::Namespace;
use crate::sys::packet_socket::PacketSocket;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;

/// A packet of layer 3, to be bent.
#[derive(Clone, Debug)]
pub struct Datagram {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: Vec<u8>,
    ipv4_options: Vec<u8>,
    /// Offset in eight bytes, and whether more follow.
    fragment: Option<(u16, bool)>,
    destination_options: bool,
    hops: u8,
    identification: u16,
    dont_fragment: bool,
}

impl Datagram {
    /// A UDP datagram with correct checksums. Both addresses are of one family.
    #[must_use]
    pub fn udp(source: (IpAddr, u16), destination: (IpAddr, u16), content: &[u8]) -> Self {
        let length = (8 + content.len()) as u16;
        let mut payload = Vec::with_capacity(usize::from(length));
        payload.extend(source.1.to_be_bytes());
        payload.extend(destination.1.to_be_bytes());
        payload.extend(length.to_be_bytes());
        payload.extend([0; 2]);
        payload.extend(content);
        let sum = checksum(&[&pseudo_header(source.0, destination.0, UDP, length), &payload]);
        payload[6..8].copy_from_slice(&sum.to_be_bytes());
        Self::of(UDP, source.0, destination.0, payload)
    }

    /// A packet of any protocol.
    #[must_use]
    pub fn of(protocol: u8, source: IpAddr, destination: IpAddr, payload: Vec<u8>) -> Self {
        Self {
            source,
            destination,
            protocol,
            payload,
            ipv4_options: Vec::new(),
            fragment: None,
            destination_options: false,
            hops: 64,
            identification: 0x1234,
            dont_fragment: false,
        }
    }

    /// With an IPv4 option: router alert, the most harmless of all.
    #[must_use]
    pub fn with_ipv4_option(mut self) -> Self {
        self.ipv4_options = vec![148, 4, 0, 0];
        self
    }

    /// With an IPv6 extension header: destination options that say nothing.
    #[must_use]
    pub fn with_extension_header(mut self) -> Self {
        self.destination_options = true;
        self
    }

    /// As a fragment: its offset in eight bytes, and whether more follow.
    #[must_use]
    pub fn as_fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = Some((offset, more));
        self
    }

    /// Cut into fragments of up to `size` bytes of payload, a multiple of eight, in order.
    #[must_use]
    pub fn fragments(&self, size: usize, identification: u16) -> Vec<Self> {
        let count = self.payload.len().div_ceil(size);
        let part = |(index, part): (usize, &[u8])| Self {
            payload: part.to_vec(),
            fragment: Some(((index * size / 8) as u16, index + 1 < count)),
            identification,
            ..self.clone()
        };
        self.payload.chunks(size).enumerate().map(part).collect()
    }

    /// A TCP segment without payload.
    #[must_use]
    pub fn tcp(source: (IpAddr, u16), destination: (IpAddr, u16), sequence: u32, flags: u8) -> Self {
        let mut payload = Vec::with_capacity(20);
        payload.extend(source.1.to_be_bytes());
        payload.extend(destination.1.to_be_bytes());
        payload.extend(sequence.to_be_bytes());
        payload.extend([0, 0, 0, 0, 5 << 4, flags, 0x20, 0, 0, 0, 0, 0]);
        let sum = checksum(&[&pseudo_header(source.0, destination.0, TCP, 20), &payload]);
        payload[16..18].copy_from_slice(&sum.to_be_bytes());
        Self::of(TCP, source.0, destination.0, payload)
    }

    /// An echo request.
    #[must_use]
    pub fn echo(source: IpAddr, destination: IpAddr, identifier: u16, content: &[u8]) -> Self {
        let v6 = source.is_ipv6();
        let mut payload = vec![if v6 { 128 } else { 8 }, 0, 0, 0];
        payload.extend(identifier.to_be_bytes());
        payload.extend([0, 1]);
        payload.extend(content);
        let protocol = if v6 { ICMPV6 } else { ICMP };
        let pseudo = if v6 { pseudo_header(source, destination, ICMPV6, payload.len() as u16) } else { Vec::new() };
        let sum = checksum(&[&pseudo, &payload]);
        payload[2..4].copy_from_slice(&sum.to_be_bytes());
        Self::of(protocol, source, destination, payload)
    }

    /// That must not be fragmented.
    #[must_use]
    pub fn with_dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// A UDP datagram that carries no checksum.
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        self.payload[6..8].fill(0);
        self
    }

    /// With another TTL or hop limit than 64.
    #[must_use]
    pub fn with_hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// Its bytes.
    ///
    /// # Errors
    /// The addresses are of two families.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Ok(self.ipv4(source.octets(), destination.octets())),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Ok(self.ipv6(source.octets(), destination.octets())),
            (source, destination) => bail!("{source} and {destination} are of two families"),
        }
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let header = 20 + self.ipv4_options.len();
        let (offset, more) = self.fragment.unwrap_or_default();
        let mut packet = vec![0x40 | (header / 4) as u8, 0];
        packet.extend(((header + self.payload.len()) as u16).to_be_bytes());
        packet.extend(self.identification.to_be_bytes());
        packet.extend((offset | u16::from(more) << 13 | u16::from(self.dont_fragment) << 14).to_be_bytes());
        packet.extend([self.hops, self.protocol, 0, 0]);
        packet.extend(source);
        packet.extend(destination);
        packet.extend(&self.ipv4_options);
        let sum = checksum(&[&packet]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(&self.payload);
        packet
    }

    fn ipv6(&self, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let mut body = self.payload.clone();
        let mut next = self.protocol;
        if self.destination_options {
            // One option, PadN, that fills the header to eight bytes.
            body.splice(0..0, [next, 0, 1, 4, 0, 0, 0, 0]);
            next = DESTINATION_OPTIONS;
        }
        if let Some((offset, more)) = self.fragment {
            let id = self.identification.to_be_bytes();
            let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
            body.splice(0..0, [next, 0, high, low, 0, 0, id[0], id[1]]);
            next = FRAGMENT;
        }
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((body.len() as u16).to_be_bytes());
        packet.extend([next, self.hops]);
        packet.extend(source);
        packet.extend(destination);
        packet.extend(body);
        packet
    }
}

/// Sends packets out of a device, past the stack of the namespace.
///
/// # Errors
/// No such device, or it refuses.
pub fn forge(from: &Namespace, device: &str, packets: &[Datagram]) -> Result<()> {
    let socket = from.enter(|| PacketSocket::open(device)).with_context(|| format!("{}: {device}", from.name()))?;
    for packet in packets {
        socket.send(&packet.bytes()?).with_context(|| format!("{}: send out of {device}", from.name()))?;
    }
    Ok(())
}

/// Sends packets that are bytes already, many in one call.
///
/// # Errors
/// As [`forge`].
pub fn forge_bytes(from: &Namespace, device: &str, packets: &[Vec<u8>]) -> Result<()> {
    let socket = from.enter(|| PacketSocket::open(device)).with_context(|| format!("{}: {device}", from.name()))?;
    let mut left = packets;
    while !left.is_empty() {
        let sent = socket.send_many(left).with_context(|| format!("{}: send out of {device}", from.name()))?;
        left = &left[sent..];
    }
    Ok(())
}

/// As [`forge_bytes`], to a neighbour on the wire: `to` has the address on its device `their`.
///
/// # Errors
/// As [`forge`]; the neighbour's device has no hardware address.
pub fn forge_towards(from: &Namespace, device: &str, to: &Namespace, their: &str, packets: &[Vec<u8>]) -> Result<()> {
    let socket = from.enter(|| PacketSocket::open(device)).with_context(|| format!("{}: {device}", from.name()))?;
    let hardware = hardware(to, their)?;
    let socket = socket.towards(hardware.try_into().ok().context("a hardware address has six bytes")?);
    let mut left = packets;
    while !left.is_empty() {
        let sent = socket.send_many(left).with_context(|| format!("{}: send out of {device}", from.name()))?;
        left = &left[sent..];
    }
    Ok(())
}

/// Says to all of a wire that an IPv4 address is at this device now: a gratuitous ARP request (RFC 5227 §3).
///
/// # Errors
/// No such device, or no hardware address.
pub fn announce(from: &Namespace, device: &str, address: std::net::Ipv4Addr) -> Result<()> {
    let hardware = hardware(from, device)?;
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(&hardware);
    packet.extend(address.octets());
    packet.extend([0; 6]);
    packet.extend(address.octets());
    let socket = from.enter(|| PacketSocket::open(device))?;
    Ok(socket.send_as(libc::ETH_P_ARP, &[0xff; 6], &packet)?)
}

/// The hardware address of a device.
fn hardware(of: &Namespace, device: &str) -> Result<Vec<u8>> {
    let text = of.exec("cat", &[&format!("/sys/class/net/{device}/address")])?;
    Ok(text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?)
}

/// The internet checksum (RFC 1071) of the parts one after the other; all but the last have an even length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// What checksums of layer 4 take in beside the packet.
pub(crate) fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: u16) -> Vec<u8> {
    let mut header = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => header.extend(address.octets()),
            IpAddr::V6(address) => header.extend(address.octets()),
        }
    }
    // The sum does not depend on how wide the two fields are.
    header.extend([0, protocol]);
    header.extend(length.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::{Datagram, checksum};

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[test]
    fn checksum_of_the_example_in_rfc_1071() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }

    #[test]
    fn headers_say_what_follows() {
        let plain = Datagram::udp((V4, 1), (V4, 2), b"abc");
        let bytes = plain.clone().with_ipv4_option().bytes().expect("one family");
        assert_eq!((bytes[0], bytes.len(), usize::from(bytes[3])), (0x46, 24 + 11, 24 + 11));
        assert_eq!(checksum(&[&bytes[..24]]), 0, "a header with its checksum sums to zero");
        let bytes = plain.as_fragment(3, true).bytes().expect("one family");
        assert_eq!(bytes[6..8], [0x20, 3]);
        let bytes = Datagram::udp((V6, 1), (V6, 2), b"abc").with_extension_header().bytes().expect("one family");
        assert_eq!((bytes[6], bytes[40], bytes[5]), (60, 17, 8 + 11));
        let bytes = Datagram::udp((V6, 1), (V6, 2), b"abc").as_fragment(3, true).bytes().expect("one family");
        assert_eq!((bytes[6], bytes[40], &bytes[42..44]), (44, 17, &[0, 25][..]));
        assert!(Datagram::udp((V4, 1), (V6, 2), b"").bytes().is_err());
    }
}
