//! Which proxy the environment names.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::no_proxy::NoProxy;
use crate::{Error, Target};

/// Proxy settings. All servers, with TLS or without, are reached through the proxy for HTTPS, by CONNECT, as gRPC
/// libraries do it.
#[derive(Clone, Default)]
pub struct Proxy {
    server: Option<Arc<ProxyServer>>,
    direct: NoProxy,
}

/// A proxy with what it must be told.
pub(crate) struct ProxyServer {
    pub(crate) target: Target,
    /// Value of `Proxy-Authorization`.
    pub(crate) authorization: Option<HeaderValue>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = self.server.as_ref().map(|server| server.target.to_string());
        f.debug_struct("Proxy").field("server", &server).field("direct", &self.direct).finish()
    }
}

impl Proxy {
    /// No proxy, whatever the environment says.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// As `HTTPS_PROXY`, `https_proxy`, `ALL_PROXY` or `all_proxy` says, the first that is not empty; `NO_PROXY` or
    /// `no_proxy` lists the exceptions.
    ///
    /// # Errors
    /// When the value is no URL of scheme `http` or `https` with a host: going around a proxy silently helps nobody.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    pub(crate) fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| Some((*name, lookup(name).filter(|value| !value.trim().is_empty())?)))
        };
        let Some((variable, value)) = first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]) else {
            return Ok(Self::none());
        };
        let server = ProxyServer::parse(variable, &Zeroizing::new(value))?;
        let direct = first(&["NO_PROXY", "no_proxy"]).map(|(_, list)| NoProxy::parse(&list)).unwrap_or_default();
        Ok(Self { server: Some(Arc::new(server)), direct })
    }

    /// The proxy on the way to `target`.
    pub(crate) fn on_the_way_to(&self, target: &Target) -> Option<&ProxyServer> {
        self.server.as_deref().filter(|_| !self.direct.contains(target))
    }
}

impl ProxyServer {
    fn parse(variable: &str, value: &str) -> Result<Self, Error> {
        let wrong = |reason| Error::ProxyUrl { variable: variable.into(), reason };
        let value = value.trim();
        let with_scheme = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
        let with_scheme = Zeroizing::new(with_scheme);
        let uri: Uri = with_scheme.parse().map_err(|_| wrong("it is no URL, as http://proxy.example:3128 is"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong("only proxies of scheme http and https are known"));
        }
        let target = Target::from_uri(&uri).map_err(|error| match error {
            Error::Target { reason, .. } => wrong(reason),
            _ => wrong("it is no URL"),
        })?;
        let userinfo = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@'));
        let authorization = userinfo.map(|(userinfo, _)| basic(userinfo));
        Ok(Self {
            target,
            authorization: authorization
                .transpose()
                .map_err(|()| wrong("its user or password cannot be sent in a header"))?,
        })
    }
}

/// RFC 7617: base64 of `user:password`, both percent-decoded.
fn basic(userinfo: &str) -> Result<HeaderValue, ()> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let mut plain = Zeroizing::new(Vec::with_capacity(userinfo.len() + 1));
    plain.extend(percent_decode_str(user));
    plain.push(b':');
    plain.extend(percent_decode_str(password));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(&*plain)));
    let mut value = HeaderValue::from_str(&text).map_err(|_| ())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<Proxy, Error> {
        Proxy::from_lookup(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    fn target(host: &str) -> Target {
        Target { tls: true, host: host.into(), port: 443, fallback: None }
    }

    #[test]
    fn the_first_variable_that_says_something_counts() {
        let proxy = from(&[("HTTPS_PROXY", ""), ("https_proxy", "proxy:3128"), ("ALL_PROXY", "http://other")]);
        let proxy = proxy.expect("valid");
        let server = proxy.on_the_way_to(&target("server")).expect("a proxy");
        assert_eq!((server.target.to_string().as_str(), server.target.tls), ("proxy:3128", false));
        assert!(server.authorization.is_none());
        assert!(from(&[]).expect("valid").on_the_way_to(&target("server")).is_none());
    }

    #[test]
    fn exceptions_go_directly() {
        let proxy = from(&[("HTTPS_PROXY", "https://proxy"), ("NO_PROXY", "inside.example")]).expect("valid");
        assert!(proxy.on_the_way_to(&target("a.inside.example")).is_none());
        let server = proxy.on_the_way_to(&target("outside.example")).expect("a proxy");
        assert_eq!((server.target.port, server.target.tls), (443, true));
    }

    #[test]
    fn user_and_password_are_sent_and_not_shown() {
        let proxy = from(&[("HTTPS_PROXY", "http://al%40ice:s%3Acret@[fd00::1]:8080/")]).expect("valid");
        let server = proxy.on_the_way_to(&target("server")).expect("a proxy");
        assert_eq!(server.target.to_string(), "[fd00::1]:8080");
        let expected = format!("Basic {}", STANDARD.encode("al@ice:s:cret"));
        assert_eq!(server.authorization.as_ref().map(HeaderValue::as_bytes), Some(expected.as_bytes()));
        let shown = format!("{proxy:?}");
        assert!(!shown.contains("cret") && !shown.contains("ice"), "{shown}");
    }

    #[test]
    fn what_is_no_proxy_is_an_error_without_the_secret() {
        for (value, reason) in [
            ("socks5://user:secret@proxy:1080", "only proxies of scheme http and https are known"),
            ("http://user:secret@proxy:0", "port 0 does not exist"),
            ("http://user:secret@:80", "there is no host"),
            ("http://sec ret", "it is no URL, as http://proxy.example:3128 is"),
        ] {
            let error = from(&[("ALL_PROXY", value)]).expect_err(value);
            assert_eq!(error.to_string(), format!("ALL_PROXY names no proxy: {reason}"), "{value}");
        }
    }
}
