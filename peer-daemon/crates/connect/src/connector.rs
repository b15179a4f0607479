//! From an address to a stream.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::proxy::ProxyServer;
use crate::stream::{Base, Transport};
use crate::tls::Tls;
use crate::{Alpn, Error, GrpcConnector, Proxy, Stream, Target, tunnel};

/// How long a silent connection waits before the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Settings of a [`Connector`].
#[derive(Clone, Debug)]
pub struct Config {
    /// PEM files of further certificate authorities.
    pub ca_files: Vec<PathBuf>,
    /// Proxy settings.
    pub proxy: Proxy,
    /// For a whole connection, name resolution, proxy and TLS included.
    pub timeout: Duration,
}

impl Default for Config {
    /// No further authorities, no proxy, 30 s.
    fn default() -> Self {
        Self { ca_files: Vec::new(), proxy: Proxy::none(), timeout: Duration::from_secs(30) }
    }
}

/// Connects to servers. Cheap to clone.
#[derive(Clone)]
pub struct Connector(Arc<Inner>);

struct Inner {
    tls: Tls,
    proxy: Proxy,
    timeout: Duration,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("proxy", &self.0.proxy)
            .field("timeout", &self.0.timeout)
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// Reads the root certificates, once.
    ///
    /// # Errors
    /// When a CA file cannot be used.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let tls = Tls::new(&config.ca_files)?;
        Ok(Self(Arc::new(Inner { tls, proxy: config.proxy.clone(), timeout: config.timeout })))
    }

    /// Connects. `alpn` is offered where the target speaks TLS.
    ///
    /// # Errors
    /// When the server is not reached, for whatever reason, within the time of the settings.
    pub async fn connect(&self, target: &Target, alpn: Alpn) -> Result<Stream, Error> {
        let timeout = self.0.timeout;
        let expired = |_| Error::Timeout { address: target.to_string(), seconds: timeout.as_secs() };
        tokio::time::timeout(timeout, self.0.connect(target, alpn)).await.map_err(expired)?
    }

    /// The same for tonic: `Endpoint::connect_with_connector`. It does TLS itself, where the endpoint's scheme is
    /// `https`; tonic's own TLS stays off.
    #[must_use]
    pub fn grpc(&self) -> GrpcConnector {
        GrpcConnector::new(self.clone())
    }
}

impl Inner {
    async fn connect(&self, target: &Target, alpn: Alpn) -> Result<Stream, Error> {
        let base = match self.proxy.on_the_way_to(target) {
            Some(proxy) => tunnel::open(proxy, target, self.proxy_base(proxy).await?).await?,
            None => Base::new(Transport::Tcp(tcp(target).await?)),
        };
        Ok(if target.tls { Stream::tls(self.tls.connect(target, alpn, base).await?) } else { Stream::plain(base) })
    }

    async fn proxy_base(&self, proxy: &ProxyServer) -> Result<Base, Error> {
        let base = Base::new(Transport::Tcp(tcp(&proxy.target).await?));
        if !proxy.target.tls {
            return Ok(base);
        }
        let tls = self.tls.connect(&proxy.target, Alpn::Http1, base).await?;
        Ok(Base::new(Transport::TlsProxy(Box::new(tls))))
    }
}

/// Resolves and connects, both address families side by side (RFC 8305).
async fn tcp(target: &Target) -> Result<TcpStream, Error> {
    let failed = |reason: String| Error::Tcp { address: target.to_string(), reason };
    let uri: Uri = format!("http://{target}").parse().map_err(|_| failed("the host is no name".into()))?;
    let mut http = HttpConnector::new_with_resolver(Resolver { fallback: target.fallback, system: GaiResolver::new() });
    http.set_nodelay(true);
    http.set_keepalive(Some(KEEPALIVE));
    let stream = http.call(uri).await.map_err(|error| failed(chain(&error)))?;
    Ok(stream.into_inner())
}

/// An error with its causes, which say what really happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The system's resolver, and an address for the time when it does not answer.
#[derive(Clone)]
struct Resolver {
    fallback: Option<IpAddr>,
    system: GaiResolver,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.system.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let fallback = self.fallback;
        let answer = self.system.call(name);
        Box::pin(async move {
            match (answer.await, fallback) {
                (Ok(addresses), _) => Ok(addresses.collect::<Vec<_>>().into_iter()),
                // The port of the URL is set by the caller.
                (Err(_), Some(ip)) => Ok(vec![SocketAddr::new(ip, 0)].into_iter()),
                (Err(error), None) => Err(error),
            }
        })
    }
}
