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

fn decode(text: &str) -> Result<[u8; 32], ParseKeyError> {
    let mut bytes = STANDARD.decode(text).map_err(|_| ParseKeyError)?;
    let key = bytes.as_slice().try_into().map_err(|_| ParseKeyError);
    bytes.zeroize();
    key
}
