//! Messages between client and relay: version, type, body.

use crate::peer_id::{self, PeerId};
use crate::token::Token;

/// Longest message, bytes.
pub const MAX_LEN: usize = 8820;
/// What stands before the payload of a transport message, bytes.
pub const TRANSPORT_HEADER: usize = HEADER + peer_id::LEN;
/// Peers that one message may name.
pub const MAX_PEERS: usize = (MAX_LEN - HEADER) / peer_id::LEN;

const HEADER: usize = 2;
const VERSION: u8 = 1;
/// First bytes of the body of an authentication message.
const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const TRANSPORT: u8 = 3;
const CLOSE: u8 = 4;
const HEALTH_CHECK: u8 = 5;
const AUTH: u8 = 6;
const AUTH_RESPONSE: u8 = 7;
const SUBSCRIBE: u8 = 8;
const UNSUBSCRIBE: u8 = 9;
const ONLINE: u8 = 10;
const OFFLINE: u8 = 11;

/// Echo of a health check.
pub const HEALTH_ECHO: [u8; HEADER] = [VERSION, HEALTH_CHECK];
/// What is said before leaving.
pub const GOODBYE: [u8; HEADER] = [VERSION, CLOSE];

/// What a relay says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A datagram of a peer.
    Transport {
        /// Whose.
        source: PeerId,
        /// The datagram.
        payload: &'a [u8],
    },
    /// The relay closes the connection.
    Close,
    /// To be echoed.
    HealthCheck,
    /// We are let in.
    AuthResponse {
        /// The relay's own address, which other peers are told.
        instance: &'a str,
    },
    /// Peers that we asked about are connected.
    Online(Peers<'a>),
    /// Peers that we asked about are gone.
    Offline(Peers<'a>),
}

/// Peers named in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peers<'a>(&'a [u8]);

/// Bytes that are no message for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Another version.
    #[error("a relay message of version {0}, known is 1")]
    Version(u8),
    /// Another type.
    #[error("a relay message of unknown type {0}")]
    Type(u8),
    /// Cut off, or not text where text must be.
    #[error("a relay message of type {0} whose body cannot be read")]
    Body(u8),
    /// Not even a header.
    #[error("a relay message of less than two bytes")]
    Header,
}

impl<'a> Message<'a> {
    /// Reads what a relay sent as one WebSocket message.
    ///
    /// # Errors
    /// When it is none. The connection can go on.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let Some((&[version, kind], body)) = bytes.split_first_chunk() else { return Err(MessageError::Header) };
        if version != VERSION {
            return Err(MessageError::Version(version));
        }
        match kind {
            TRANSPORT => match body.split_first_chunk() {
                Some((source, payload)) => Ok(Self::Transport { source: PeerId(*source), payload }),
                None => Err(MessageError::Body(kind)),
            },
            CLOSE => Ok(Self::Close),
            HEALTH_CHECK => Ok(Self::HealthCheck),
            AUTH_RESPONSE => {
                let instance = std::str::from_utf8(body).map_err(|_| MessageError::Body(kind))?;
                Ok(Self::AuthResponse { instance })
            }
            ONLINE | OFFLINE if !body.len().is_multiple_of(peer_id::LEN) => Err(MessageError::Body(kind)),
            ONLINE => Ok(Self::Online(Peers(body))),
            OFFLINE => Ok(Self::Offline(Peers(body))),
            _ => Err(MessageError::Type(kind)),
        }
    }
}

impl Iterator for Peers<'_> {
    type Item = PeerId;

    fn next(&mut self) -> Option<PeerId> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(PeerId(*first))
    }
}

/// Header of a transport message to `peer`.
#[must_use]
pub fn transport_header(peer: &PeerId) -> [u8; TRANSPORT_HEADER] {
    let mut header = [0; TRANSPORT_HEADER];
    header[..HEADER].copy_from_slice(&[VERSION, TRANSPORT]);
    header[HEADER..].copy_from_slice(&peer.0);
    header
}

