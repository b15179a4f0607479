//! As much of IP, TCP and UDP as segmentation offload needs. Packets come from peers: nothing is believed.

use crate::checksum::Sum;

pub(crate) const TCP_FIN: u8 = 0x01;
pub(crate) const TCP_PSH: u8 = 0x08;
pub(crate) const TCP_ACK: u8 = 0x10;
pub(crate) const TCP_ECE: u8 = 0x40;
pub(crate) const TCP_CWR: u8 = 0x80;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;

/// A transport that can be segmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// Number in the IP header.
    pub(crate) fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where the checksum stands in the transport header.
    pub(crate) fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// A packet as far as its flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not an IP packet, or shorter than an IP header.
    Malformed,
    /// An IP packet without ports to be seen: a fragment, other protocols, IP options, extension headers, or one whose
    /// length is not what its header says.
    Portless,
    /// TCP or UDP, with complete headers.
    Flow(Layout),
}

/// Where things are in a TCP or UDP packet that has neither IP options nor extension headers and is no fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) v6: bool,
    pub(crate) transport: Transport,
    /// Offset of the payload: bytes of all headers.
    pub(crate) payload: usize,
}

impl Layout {
    /// Offset of the transport header.
    pub(crate) fn l4(&self) -> usize {
        if self.v6 { IPV6_HEADER } else { IPV4_HEADER }
    }

    /// Sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1) for `l4_len` bytes of transport header and payload.
    pub(crate) fn pseudo_header(&self, packet: &[u8], l4_len: u16) -> Sum {
        let sum = Sum::default().add_bytes(&packet[addresses(self.v6)]);
        sum.add_number(self.transport.protocol().into()).add_number(l4_len)
    }

    /// Whether all checksums of the packet are there and right. UDP over IPv4 may go without one: not here.
    pub(crate) fn checksums_valid(&self, packet: &[u8]) -> bool {
        let l4 = self.l4();
        let field = l4 + self.transport.checksum_offset();
        let none = self.transport == Transport::Udp && packet[field..field + 2] == [0; 2];
        let header = self.v6 || Sum::default().add_bytes(&packet[..IPV4_HEADER]).is_valid();
        let len = (packet.len() - l4) as u16;
        !none && header && self.pseudo_header(packet, len).add_bytes(&packet[l4..]).is_valid()
    }
}

/// What `packet` is.
pub(crate) fn classify(packet: &[u8]) -> Kind {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => classify_v4(packet),
        Some(6) => classify_v6(packet),
        _ => Kind::Malformed,
    }
}

/// Where source and destination stand, one behind the other.
pub(crate) fn addresses(v6: bool) -> std::ops::Range<usize> {
    if v6 { 8..40 } else { 12..20 }
}

/// Writes the length of a whole packet into its IP header, and what depends on it. `id` is for IPv4.
pub(crate) fn set_length(headers: &mut [u8], v6: bool, ip_header: usize, len: u16, id: u16) {
    if v6 {
        headers[4..6].copy_from_slice(&(len - IPV6_HEADER as u16).to_be_bytes());
        return;
    }
    headers[2..4].copy_from_slice(&len.to_be_bytes());
    headers[4..6].copy_from_slice(&id.to_be_bytes());
    headers[10..12].fill(0);
    let checksum = Sum::default().add_bytes(&headers[..ip_header]).checksum();
    headers[10..12].copy_from_slice(&checksum);
}

/// Two bytes at `offset`, which the caller knows to be there.
pub(crate) fn read_u16(packet: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([packet[offset], packet[offset + 1]])
}

/// Four bytes at `offset`, which the caller knows to be there.
pub(crate) fn read_u32(packet: &[u8], offset: usize) -> u32 {
    u32::from_be_bytes([packet[offset], packet[offset + 1], packet[offset + 2], packet[offset + 3]])
}

fn classify_v4(packet: &[u8]) -> Kind {
    if packet.len() < IPV4_HEADER {
        return Kind::Malformed;
    }
    let exact = usize::from(read_u16(packet, 2)) == packet.len();
    // More fragments, or an offset. The bit before them is reserved.
    let fragment = read_u16(packet, 6) & 0x3fff != 0;
    if packet[0] != 0x45 || fragment || !exact {
        return Kind::Portless;
    }
    classify_l4(packet, false, packet[9])
}

fn classify_v6(packet: &[u8]) -> Kind {
    if packet.len() < IPV6_HEADER {
        return Kind::Malformed;
    }
    if usize::from(read_u16(packet, 4)) != packet.len() - IPV6_HEADER {
        return Kind::Portless;
    }
    classify_l4(packet, true, packet[6])
}

fn classify_l4(packet: &[u8], v6: bool, protocol: u8) -> Kind {
    let l4 = if v6 { IPV6_HEADER } else { IPV4_HEADER };
    let (transport, header) = match protocol {
        6 if packet.len() >= l4 + 20 => (Transport::Tcp, usize::from(packet[l4 + 12] >> 4) * 4),
        17 if packet.len() >= l4 + UDP_HEADER => (Transport::Udp, UDP_HEADER),
        _ => return Kind::Portless,
    };
    let payload = l4 + header;
    let whole = match transport {
        Transport::Tcp => header >= 20 && payload <= packet.len(),
        Transport::Udp => usize::from(read_u16(packet, l4 + 4)) == packet.len() - l4,
    };
    if whole { Kind::Flow(Layout { v6, transport, payload }) } else { Kind::Portless }
}
