//! What is read of a fragment (RFC 791 §3.1, RFC 8200 §4.5).

use crate::inner::{IPV4_HEADER, IPV6_HEADER};

/// Next header of a fragment header.
const FRAGMENT: u8 = 44;
const FRAGMENT_HEADER: usize = 8;
/// In units of 8 bytes, and the flag of more fragments.
const V4_OFFSET: u16 = 0x1fff;
const V4_MORE: u16 = 0x2000;
const V6_OFFSET: u16 = 0xfff8;
const V6_MORE: u16 = 0x0001;

/// A part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Of which.
    pub(crate) packet: Key,
    /// Bytes before it.
    pub(crate) offset: u16,
}

/// What all fragments of a packet share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    addresses: [[u8; 16]; 2],
    identification: u32,
    /// `None`: of IPv6, where it is not the same in all of them.
    protocol: Option<u8>,
}

impl Part {
    /// What this whole packet is a part of. `None`: it is no fragment, or one that the program does not judge: with options or
    /// with other extension headers before the fragment header.
    #[inline]
    pub(crate) fn of(packet: &[u8]) -> Option<Self> {
        // One look for all that are none.
        match (packet.first()? >> 4, packet.get(6)?) {
            (4, flags) if flags & 0x3f == 0 && packet.get(7) == Some(&0) => None,
            (4, _) => Self::v4(packet),
            (6, &FRAGMENT) => Self::v6(packet),
            _ => None,
        }
    }

    pub(crate) fn is_first(&self) -> bool {
        self.offset == 0
    }

    #[cold]
    fn v4(packet: &[u8]) -> Option<Self> {
        let header = packet.get(..IPV4_HEADER).filter(|header| header[0] == 0x45)?;
        let flags = u16::from_be_bytes([header[6], header[7]]);
        if flags & (V4_MORE | V4_OFFSET) == 0 {
            return None;
        }
        let address = |at: usize| {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&header[at..at + 4]);
            address
        };
        let identification = u16::from_be_bytes([header[4], header[5]]).into();
        let packet = Key { addresses: [address(12), address(16)], identification, protocol: Some(header[9]) };
        // Beyond 65 535 there is no packet; such an offset only has to stay one.
        Some(Self { packet, offset: (flags & V4_OFFSET).saturating_mul(8) })
    }

    #[cold]
    fn v6(packet: &[u8]) -> Option<Self> {
        let header: &[u8; IPV6_HEADER + FRAGMENT_HEADER] = packet.first_chunk()?;
        let field = u16::from_be_bytes([header[42], header[43]]);
        if field & (V6_OFFSET | V6_MORE) == 0 {
            // A packet of one fragment waits for nobody (RFC 6946).
            return None;
        }
        let address = |at: usize| header[at..at + 16].try_into().unwrap_or_default();
        let identification = u32::from_be_bytes([header[44], header[45], header[46], header[47]]);
        let packet = Key { addresses: [address(8), address(24)], identification, protocol: None };
        Some(Self { packet, offset: field & V6_OFFSET })
    }
}
