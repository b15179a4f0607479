//! Outer form of WireGuard messages: type, length and receiver index (WireGuard paper §5.4).

use crate::error::DatagramError;

/// Header and tag around the payload of a data message, bytes.
pub(crate) const DATA_OVERHEAD: usize = 32;
/// Header of a data message, bytes.
pub(crate) const DATA_HEADER: usize = 16;
/// Longest handshake message, bytes.
pub(crate) const LONGEST_HANDSHAKE: usize = INITIATION;

/// Length of an initiation, bytes.
pub(crate) const INITIATION: usize = 148;
const RESPONSE: usize = 92;
/// Length of a cookie reply, bytes.
pub(crate) const COOKIE_REPLY: usize = 64;

/// Length of either MAC at the end of a handshake message, bytes.
pub(crate) const MAC: usize = 16;

/// The parts of an initiation or a response that its MACs are about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandshakeMacs<'a> {
    /// The sender's index, as it stands on the wire.
    pub(crate) sender: &'a [u8; 4],
    /// All before the MACs.
    pub(crate) content: &'a [u8],
    /// Made with the receiver's public key.
    pub(crate) mac1: &'a [u8; MAC],
    /// Made with a cookie; zeros without one.
    pub(crate) mac2: &'a [u8; MAC],
}

impl<'a> HandshakeMacs<'a> {
    /// Of a message that [`Message::classify`] takes for an initiation or a response.
    pub(crate) fn of(message: &'a [u8]) -> Option<Self> {
        let (rest, mac2) = message.split_last_chunk()?;
        let (content, mac1) = rest.split_last_chunk()?;
        Some(Self { sender: content.get(4..)?.first_chunk()?, content, mac1, mac2 })
    }

    /// Whether there may be a cookie in it.
    pub(crate) fn has_mac2(&self) -> bool {
        *self.mac2 != [0; MAC]
    }
}

/// A message that has the right length for its type; nothing is authenticated yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// First handshake message.
    Initiation,
    /// Second handshake message.
    Response { receiver: u32 },
    /// Answer of a responder under load.
    CookieReply { receiver: u32 },
    /// An encrypted packet, or a keepalive.
    Data { receiver: u32 },
}

impl Message {
    /// Reads type, reserved bytes and length of `datagram`.
    pub(crate) fn classify(datagram: &[u8]) -> Result<Self, DatagramError> {
        let word = |at: usize| {
            let bytes = datagram.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_le_bytes).ok_or(DatagramError::Garbage)
        };
        match (word(0)?, datagram.len()) {
            (1, INITIATION) => Ok(Self::Initiation),
            (2, RESPONSE) => Ok(Self::Response { receiver: word(8)? }),
            (3, COOKIE_REPLY) => Ok(Self::CookieReply { receiver: word(4)? }),
            (4, DATA_OVERHEAD..) => Ok(Self::Data { receiver: word(4)? }),
            _ => Err(DatagramError::Garbage),
        }
    }
}

/// Sender index of a handshake message of ours.
pub(crate) fn sender_index(message: &[u8]) -> Option<u32> {
    message.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes)
}

/// Whether a message of ours is a handshake initiation.
pub(crate) fn is_initiation(message: &[u8]) -> bool {
    message.len() == INITIATION && message[0] == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&0x0403_0201_u32.to_le_bytes());
        if len > 12 {
            bytes[8..12].copy_from_slice(&0x0807_0605_u32.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn types_have_their_lengths() {
        assert_eq!(Message::classify(&message(1, 148)), Ok(Message::Initiation));
        assert_eq!(Message::classify(&message(2, 92)), Ok(Message::Response { receiver: 0x0807_0605 }));
        assert_eq!(Message::classify(&message(3, 64)), Ok(Message::CookieReply { receiver: 0x0403_0201 }));
        assert_eq!(Message::classify(&message(4, 32)), Ok(Message::Data { receiver: 0x0403_0201 }));
        for (kind, len) in [(1, 147), (2, 93), (3, 63), (4, 31), (0, 64), (5, 64), (0x0100_0004, 64)] {
            assert_eq!(Message::classify(&message(kind, len)), Err(DatagramError::Garbage), "{kind} {len}");
        }
        assert_eq!(Message::classify(&[4, 0, 0]), Err(DatagramError::Garbage));
    }
}
