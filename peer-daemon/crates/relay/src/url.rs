//! Where a relay is.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;
use peer_connect::Target;

/// `rel://host[:port]` (WebSocket over TCP, port 80) or `rels://host[:port]` (over TLS, port 443). It is shown as it was
/// written; two are equal when they name the same place.
#[derive(Clone)]
pub struct RelayUrl {
    text: String,
    tls: bool,
    host: String,
    port: u16,
}

/// Text that names no relay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no relay: a URL as rels://relay.example:443 is expected")]
pub struct RelayUrlError {
    /// What was given.
    pub text: String,
}

impl RelayUrl {
    /// What to connect to; `fallback` where the name cannot be resolved.
    #[must_use]
    pub fn target(&self, fallback: Option<IpAddr>) -> Target {
        Target { tls: self.tls, host: self.host.clone(), port: self.port, fallback }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn place(&self) -> (bool, &str, u16) {
        (self.tls, &self.host, self.port)
    }
}

impl FromStr for RelayUrl {
    type Err = RelayUrlError;

    fn from_str(text: &str) -> Result<Self, RelayUrlError> {
        let wrong = || RelayUrlError { text: text.chars().take(256).collect() };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("rels") => true,
            Some("rel") => false,
            _ => return Err(wrong()),
        };
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_ascii_lowercase();
        let written = uri.authority().and_then(|authority| authority.as_str().rsplit_once(':'));
        let numeric =
            written.is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
        let port = match uri.port_u16() {
            Some(port) => port,
            // A number beyond all ports.
            None if numeric => return Err(wrong()),
            None if tls => 443,
            None => 80,
        };
        if host.is_empty() || port == 0 {
            return Err(wrong());
        }
        Ok(Self { text: text.to_owned(), tls, host, port })
    }
}

impl PartialEq for RelayUrl {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for RelayUrl {}

impl Hash for RelayUrl {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place().hash(state);
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_places() {
        for (text, expected) in [
            ("rels://Relay.example", Some((true, "relay.example", 443))),
            ("rel://relay.example", Some((false, "relay.example", 80))),
            ("rel://10.0.0.1:33080", Some((false, "10.0.0.1", 33080))),
            ("rels://[fd00::1]:8443", Some((true, "fd00::1", 8443))),
            ("rels://[fd00::1]", Some((true, "fd00::1", 443))),
            ("rels://relay.example:0", None),
            ("rels://relay.example:99999", None),
            ("https://relay.example", None),
            ("relay.example:443", None),
            ("rels://", None),
            ("", None),
        ] {
            let url = text.parse::<RelayUrl>();
            match expected {
                Some(place) => {
                    let url = url.expect(text);
                    assert_eq!(url.place(), place);
                    assert_eq!(url.to_string(), text);
                }
                None => assert_eq!(url, Err(RelayUrlError { text: text.into() })),
            }
        }
    }

    #[test]
    fn one_place_written_twice_is_one() {
        let parse = |text: &str| text.parse::<RelayUrl>().expect("valid");
        assert_eq!(parse("rels://relay.example"), parse("rels://RELAY.example:443"));
        assert_ne!(parse("rels://relay.example"), parse("rel://relay.example:443"));
    }
}
