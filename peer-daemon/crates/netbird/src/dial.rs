//! How a connection is made: the seam to whoever knows proxies, certificates and sockets.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::server::ServerUrl;

/// Makes connections on which HTTP/2 can be spoken.
pub trait Dial: Clone + Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects, with TLS (ALPN `h2`) where `server` wants it. May be dropped at any time.
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
