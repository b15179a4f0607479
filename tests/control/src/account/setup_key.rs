//! What lets a peer in.

use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

/// A setup key and its conditions.
#[derive(Clone, Debug)]
pub struct SetupKey {
    /// What a peer presents: a UUID.
    pub text: String,
    /// Peers that may use it; `None`: any number.
    pub usage_limit: Option<u32>,
    /// Peers that have used it.
    pub used: u32,
    /// End of its validity.
    pub expires: Option<SystemTime>,
    /// No longer valid.
    pub revoked: bool,
    /// Peers go when they have been away for a while.
    pub ephemeral: bool,
    /// Groups that peers get into.
    pub auto_groups: Vec<String>,
    /// Whether peers may have DNS labels beside their own.
    pub extra_dns_labels: bool,
}

impl SetupKey {
    /// A new one for any number of peers, without an end.
    #[must_use]
    pub fn reusable() -> Self {
        let [a, b, c, d, e, f, g, h] = rand::random::<[u16; 8]>();
        Self {
            text: format!("{a:04X}{b:04X}-{c:04X}-{d:04X}-{e:04X}-{f:04X}{g:04X}{h:04X}"),
            usage_limit: None,
            used: 0,
            expires: None,
            revoked: false,
            ephemeral: false,
            auto_groups: Vec::new(),
            extra_dns_labels: false,
        }
    }

    /// Whether one more peer may use it now.
    #[must_use]
    pub fn is_valid(&self, now: SystemTime) -> bool {
        let expired = self.expires.is_some_and(|end| end <= now);
        let used_up = self.usage_limit.is_some_and(|limit| self.used >= limit);
        !self.revoked && !expired && !used_up
    }

    /// What a server keeps instead of the key: base64 of SHA-256 over its upper-case text.
    #[must_use]
    pub fn lookup(text: &str) -> String {
        BASE64_STANDARD.encode(Sha256::digest(text.to_uppercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::SetupKey;

    #[test]
    fn is_looked_up_as_a_real_server_does() {
        let expected = "uXspNY+GG/bbf0inGAz7i1Yb7ZtGQghH2PwMtZG4LI0=";
        assert_eq!(SetupKey::lookup("A2C8E62B-38F5-4553-B31E-DD66C696CEBB"), expected);
        assert_eq!(SetupKey::lookup("a2c8e62b-38f5-4553-b31e-dd66c696cebb"), expected);
    }
}
