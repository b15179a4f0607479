//! Long-term credentials (RFC 8489 §9.2) of time-limited users.

use std::time::{Duration, Instant};

use turn_types::stun::attribute::{ErrorCode, MessageIntegrity, Nonce, Realm, Username};
use turn_types::stun::message::{IntegrityAlgorithm, IntegrityKey, LongTermCredentials, Message};
use turn_types::stun::prelude::AttributeStaticType as _;

use super::Now;
use crate::turn::credentials;

/// The server's realm.
pub(super) const REALM: &str = "turn.test";

#[derive(Debug)]
pub(super) struct Auth {
    pub(super) secret: String,
    seed: u64,
    /// Counts nonces.
    count: u64,
    since: Instant,
}

/// Who sent a request, proven by MESSAGE-INTEGRITY.
pub(super) struct User {
    pub(super) name: String,
    pub(super) key: IntegrityKey,
}

impl Auth {
    pub(super) fn new(secret: &str, seed: u64, now: Instant) -> Self {
        Self { secret: secret.to_owned(), seed, count: 0, since: now }
    }

    /// The nonce that requests must carry.
    pub(super) fn nonce(&self) -> String {
        format!("{:016x}{:04x}", self.seed, self.count)
    }

    pub(super) fn renew_nonce(&mut self, now: Instant) {
        self.count += 1;
        self.since = now;
    }

    /// Checks a request in the order of RFC 8489 §9.2.4.
    ///
    /// # Errors
    /// The code of the error response: 400, 401 or 438.
    pub(super) fn check(&mut self, now: Now, lifetime: Duration, message: &Message<'_>) -> Result<User, u16> {
        if now.instant.saturating_duration_since(self.since) > lifetime {
            self.renew_nonce(now.instant);
        }
        if !message.has_attribute(MessageIntegrity::TYPE) {
            return Err(ErrorCode::UNAUTHORIZED);
        }
        let attributes = (message.attribute::<Username>(), message.attribute::<Realm>(), message.attribute::<Nonce>());
        let (Ok(user), Ok(_), Ok(nonce)) = attributes else { return Err(ErrorCode::BAD_REQUEST) };
        if nonce.nonce() != self.nonce() {
            return Err(ErrorCode::STALE_NONCE);
        }
        let name = user.username().to_owned();
        let password = credentials::password(&self.secret, &name);
        let long_term = LongTermCredentials::new(name.clone(), password).to_key(REALM.to_owned());
        let key = long_term.make_key(IntegrityAlgorithm::Sha1);
        if !credentials::is_valid(&name, now.wall) || message.validate_integrity_with_key(&key).is_err() {
            return Err(ErrorCode::UNAUTHORIZED);
        }
        Ok(User { name, key })
    }
}
