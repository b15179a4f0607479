//! `WireGuard` keys, which are the identities of everybody.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crypto_box::{PublicKey, SecretKey};

/// A private key and what others know of it.
#[derive(Clone)]
pub struct KeyPair {
    pub(crate) secret: SecretKey,
    public: String,
}

/// Text that is no key: not the base64 of 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the base64 of a 32-byte key")]
pub struct BadKey;

impl KeyPair {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_bytes(rand::random())
    }

    /// The pair with this private key.
    #[must_use]
    pub fn from_bytes(private: [u8; 32]) -> Self {
        let secret = SecretKey::from_bytes(private);
        let public = BASE64_STANDARD.encode(secret.public_key().as_bytes());
        Self { secret, public }
    }

    /// Base64 of the public key: the name by which all three servers know a peer.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Base64 of the private key, as `wg` takes it.
    #[must_use]
    pub fn private_text(&self) -> String {
        BASE64_STANDARD.encode(self.secret.to_bytes())
    }
}

/// The key that a text names.
pub(crate) fn public_key(text: &str) -> Result<PublicKey, BadKey> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| BadKey)?;
    Ok(PublicKey::from(<[u8; 32]>::try_from(bytes).map_err(|_| BadKey)?))
}
