//! The NaCl box around every message: X25519, HSalsa20, XSalsa20-Poly1305 on WireGuard keys as they are. The crate
//! `crypto_box` does the cryptography.
//!
//! A body is 24 bytes of random nonce, then 16 bytes of tag, then the ciphertext.

mod plaintext;

pub use plaintext::Plaintext;

use std::sync::Arc;

use crypto_box::SalsaBox;
use crypto_box::aead::AeadInPlace as _;
use peer_core::key::{PrivateKey, PublicKey};
use prost::Message;
use zeroize::Zeroizing;

/// Bytes that a body is longer than its plaintext.
pub const OVERHEAD: usize = NONCE + TAG;

const NONCE: usize = 24;
const TAG: usize = 16;

/// A body that cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is too short to have a nonce and a tag.
    #[error("a sealed body has at least {OVERHEAD} bytes, this one {0}")]
    Short(usize),
    /// It was not made by the one of the two keys for the other, or was changed since.
    #[error("a sealed body is not authentic: it was made with another key, or damaged")]
    Forged,
}

/// A sealed message that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Its box cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its content is no such message.
    #[error("not a protobuf message of the expected kind: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// It ends within a field, or has one of no known kind.
    #[error("not a protobuf message: damaged at byte {at}")]
    Damaged {
        /// Where the field begins, counted from the message's start.
        at: usize,
    },
    /// It has more entries than anybody needs.
    #[error("a message of {entries} entries; {limit} are the limit")]
    TooManyEntries {
        /// Entries found.
        entries: usize,
        /// Entries taken at most.
        limit: usize,
    },
}

/// The box between ourselves and one other key, for both directions.
#[derive(Clone)]
pub struct Sealer {
    shared: Arc<SalsaBox>,
}

impl Sealer {
    /// Derives the shared key: one X25519 operation.
    #[must_use]
    pub fn new(own: &PrivateKey, other: &PublicKey) -> Self {
        Self { shared: Arc::new(SalsaBox::new(&other.0.into(), &(*own.expose()).into())) }
    }

    /// Seals `plaintext` with a nonce of the thread's generator.
    #[must_use]
    pub fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        self.seal_with(rand::random(), plaintext)
    }

    /// Opens a body, in place: a large map is in memory once.
    ///
    /// # Errors
    ///
    /// When it was not sealed between these two keys.
    pub fn open(&self, body: impl Into<Vec<u8>>) -> Result<Plaintext, OpenError> {
        let mut body = body.into();
        let short = OpenError::Short(body.len());
        let (nonce, rest) = body.split_first_chunk_mut::<NONCE>().ok_or(short)?;
        let (tag, text) = rest.split_first_chunk_mut::<TAG>().ok_or(short)?;
        self.shared
            .decrypt_in_place_detached((&*nonce).into(), &[], text, (&*tag).into())
            .map_err(|_| OpenError::Forged)?;
        Ok(Plaintext::new(body, OVERHEAD))
    }

    /// Seals a message. Its plaintext is wiped: it may hold a setup key.
    #[must_use]
    pub fn seal_message(&self, message: &impl Message) -> Vec<u8> {
        self.seal(&Zeroizing::new(message.encode_to_vec()))
    }

    /// Opens a body that holds an `M`.
    ///
    /// # Errors
    ///
    /// When it cannot be opened or holds something else.
    pub fn open_message<M: Message + Default>(&self, body: impl Into<Vec<u8>>) -> Result<M, DecodeError> {
        Ok(M::decode(self.open(body)?.as_slice())?)
    }

    fn seal_with(&self, nonce: [u8; NONCE], plaintext: &[u8]) -> Vec<u8> {
        let mut body = Vec::with_capacity(OVERHEAD + plaintext.len());
        body.extend_from_slice(&nonce);
        body.extend_from_slice(&[0; TAG]);
        body.extend_from_slice(plaintext);
        let text = &mut body[OVERHEAD..];
        let sealed = self.shared.encrypt_in_place_detached((&nonce).into(), &[], text);
        let tag = sealed.expect("the cipher takes 2^70 bytes, and there is no associated data");
        body[NONCE..OVERHEAD].copy_from_slice(&tag);
        body
    }
}

#[cfg(test)]
mod tests;
