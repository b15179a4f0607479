//! Setup keys.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

/// A setup key: a UUID in text. Wiped on drop and never printed.
#[derive(Clone)]
pub struct SetupKey(Zeroizing<String>);

/// Text that is no setup key; it is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the setup key is no UUID: it must read XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX, as the dashboard shows it")]
pub struct ParseSetupKeyError;

impl SetupKey {
    /// Its text: handle with care.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for SetupKey {
    type Err = ParseSetupKeyError;

    /// White space around it is taken off: keys come from files.
    fn from_str(text: &str) -> Result<Self, ParseSetupKeyError> {
        let text = text.trim();
        let dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
        let fits = |(at, byte): (usize, u8)| if dash(at) { byte == b'-' } else { byte.is_ascii_hexdigit() };
        if text.len() == 36 && text.bytes().enumerate().all(fits) {
            Ok(Self(Zeroizing::new(text.to_owned())))
        } else {
            Err(ParseSetupKeyError)
        }
    }
}

impl fmt::Debug for SetupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SetupKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn uuids_are_keys_and_stay_hidden() {
        let key: SetupKey = " A2C8E62B-38F5-4553-b31e-DD66C696CEBB\n".parse().expect("a key");
        assert_eq!(key.expose(), "A2C8E62B-38F5-4553-b31e-DD66C696CEBB");
        assert_eq!(format!("{key:?}"), "SetupKey(…)");
    }

    #[test]
    fn other_text_is_refused_and_not_repeated() {
        for text in [
            "",
            "secret",
            "A2C8E62B-38F5-4553-B31E-DD66C696CEB",
            "A2C8E62B-38F5-4553-B31E-DD66C696CEBG",
            "A2C8E62B38F5-4553--B31E-DD66C696CEBB",
            "A2C8E62B-38F5-4553-B31E-DD66C696CEBBB",
        ] {
            let error = text.parse::<SetupKey>().expect_err(text).to_string();
            assert!(text.is_empty() || !error.contains(text));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_key_or_an_error(text in ".{30,40}") {
            if let Ok(key) = text.parse::<SetupKey>() {
                prop_assert_eq!(key.expose(), text.trim());
            }
        }
    }
}