/// First message of a client: who it is, and its token.
#[must_use]
pub fn auth(own: &PeerId, token: &Token) -> Vec<u8> {
    [&[VERSION, AUTH], &MAGIC[..], &own.0, token.expose()].concat()
}

/// Asks to be told when these peers come and go: as many messages as are needed.
pub fn subscribe(peers: &[PeerId]) -> impl Iterator<Item = Vec<u8>> {
    peer_lists(SUBSCRIBE, peers)
}

/// Asks to be told no more.
pub fn unsubscribe(peers: &[PeerId]) -> impl Iterator<Item = Vec<u8>> {
    peer_lists(UNSUBSCRIBE, peers)
}

fn peer_lists(kind: u8, peers: &[PeerId]) -> impl Iterator<Item = Vec<u8>> {
    peers.chunks(MAX_PEERS).map(move |peers| {
        let mut message = Vec::with_capacity(HEADER + peers.len() * peer_id::LEN);
        message.extend([VERSION, kind]);
        message.extend(peers.iter().flat_map(|peer| peer.0));
        message
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let (a, b) = (PeerId([1; 36]), PeerId([2; 36]));
        assert_eq!((HEALTH_ECHO, GOODBYE), ([1, 5], [1, 4]));
        let transport = [&transport_header(&a)[..], b"payload"].concat();
        assert_eq!(transport[..3], [1, 3, 1]);
        assert_eq!(Message::decode(&transport), Ok(Message::Transport { source: a, payload: b"payload" }));
        let token = Token::new("1", "1cJa2rHq05vm3M/R9PejKM+tVwk2N+4CFDyGtHL/+Sw=").expect("valid");
        let auth = auth(&a, &token);
        assert_eq!((auth.len(), &auth[..7]), (2 + 4 + 36 + 34, &[1, 6, 0x21, 0x12, 0xa4, 0x42, 1][..]));
        let online = [&[1, 10], &a.0[..], &b.0].concat();
        let Ok(Message::Online(peers)) = Message::decode(&online) else { panic!("peers online") };
        assert_eq!(peers.collect::<Vec<_>>(), [a, b]);
        assert_eq!(Message::decode(b"\x01\x07rel://x:1"), Ok(Message::AuthResponse { instance: "rel://x:1" }));
    }

    #[test]
    fn what_is_no_message_is_told_apart() {
        for (bytes, error) in [
            (&b""[..], MessageError::Header),
            (b"\x01", MessageError::Header),
            (b"\x02\x05", MessageError::Version(2)),
            (b"\x01\x01", MessageError::Type(1)),
            (b"\x01\x63", MessageError::Type(99)),
            (&[&[1, 3][..], &[0; 35]].concat(), MessageError::Body(3)),
            (&[&[1, 11][..], &[0; 37]].concat(), MessageError::Body(11)),
            (b"\x01\x07\xff", MessageError::Body(7)),
        ] {
            assert_eq!(Message::decode(bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn lists_of_peers_are_cut_to_the_longest_message() {
        let peers: Vec<_> = (0..=255_u8).map(|n| PeerId([n; 36])).chain([PeerId([0; 36]); 300]).collect();
        let messages: Vec<_> = subscribe(&peers).collect();
        assert_eq!(messages.len(), 3);
        assert!(messages.iter().all(|message| message.len() <= MAX_LEN && message[..2] == [1, 8]));
        let back: Vec<_> = messages.iter().flat_map(|message| Peers(&message[2..])).collect();
        assert_eq!(back, peers);
        assert_eq!(unsubscribe(&[]).count(), 0);
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            _ = Message::decode(&bytes);
        }

        #[test]
        fn decoding_of_every_type_never_panics(kind in 0..16_u8, body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let bytes = [&[1, kind], &body[..]].concat();
            if let Ok(Message::Online(peers) | Message::Offline(peers)) = Message::decode(&bytes) {
                prop_assert_eq!(peers.count() * 36, body.len());
            }
        }
    }
}
