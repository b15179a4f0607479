//! Frames: one in each WebSocket message.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// Largest frame, bytes.
pub const MAX: usize = 8820;
/// Bytes before the body.
pub const HEADER: usize = 2;

const VERSION: u8 = 1;
const TRANSPORT: u8 = 3;
const CLOSE: u8 = 4;
const HEALTH: u8 = 5;
const AUTH: u8 = 6;
const AUTH_RESPONSE: u8 = 7;
const SUBSCRIBE: u8 = 8;
const UNSUBSCRIBE: u8 = 9;
const ONLINE: u8 = 10;
const OFFLINE: u8 = 11;
const MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// How a relay knows a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; Self::LENGTH]);

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Payload for a peer, or from one.
    Transport(PeerId, Bytes),
    /// The sender will close.
    Close,
    /// Are you there, and: yes.
    Health,
    /// Who comes, and its token.
    Auth(PeerId, Bytes),
    /// The relay's own address.
    AuthResponse(String),
    /// Wants to know when these come and go.
    Subscribe(Vec<PeerId>),
    /// No longer.
    Unsubscribe(Vec<PeerId>),
    /// These are there.
    Online(Vec<PeerId>),
    /// These have gone.
    Offline(Vec<PeerId>),
}

impl PeerId {
    /// Bytes of an id.
    pub const LENGTH: usize = 36;

    /// Of the peer with this public key, base64.
    #[must_use]
    pub fn of(key: &str) -> Self {
        let mut id = *b"sha-................................";
        id[4..].copy_from_slice(&Sha256::digest(key));
        Self(id)
    }
}

impl Frame {
    /// Reads a frame; `None`: it is none that anybody sends today.
    #[must_use]
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let (&[version, kind], body) = bytes.split_first_chunk::<HEADER>()?;
        if version != VERSION || bytes.len() > MAX {
            return None;
        }
        let id = |at: usize| Some(PeerId(body.get(at..at + PeerId::LENGTH)?.try_into().ok()?));
        let rest = |at: usize| bytes.slice(HEADER + at..);
        Some(match kind {
            TRANSPORT => Self::Transport(id(0)?, rest(PeerId::LENGTH)),
            CLOSE => Self::Close,
            HEALTH => Self::Health,
            AUTH if body.starts_with(&MAGIC) => Self::Auth(id(MAGIC.len())?, rest(MAGIC.len() + PeerId::LENGTH)),
            AUTH_RESPONSE => Self::AuthResponse(String::from_utf8(body.to_vec()).ok()?),
            SUBSCRIBE => Self::Subscribe(ids(body)?),
            UNSUBSCRIBE => Self::Unsubscribe(ids(body)?),
            ONLINE => Self::Online(ids(body)?),
            OFFLINE => Self::Offline(ids(body)?),
            _ => return None,
        })
    }

    /// Writes it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let list = |ids: &[PeerId]| ids.iter().flat_map(|id| id.0).collect::<Vec<_>>();
        let (kind, body) = match self {
            Self::Transport(peer, payload) => (TRANSPORT, [&peer.0[..], payload].concat()),
            Self::Close => (CLOSE, Vec::new()),
            Self::Health => (HEALTH, Vec::new()),
            Self::Auth(peer, token) => (AUTH, [&MAGIC[..], &peer.0, token].concat()),
            Self::AuthResponse(url) => (AUTH_RESPONSE, url.clone().into_bytes()),
            Self::Subscribe(peers) => (SUBSCRIBE, list(peers)),
            Self::Unsubscribe(peers) => (UNSUBSCRIBE, list(peers)),
            Self::Online(peers) => (ONLINE, list(peers)),
            Self::Offline(peers) => (OFFLINE, list(peers)),
        };
        [&[VERSION, kind][..], &body].concat().into()
    }
}

fn ids(body: &[u8]) -> Option<Vec<PeerId>> {
    let (ids, rest) = body.as_chunks::<{ PeerId::LENGTH }>();
    rest.is_empty().then(|| ids.iter().copied().map(PeerId).collect())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Frame, PeerId};

    #[test]
    fn an_id_is_the_hash_of_the_key_s_text() {
        let id = PeerId::of("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        let hex: String = id.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "7368612d905f28def18eaac05ae6f12b2c3452744afaf626da1343d57b395b544e0519b6");
    }

    #[test]
    fn frames_are_read_as_they_are_written() {
        let (one, other) = (PeerId::of("one"), PeerId::of("other"));
        for frame in [
            Frame::Transport(one, Bytes::from_static(b"packet")),
            Frame::Close,
            Frame::Health,
            Frame::Auth(one, Bytes::from_static(b"token")),
            Frame::AuthResponse("rel://relay.test:80".to_owned()),
            Frame::Subscribe(vec![one, other]),
            Frame::Unsubscribe(vec![one]),
            Frame::Online(vec![other]),
            Frame::Offline(Vec::new()),
        ] {
            assert_eq!(Frame::decode(&frame.encode()), Some(frame));
        }
        assert_eq!(Frame::Health.encode()[..], [1, 5]);
        assert_eq!(Frame::Close.encode()[..], [1, 4]);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bytes in [&b""[..], &[1], &[2, 5], &[1, 1], &[1, 99], &[1, 3, 0], &[1, 8, 0], &[1, 6, 0, 0, 0, 0]] {
            assert_eq!(Frame::decode(&Bytes::copy_from_slice(bytes)), None, "{bytes:?}");
        }
    }
}
