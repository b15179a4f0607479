//! Which server.

use std::fmt;
use std::net::IpAddr;

use http::Uri;

use crate::Error;

/// A server to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Whether to speak TLS.
    pub tls: bool,
    /// Name or address, IPv6 without brackets. The name that the certificate must have.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Where to go if the name cannot be resolved; the certificate is checked against `host` all the same.
    pub fallback: Option<IpAddr>,
}

impl Target {
    /// Of a URL of scheme `https` or `http`, with the scheme's default port.
    ///
    /// # Errors
    /// On another scheme, and without a host.
    pub fn from_uri(uri: &Uri) -> Result<Self, Error> {
        let wrong = |reason| Error::Target { url: uri.to_string(), reason };
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("the scheme is https or http")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("there is no host"))?;
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if port == 0 {
            return Err(wrong("port 0 does not exist"));
        }
        Ok(Self { tls, host: without_brackets(host).to_owned(), port, fallback: None })
    }

    /// The host as URLs write it.
    pub(crate) fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.bracketed(), self.port)
    }
}

pub(crate) fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}
