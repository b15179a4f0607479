//! What lets a peer use a relay.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// HMAC-SHA256, the only kind there is.
const HMAC_SHA256: u8 = 1;
const SIGNATURE: usize = 32;

/// As management hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// End of its validity, seconds since 1970 as text.
    pub payload: String,
    /// Base64 of the signature.
    pub signature: String,
}

/// A token for everybody.
#[must_use]
pub fn issue(secret: &str, expires: SystemTime) -> Token {
    let payload = seconds(expires).to_string();
    let signature = BASE64_STANDARD.encode(mac(secret, payload.as_bytes()).finalize().into_bytes());
    Token { payload, signature }
}

/// The bytes that a peer shows to a relay; `None`: the signature is no base64.
#[must_use]
pub fn to_bytes(token: &Token) -> Option<Vec<u8>> {
    let signature = BASE64_STANDARD.decode(&token.signature).ok()?;
    Some([&[HMAC_SHA256], &signature[..], token.payload.as_bytes()].concat())
}

/// Whether such bytes are a token of this secret that has not expired.
#[must_use]
pub fn is_valid(secret: &str, token: &[u8], now: SystemTime) -> bool {
    let Some((&HMAC_SHA256, rest)) = token.split_first() else { return false };
    let Some((signature, payload)) = rest.split_first_chunk::<SIGNATURE>() else { return false };
    let expires = std::str::from_utf8(payload).ok().and_then(|text| text.parse::<u64>().ok());
    expires.is_some_and(|expires| expires > seconds(now)) && mac(secret, payload).verify_slice(signature).is_ok()
}

fn mac(secret: &str, payload: &[u8]) -> Hmac<Sha256> {
    // As HMAC itself fills up a key that is shorter than a block.
    let mut block = [0; 64];
    block[..32].copy_from_slice(&Sha256::digest(secret));
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(payload);
    mac
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{is_valid, issue, to_bytes};

    /// Computed with another implementation.
    #[test]
    fn is_signed_as_real_relays_want_it() {
        let expires = UNIX_EPOCH + Duration::from_secs(1_893_456_000);
        let token = issue("interop-secret", expires);
        assert_eq!(token.payload, "1893456000");
        assert_eq!(token.signature, "1cJa2rHq05vm3M/R9PejKM+tVwk2N+4CFDyGtHL/+Sw=");
        let bytes = to_bytes(&token).expect("base64");
        assert_eq!(bytes[..4], [1, 0xd5, 0xc2, 0x5a]);
        let before = expires - Duration::from_secs(1);
        assert!(is_valid("interop-secret", &bytes, before));
        assert!(!is_valid("interop-secret", &bytes, expires), "expired");
        assert!(!is_valid("another secret", &bytes, before));
        assert!(!is_valid("interop-secret", &bytes[..20], before));
        let mut changed = bytes;
        changed[33] ^= 1;
        assert!(!is_valid("interop-secret", &changed, before), "another payload");
    }
}
