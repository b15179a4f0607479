//! HTTP/2 connections to a gRPC server, made anew whenever they are gone.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use peer_core::reach::{Failure, Step};
use tonic::transport::{Channel, Endpoint, Uri};
use tower_service::Service;

use crate::dial::{DIAL_TIMEOUT, Dial};
use crate::server::ServerUrl;

/// Servers answer pings closer than 15 s (management) or 5 s (signal) with `ENHANCE_YOUR_CALM`.
const PING_EVERY: Duration = Duration::from_secs(30);
/// A connection whose ping is not answered in this time is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Window of a stream, and of the connection: a map of 10 MB in few round trips.
const WINDOW: u32 = 1 << 20;

/// Channels to one server. Clones share the current one.
#[derive(Clone)]
pub(crate) struct Channels {
    inner: Arc<Inner>,
}

struct Inner {
    make: Box<dyn Fn() -> Channel + Send + Sync>,
    current: Mutex<Channel>,
}

impl Channels {
    /// Nothing is dialled before the first call. Within a tokio runtime only.
    pub(crate) fn new(server: &ServerUrl, dial: impl Dial) -> Self {
        let endpoint = Endpoint::from(server.origin())
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let connector = Connector { server: server.clone(), dial };
        let make = Box::new(move || endpoint.connect_with_connector_lazy(connector.clone()));
        let current = Mutex::new(make());
        Self { inner: Arc::new(Inner { make, current }) }
    }

    /// The current one; it reconnects by itself when its connection was closed.
    pub(crate) fn get(&self) -> Channel {
        self.lock().clone()
    }

    /// Leaves the current connection: one that went silent would swallow the next call too.
    pub(crate) fn renew(&self) {
        *self.lock() = (self.inner.make)();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Channel> {
        // A change is one assignment.
        self.inner.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Connector<D> {
    server: ServerUrl,
    dial: D,
}

impl<D: Dial> Service<Uri> for Connector<D> {
    type Response = TokioIo<D::Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { server, dial } = self.clone();
        Box::pin(async move {
            let connection = tokio::time::timeout(DIAL_TIMEOUT, dial.dial(server)).await.map_err(|_| {
                let error = format!("no connection within {DIAL_TIMEOUT:?}");
                io::Error::new(io::ErrorKind::TimedOut, Failure { step: Step::Connect, error, remedy: None })
            })?;
            Ok(TokioIo::new(connection?))
        })
    }
}
