//! Where a server is.

use std::fmt;
use std::str::FromStr;

use tonic::transport::Uri;

use crate::proto::management::{HostConfig, host_config};

/// A gRPC server. Displayed, it is a URL with its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerUrl {
    /// TLS, or HTTP/2 in the clear without an upgrade.
    pub tls: bool,
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Text that names no server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerUrlError {
    /// Not `http://…` or `https://…`.
    #[error("{0:?} is no server URL: it must read https://HOST[:PORT] or http://HOST[:PORT]")]
    NoUrl(String),
    /// The signal server's address is not `host:port`.
    #[error("{0:?} is no signal server: management must name it as HOST:PORT")]
    NoSignal(String),
}

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    /// A missing port is that of the scheme; a path is ignored.
    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        let error = || ServerUrlError::NoUrl(text.to_owned());
        let uri: Uri = text.trim().parse().map_err(|_| error())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(error()),
        };
        Self::of(tls, &uri).ok_or_else(error)
    }
}

impl ServerUrl {
    /// The signal server of a configuration: TLS if its protocol is HTTPS.
    ///
    /// # Errors
    ///
    /// When its address is not `host` or `host:port`.
    pub fn signal(config: &HostConfig) -> Result<Self, ServerUrlError> {
        let error = || ServerUrlError::NoSignal(config.uri.clone());
        let tls = config.protocol() == host_config::Protocol::Https;
        // Old servers put a scheme in front.
        let authority = config.uri.trim().rsplit("://").next().unwrap_or_default();
        let uri: Uri = format!("http://{authority}").parse().map_err(|_| error())?;
        Self::of(tls, &uri).ok_or_else(error)
    }

    fn of(tls: bool, uri: &Uri) -> Option<Self> {
        let authority = uri.authority()?;
        // Credentials in a URL would end up in logs; neither server knows any.
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        // `port_u16` says nothing too where the port is no number: `host:99999`.
        let port = match authority.as_str().strip_prefix(authority.host())?.strip_prefix(':') {
            None => default_port(tls),
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        };
        (!host.is_empty()).then(|| Self { tls, host: host.to_owned(), port })
    }

    /// What goes into `:scheme` and `:authority`.
    pub(crate) fn origin(&self) -> Uri {
        // Made of parts of a parsed URI.
        self.to_string().parse().unwrap_or_default()
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls, host, port } = self;
        let scheme = if *tls { "https" } else { "http" };
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_get_the_port_of_their_scheme() {
        let cases = [
            ("https://api.example.org", "https://api.example.org:443"),
            ("https://api.example.org:33073", "https://api.example.org:33073"),
            ("http://10.99.0.1:8080", "http://10.99.0.1:8080"),
            ("http://10.99.0.1/", "http://10.99.0.1:80"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:443"),
            ("https://[2001:db8::1]:8443/path", "https://[2001:db8::1]:8443"),
        ];
        for (text, shown) in cases {
            let server: ServerUrl = text.parse().expect(text);
            assert_eq!(server.to_string(), shown);
            assert_eq!(server.to_string().parse(), Ok(server.clone()));
            assert_eq!(server.origin().to_string(), format!("{shown}/"));
        }
    }

    #[test]
    fn what_is_no_url_is_named() {
        for text in [
            "",
            "api.example.org",
            "api.example.org:443",
            "ftp://a",
            "https://",
            "http://a:0",
            "http://a:99999",
            "https://user:secret@a",
            "http://:80",
        ] {
            let error = text.parse::<ServerUrl>().expect_err(text);
            assert!(error.to_string().contains("https://HOST[:PORT]"), "{error}");
        }
    }

    #[test]
    fn the_signal_server_has_no_scheme() {
        let config =
            |uri: &str, protocol: host_config::Protocol| HostConfig { uri: uri.to_owned(), protocol: protocol.into() };
        let plain = ServerUrl::signal(&config("10.99.0.1:8080", host_config::Protocol::Http));
        assert_eq!(plain.map(|url| url.to_string()), Ok("http://10.99.0.1:8080".to_owned()));
        let tls = ServerUrl::signal(&config("signal.example.org", host_config::Protocol::Https));
        assert_eq!(tls.map(|url| url.to_string()), Ok("https://signal.example.org:443".to_owned()));
        let old = ServerUrl::signal(&config("https://signal.example.org:443", host_config::Protocol::Https));
        assert_eq!(old.map(|url| url.port), Ok(443));
        assert!(ServerUrl::signal(&config("", host_config::Protocol::Https)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_server_or_an_error(text in "(https?://)?.{0,64}") {
            if let Ok(server) = text.parse::<ServerUrl>() {
                prop_assert_eq!(server.to_string().parse(), Ok(server));
            }
        }
    }
}
