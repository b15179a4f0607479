//! From an address to a stream.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use peer_core::reach::Step;
use rustix::io::Errno;
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
        self.connect_within(self.0.timeout, target, alpn).await
    }

    /// The same within another time: a caller that would give up before us does not learn how far it went.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_within(&self, timeout: Duration, target: &Target, alpn: Alpn) -> Result<Stream, Error> {
        let progress = Progress::default();
        let connected = tokio::time::timeout(timeout, self.0.connect(target, alpn, &progress)).await;
        let expired =
            |_| Error::Timeout { address: target.to_string(), seconds: timeout.as_secs(), step: progress.step() };
        connected.map_err(expired)?
    }

    /// The same for tonic: `Endpoint::connect_with_connector`. It does TLS itself, where the endpoint's scheme is
    /// `https`; tonic's own TLS stays off.
    #[must_use]
    pub fn grpc(&self) -> GrpcConnector {
        GrpcConnector::new(self.clone())
    }
}

/// The step that an attempt is at, for when its time is up.
#[derive(Clone, Default)]
struct Progress(Arc<Mutex<Option<Step>>>);

impl Progress {
    fn reach(&self, step: Step) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
    }

    fn step(&self) -> Step {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(Step::Name)
    }
}

impl Inner {
    async fn connect(&self, target: &Target, alpn: Alpn, progress: &Progress) -> Result<Stream, Error> {
        let base = match self.proxy.on_the_way_to(target) {
            Some(proxy) => {
                let base = self.proxy_base(proxy, progress).await?;
                progress.reach(Step::Proxy);
                tunnel::open(proxy, target, base).await?
            }
            None => Base::new(Transport::Tcp(tcp(target, progress).await?)),
        };
        if !target.tls {
            return Ok(Stream::plain(base));
        }
        progress.reach(Step::Tls);
        Ok(Stream::tls(self.tls.connect(target, alpn, base).await?))
    }

    async fn proxy_base(&self, proxy: &ProxyServer, progress: &Progress) -> Result<Base, Error> {
        let base = Base::new(Transport::Tcp(tcp(&proxy.target, progress).await?));
        if !proxy.target.tls {
            return Ok(base);
        }
        progress.reach(Step::Tls);
        let tls = self.tls.connect(&proxy.target, Alpn::Http1, base).await?;
        Ok(Base::new(Transport::TlsProxy(Box::new(tls))))
    }
}

/// Resolves and connects, both address families side by side (RFC 8305).
async fn tcp(target: &Target, progress: &Progress) -> Result<TcpStream, Error> {
    let address = || target.to_string();
    let uri: Uri = format!("http://{target}")
        .parse()
        .map_err(|_| Error::Target { url: address(), reason: "the host is no name" })?;
    progress.reach(Step::Name);
    let resolver = Resolver { fallback: target.fallback, system: GaiResolver::new(), progress: progress.clone() };
    let mut http = HttpConnector::new_with_resolver(resolver);
    http.set_nodelay(true);
    http.set_keepalive(Some(KEEPALIVE));
    if is_address(target) {
        progress.reach(Step::Connect);
    }
    let stream = http.call(uri).await.map_err(|error| match innermost(&error) {
        Some(Cause::Name(source)) => Error::Name { address: address(), source },
        Some(Cause::Tcp(source)) => Error::Tcp {
            address: address(),
            reason: source.to_string(),
            errno: source.raw_os_error().map(Errno::from_raw_os_error),
        },
        None => Error::Tcp { address: address(), reason: error.to_string(), errno: None },
    })?;
    Ok(stream.into_inner())
}

fn is_address(target: &Target) -> bool {
    target.host.parse::<IpAddr>().is_ok()
}

/// What really happened.
enum Cause<'a> {
    Name(std::io::Error),
    Tcp(&'a std::io::Error),
}

fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<Cause<'a>> {
    let causes = || std::iter::successors(Some(error), |error| error.source());
    if let Some(Unresolved(error)) = causes().find_map(|cause| cause.downcast_ref()) {
        // It cannot be cloned: kind and words are all there is in it.
        return Some(Cause::Name(std::io::Error::new(error.kind(), error.to_string())));
    }
    causes().filter_map(|cause| cause.downcast_ref()).last().map(Cause::Tcp)
}

/// The resolver's error, to be told from those of sockets.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unresolved(std::io::Error);

/// The system's resolver, and an address for the time when it does not answer.
#[derive(Clone)]
struct Resolver {
    fallback: Option<IpAddr>,
    system: GaiResolver,
    progress: Progress,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Unresolved;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.system.poll_ready(cx).map_err(Unresolved)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (fallback, progress) = (self.fallback, self.progress.clone());
        let answer = self.system.call(name);
        Box::pin(async move {
            let addresses = match (answer.await, fallback) {
                (Ok(addresses), _) => addresses.collect::<Vec<_>>(),
                // The port of the URL is set by the caller.
                (Err(_), Some(ip)) => vec![SocketAddr::new(ip, 0)],
                (Err(error), None) => return Err(Unresolved(error)),
            };
            progress.reach(Step::Connect);
            Ok(addresses.into_iter())
        })
    }
}
