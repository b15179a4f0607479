//! What a relay lets us in for.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Only kind of signature there is: HMAC-SHA256.
const HMAC_SHA256: u8 = 1;
const SIGNATURE: usize = 32;
/// An authentication message is at most 212 bytes, of which 42 are not token.
const MAX_LEN: usize = 212 - 42;

/// A token as management hands it out. It is checked by the relay when we connect, and never again.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Token(Vec<u8>);

/// A token that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The signature.
    #[error("the relay token's signature is not 32 bytes in base64")]
    Signature,
    /// The payload.
    #[error("the relay token's payload is longer than relays accept")]
    Payload,
}

impl Token {
    /// Of `RelayConfig`'s fields: `tokenPayload` (Unix seconds of its end, as text) and `tokenSignature` (base64).
    ///
    /// # Errors
    /// When the signature is no signature, or the payload too long.
    pub fn new(payload: &str, signature: &str) -> Result<Self, TokenError> {
        let mut signature = STANDARD.decode(signature).map_err(|_| TokenError::Signature)?;
        let mut bytes = Vec::with_capacity(1 + SIGNATURE + payload.len());
        bytes.push(HMAC_SHA256);
        bytes.extend_from_slice(&signature);
        bytes.extend_from_slice(payload.as_bytes());
        let token = Self(bytes);
        let len = signature.len();
        signature.zeroize();
        match (len, token.0.len()) {
            (SIGNATURE, ..=MAX_LEN) => Ok(token),
            (SIGNATURE, _) => Err(TokenError::Payload),
            _ => Err(TokenError::Signature),
        }
    }

    /// As it goes over the wire: handle with care.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: &str = "1cJa2rHq05vm3M/R9PejKM+tVwk2N+4CFDyGtHL/+Sw=";

    #[test]
    fn kind_signature_and_payload_follow_each_other() {
        let token = Token::new("1893456000", SIGNED).expect("valid");
        let hex: String = token.expose()[..33].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "01d5c25adab1ead39be6dccfd1f4f7a328cfad57093637ee02143c86b472fff92c");
        assert_eq!(&token.expose()[33..], b"1893456000");
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn what_no_relay_would_take_is_refused() {
        assert_eq!(Token::new("1", "AAAA"), Err(TokenError::Signature));
        assert_eq!(Token::new("1", "no base64"), Err(TokenError::Signature));
        assert!(Token::new(&"1".repeat(137), SIGNED).is_ok());
        assert_eq!(Token::new(&"1".repeat(138), SIGNED), Err(TokenError::Payload));
    }
}
