//! WireGuard keys: 32 bytes, base64 in text. Secrets are wiped on drop and never printed.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Text that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is 32 bytes in base64 (44 characters ending in '=')")]
pub struct ParseKeyError;

/// A peer's public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

/// A private key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; 32]);

/// A pre-shared key.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        decode(text).map(Self)
    }
}

macro_rules! secret {
    ($ty:ident) => {
        impl $ty {
            /// From its bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its bytes: handle with care.
            #[must_use]
            pub const fn expose(&self) -> &[u8; 32] {
                &self.0
            }

            /// As base64 text: handle with care.
            #[must_use]
            pub fn expose_base64(&self) -> zeroize::Zeroizing<String> {
                STANDARD.encode(self.0).into()
            }
        }

        impl fmt::Debug for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($ty), "(…)"))
            }
        }

        impl FromStr for $ty {
            type Err = ParseKeyError;

            fn from_str(text: &str) -> Result<Self, ParseKeyError> {
                decode(text).map(Self)
            }
        }
    };
}

secret!(PrivateKey);
secret!(PresharedKey);

impl PrivateKey {
    /// The public key that belongs to it (RFC 7748 §6.1).
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }
}

fn decode(text: &str) -> Result<[u8; 32], ParseKeyError> {
    // On the stack and wiped whatever happens: a mistyped secret must not stay behind on the heap.
    let mut bytes = zeroize::Zeroizing::new([0; 36]);
    match STANDARD.decode_slice(text, bytes.as_mut_slice()) {
        Ok(32) => bytes[..32].try_into().map_err(|_| ParseKeyError),
        _ => Err(ParseKeyError),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // RFC 7748 §6.1.
    const ALICE_PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn public_keys_are_derived() {
        let private: PrivateKey = ALICE_PRIVATE.parse().expect("a key");
        assert_eq!(private.public_key().to_string(), ALICE_PUBLIC);
    }

    #[test]
    fn debug_shows_public_keys_only() {
        let private: PrivateKey = ALICE_PRIVATE.parse().expect("a key");
        let preshared: PresharedKey = ALICE_PRIVATE.parse().expect("a key");
        assert_eq!(format!("{private:?} {preshared:#?}"), "PrivateKey(…) PresharedKey(…)");
        assert_eq!(format!("{:?}", private.public_key()), ALICE_PUBLIC);
    }

    #[test]
    fn only_32_bytes_in_canonical_base64_are_a_key() {
        let no_key = [
            "",
            "=",
            "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo",
            "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCp=", // a bit beyond the 32 bytes
            " dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=",
            "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n",
            "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo==",
            "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LC\u{e4}",
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ac177fba51db92c2a",
        ];
        for text in no_key {
            assert_eq!(text.parse::<PublicKey>(), Err(ParseKeyError), "{text:?}");
            assert!(text.parse::<PrivateKey>().is_err() && text.parse::<PresharedKey>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_bytes_are_one(bytes: [u8; 32]) {
            let public = PublicKey(bytes);
            prop_assert_eq!(public.to_string().parse(), Ok(public));
            let private = PrivateKey::from_bytes(bytes);
            let again: PrivateKey = private.expose_base64().parse().expect("a key");
            prop_assert_eq!(again.expose(), &bytes);
            let preshared = PresharedKey::from_bytes(bytes);
            prop_assert_eq!(preshared.expose_base64().parse(), Ok(preshared));
        }

        #[test]
        fn no_other_length_is_a_key(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assume!(bytes.len() != 32);
            prop_assert_eq!(STANDARD.encode(bytes).parse::<PublicKey>(), Err(ParseKeyError));
        }

        #[test]
        fn any_text_is_a_key_or_an_error(text in ".{0,64}") {
            if let Ok(key) = text.parse::<PublicKey>() {
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }
}
