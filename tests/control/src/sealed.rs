//! Bodies that only the other side can read: a `NaCl` box behind its nonce.

use crypto_box::SalsaBox;
use crypto_box::aead::Aead as _;
use prost::Message;

use super::keys::{BadKey, KeyPair, public_key};

/// Bytes of a nonce.
const NONCE: usize = 24;

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The sender's name is no key.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// Too short, or not sealed by that sender for this key.
    #[error("not sealed by this sender for this key")]
    Box,
    /// What was sealed is no such message.
    #[error("the sealed message: {0}")]
    Message(#[from] prost::DecodeError),
}

/// Seals a message.
///
/// # Errors
/// The recipient's name is no key.
pub fn seal(own: &KeyPair, recipient: &str, message: &impl Message) -> Result<Vec<u8>, BadKey> {
    seal_bytes(own, recipient, &message.encode_to_vec())
}

/// Seals bytes, whatever they are.
///
/// # Errors
/// The recipient's name is no key.
pub fn seal_bytes(own: &KeyPair, recipient: &str, plaintext: &[u8]) -> Result<Vec<u8>, BadKey> {
    let nonce: [u8; NONCE] = rand::random();
    let boxed = SalsaBox::new(&public_key(recipient)?, &own.secret).encrypt(&nonce.into(), plaintext);
    // The cipher fails on messages of more than 256 GiB alone.
    let boxed = boxed.unwrap_or_default();
    Ok([&nonce[..], &boxed].concat())
}

/// Opens a body and reads its message.
///
/// # Errors
/// See [`OpenError`].
pub fn open<M: Message + Default>(own: &KeyPair, sender: &str, body: &[u8]) -> Result<M, OpenError> {
    let sender = public_key(sender)?;
    let (nonce, boxed) = body.split_first_chunk::<NONCE>().ok_or(OpenError::Box)?;
    let plaintext = SalsaBox::new(&sender, &own.secret).decrypt(&(*nonce).into(), boxed);
    Ok(M::decode(plaintext.map_err(|_| OpenError::Box)?.as_slice())?)
}

#[cfg(test)]
mod tests {
    use super::{OpenError, open, seal, seal_bytes};
    use crate::keys::{BadKey, KeyPair};
    use crate::proto::management::{Checks, Empty};

    #[test]
    fn opens_what_was_sealed_for_it_and_nothing_else() {
        let (one, other, third) = (KeyPair::generate(), KeyPair::generate(), KeyPair::generate());
        let message = Checks { files: vec!["/bin/sh".to_owned()] };
        let body = seal(&one, other.public(), &message).expect("sealed");
        assert_eq!(open::<Checks>(&other, one.public(), &body), Ok(message));
        assert_eq!(open::<Checks>(&other, third.public(), &body), Err(OpenError::Box), "another sender");
        assert_eq!(open::<Checks>(&third, one.public(), &body), Err(OpenError::Box), "another recipient");
        assert_eq!(open::<Checks>(&other, one.public(), &body[..20]), Err(OpenError::Box), "too short");
        assert_eq!(open::<Checks>(&other, "no key", &body), Err(OpenError::Key(BadKey)));
    }

    #[test]
    fn the_empty_message_is_one() {
        let (one, other) = (KeyPair::generate(), KeyPair::generate());
        let body = seal_bytes(&one, other.public(), &[]).expect("sealed");
        assert_eq!(body.len(), 24 + 16);
        assert_eq!(open::<Empty>(&other, one.public(), &body), Ok(Empty {}));
    }
}
