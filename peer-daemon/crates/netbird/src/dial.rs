//! How a connection is made: the seam to whoever knows proxies, certificates and sockets.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::server::ServerUrl;

/// A connection that takes longer is given up. Longer than a resolver waits for a name server that does not answer (5 s), so
/// that the next one is asked; shorter than calls wait, so that it is known what the time went into.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(9);

/// Makes connections on which HTTP/2 can be spoken.
pub trait Dial: Clone + Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects, with TLS (ALPN `h2`) where `server` wants it. May be dropped at any time, and is after [`DIAL_TIMEOUT`].
    /// An error that holds a [`Failure`](peer_core::reach::Failure) tells the log how far it went.
    fn dial(&self, server: ServerUrl) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl<F, R, S> Dial for F
where
    F: Fn(ServerUrl) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = io::Result<S>> + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = S;

    fn dial(&self, server: ServerUrl) -> impl Future<Output = io::Result<S>> + Send {
        self(server)
    }
}
