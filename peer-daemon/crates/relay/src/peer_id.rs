//! How relays name peers.

use std::fmt;

use peer_core::key::PublicKey;
use ring::digest::{SHA256, digest};

/// Bytes of a [`PeerId`].
pub const LEN: usize = 36;

const PREFIX: &[u8; 4] = b"sha-";

/// `sha-` and the SHA-256 of the public key's base64 text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub [u8; LEN]);

impl PeerId {
    /// Of the first bytes of `bytes`, if there are enough. Any bytes can name a peer.
    #[must_use]
    pub fn from_prefix(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().copied().map(Self)
    }
}

impl From<&PublicKey> for PeerId {
    fn from(key: &PublicKey) -> Self {
        let mut id = [0; LEN];
        id[..PREFIX.len()].copy_from_slice(PREFIX);
        id[PREFIX.len()..].copy_from_slice(digest(&SHA256, key.to_string().as_bytes()).as_ref());
        Self(id)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As much as tells peers apart in a log.
        self.0[PREFIX.len()..].iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hash_of_the_text() {
        let key: PublicKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".parse().expect("a key");
        let hex: String = PeerId::from(&key).0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "7368612d905f28def18eaac05ae6f12b2c3452744afaf626da1343d57b395b544e0519b6");
    }
}
