//! Time-limited users: the name is the end of its validity, the password its HMAC under a secret that management and
//! the TURN server share.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

/// What a client shows to a TURN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// End of the validity, seconds since 1970 as text.
    pub user: String,
    /// Base64 of HMAC-SHA1 over the user name.
    pub password: String,
}

impl Credentials {
    /// Issues credentials that are valid until `expires`.
    #[must_use]
    pub fn issue(secret: &str, expires: SystemTime) -> Self {
        let user = seconds(expires).to_string();
        let password = password(secret, &user);
        Self { user, password }
    }
}

/// The password of a user.
#[must_use]
pub fn password(secret: &str, user: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    BASE64_STANDARD.encode(hmac::sign(&key, user.as_bytes()))
}

/// Whether a user name has not expired.
#[must_use]
pub fn is_valid(user: &str, now: SystemTime) -> bool {
    user.parse::<u64>().is_ok_and(|expires| expires > seconds(now))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Computed with another implementation.
    #[test]
    fn the_password_is_what_real_servers_compute() {
        let expires = UNIX_EPOCH + Duration::from_secs(1_893_456_000);
        let issued = Credentials::issue("t", expires);
        assert_eq!((&issued.user[..], &issued.password[..]), ("1893456000", "/bx2Mnb2KEEb5zH5BtTpvSlzzZs="));
        assert!(is_valid(&issued.user, expires - Duration::from_secs(1)));
        assert!(!is_valid(&issued.user, expires), "expired");
        assert!(!is_valid("peer", UNIX_EPOCH), "no time");
        assert_ne!(password("u", &issued.user), issued.password, "of another secret");
    }
}
