//! Credentials of connectivity checks.

use std::fmt;

use rand::{CryptoRng, RngExt as _};
use zeroize::Zeroizing;

const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// What candidate ids are made of.
const ID_CHARACTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/";
const UFRAG: usize = 16;
const PWD: usize = 32;
const CANDIDATE_ID: usize = 32;

/// User name fragment and password (RFC 8445, section 5.3). The password is wiped on drop, and not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name fragment.
    pub ufrag: String,
    /// Password.
    pub pwd: Zeroizing<String>,
}

impl Credentials {
    /// Random ones in the form of the official client: 16 and 32 letters.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self { ufrag: random(LETTERS, UFRAG, rng), pwd: Zeroizing::new(random(LETTERS, PWD, rng)) }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// A candidate id (`cid`).
pub(crate) fn candidate_id(rng: &mut impl CryptoRng) -> String {
    random(ID_CHARACTERS, CANDIDATE_ID, rng)
}

fn random(alphabet: &[u8], length: usize, rng: &mut impl CryptoRng) -> String {
    let mut text = String::with_capacity(length);
    text.extend((0..length).map(|_| char::from(alphabet[rng.random_range(0..alphabet.len())])));
    text
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn generated_as_the_official_client_does() {
        let mut rng = StdRng::seed_from_u64(1);
        let one = Credentials::generate(&mut rng);
        let two = Credentials::generate(&mut rng);
        assert_ne!(one, two);
        for (text, length) in [(&one.ufrag, 16), (&*one.pwd, 32)] {
            assert_eq!(text.len(), length);
            assert!(text.bytes().all(|byte| byte.is_ascii_alphabetic()), "{text}");
        }
    }

    #[test]
    fn debug_hides_the_password() {
        let credentials = Credentials { ufrag: "known".to_owned(), pwd: Zeroizing::new("hidden".to_owned()) };
        let shown = format!("{credentials:?}");
        assert!(shown.contains("known") && !shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn candidate_ids_are_32_characters() {
        let id = candidate_id(&mut StdRng::seed_from_u64(1));
        assert_eq!(id.len(), 32);
        assert!(id.bytes().all(|byte| ID_CHARACTERS.contains(&byte)));
    }
}
