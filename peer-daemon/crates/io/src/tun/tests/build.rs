//! Packets made by other means than the code under test, and the naive checksum over them.

use crate::checksum::tests::naive;

/// A TCP or UDP packet to be.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) v6: bool,
    pub(super) udp: bool,
    /// Source and destination port are made of it.
    pub(super) flow: u8,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) options: Vec<u8>,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) dont_fragment: bool,
    pub(super) id: u16,
    pub(super) payload: Vec<u8>,
}

impl Packet {
    pub(super) fn tcp(flow: u8, seq: u32, payload: &[u8]) -> Self {
        Self {
            v6: false,
            udp: false,
            flow,
            seq,
            ack: 77,
            flags: 0x10,
            window: 500,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            tos: 0,
            ttl: 64,
            dont_fragment: true,
            id: 0,
            payload: payload.to_vec(),
        }
    }

    pub(super) fn udp(flow: u8, payload: &[u8]) -> Self {
        Self { udp: true, options: Vec::new(), ..Self::tcp(flow, 0, payload) }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let l4 = self.l4();
        let protocol = if self.udp { 17 } else { 6 };
        let mut packet = if self.v6 {
            let mut ip = vec![0x60 | self.tos >> 4, self.tos << 4, 0, self.flow];
            ip.extend((l4.len() as u16).to_be_bytes());
            ip.extend([protocol, self.ttl]);
            ip.extend(self.addresses());
            ip
        } else {
            let mut ip = vec![0x45, self.tos];
            ip.extend((20 + l4.len() as u16).to_be_bytes());
            ip.extend(self.id.to_be_bytes());
            ip.extend([u8::from(self.dont_fragment) << 6, 0, self.ttl, protocol, 0, 0]);
            ip.extend(self.addresses());
            let checksum = naive(&ip);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            ip
        };
        let start = packet.len();
        packet.extend(l4);
        let mut summed = self.addresses();
        summed.extend([0, protocol]);
        summed.extend(((packet.len() - start) as u16).to_be_bytes());
        summed.extend(&packet[start..]);
        let field = start + if self.udp { 6 } else { 16 };
        let checksum = match naive(&summed) {
            0 => 0xffff,
            checksum => checksum,
        };
        packet[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    fn addresses(&self) -> Vec<u8> {
        let mut addresses = vec![10, 0, 0, self.flow % 3, 10, 0, 1, self.flow % 2];
        if self.v6 {
            addresses.extend([0xfd; 24]);
        }
        addresses
    }

    fn l4(&self) -> Vec<u8> {
        let mut l4 = vec![0x10, self.flow, 0x20, self.flow];
        if self.udp {
            l4.extend((8 + self.payload.len() as u16).to_be_bytes());
            l4.extend([0, 0]);
        } else {
            l4.extend(self.seq.to_be_bytes());
            l4.extend(self.ack.to_be_bytes());
            l4.extend([(20 + self.options.len() as u8) << 2, self.flags]);
            l4.extend(self.window.to_be_bytes());
            l4.extend([0; 4]);
            l4.extend(&self.options);
        }
        l4.extend(&self.payload);
        l4
    }
}

/// Whether lengths and checksums of a TCP or UDP packet without options are right, by the naive sum.
pub(super) fn is_intact(packet: &[u8]) -> bool {
    let v6 = packet[0] >> 4 == 6;
    let (start, protocol, addresses) =
        if v6 { (40, packet[6], &packet[8..40]) } else { (20, packet[9], &packet[12..20]) };
    let len = if v6 { 40 + word(packet, 4) } else { word(packet, 2) };
    let l4 = &packet[start..];
    let summed = [addresses, &[0, protocol], &(l4.len() as u16).to_be_bytes(), l4].concat();
    let udp_len = protocol != 17 || word(l4, 4) == l4.len();
    len == packet.len() && (v6 || naive(&packet[..20]) == 0) && naive(&summed) == 0 && udp_len
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])
}
