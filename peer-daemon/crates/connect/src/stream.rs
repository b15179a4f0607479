//! A connected stream of bytes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::DetachedStream;

/// A connection to a server.
pub struct Stream(Layers);

enum Layers {
    Plain(Base),
    Tls(Box<TlsStream<Base>>),
}

/// What carries TLS, or is all there is.
pub(crate) struct Base {
    /// Bytes of the server that came behind the proxy's answer, before `transport` is read.
    early: Bytes,
    transport: Transport,
    proxied: bool,
}

pub(crate) enum Transport {
    Tcp(TcpStream),
    /// TLS to a proxy.
    TlsProxy(Box<TlsStream<Base>>),
}

impl Stream {
    pub(crate) fn plain(base: Base) -> Self {
        Self(Layers::Plain(base))
    }

    pub(crate) fn tls(stream: TlsStream<Base>) -> Self {
        Self(Layers::Tls(Box::new(stream)))
    }

    /// The TCP socket below everything.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match &self.0 {
            Layers::Plain(base) => base.tcp(),
            Layers::Tls(tls) => tls.get_ref().0.tcp(),
        }
    }

    /// Takes it from the runtime. Nothing may be on its way to be written.
    ///
    /// # Errors
    /// When the descriptor cannot be taken out of the runtime.
    pub fn detach(self) -> io::Result<DetachedStream> {
        match self.0 {
            Layers::Plain(base) => base.detach(),
            Layers::Tls(tls) => detach(*tls),
        }
    }

    /// Whether the server is reached by TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.0, Layers::Tls(_))
    }

    /// Whether a proxy is in between: then the TCP socket's peer is the proxy.
    #[must_use]
    pub fn is_proxied(&self) -> bool {
        match &self.0 {
            Layers::Plain(base) => base.proxied,
            Layers::Tls(tls) => tls.get_ref().0.proxied,
        }
    }

    /// The protocol that the server chose inside TLS.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.0 {
            Layers::Plain(_) => None,
            Layers::Tls(tls) => tls.get_ref().1.alpn_protocol(),
        }
    }
}

impl Base {
    pub(crate) fn new(transport: Transport) -> Self {
        Self { early: Bytes::new(), transport, proxied: false }
    }

    /// The same after a proxy has connected it on; `early`: what was read from it already.
    pub(crate) fn through_proxy(self, early: Bytes) -> Self {
        Self { early, proxied: true, ..self }
    }

    fn detach(self) -> io::Result<DetachedStream> {
        match self.transport {
            Transport::Tcp(tcp) => Ok(DetachedStream::tcp(self.early, tcp.into_std()?)),
            Transport::TlsProxy(tls) if self.early.is_empty() => detach(*tls),
            // What came behind the proxy's answer is read before anything else is: by the handshake, at the latest.
            Transport::TlsProxy(_) => Err(io::Error::other("bytes behind the proxy's answer have not been read")),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match &self.transport {
            Transport::Tcp(tcp) => tcp,
            Transport::TlsProxy(tls) => tls.get_ref().0.tcp(),
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("tls", &self.is_tls()).field("tcp", self.tcp()).finish()
    }
}

fn detach(tls: TlsStream<Base>) -> io::Result<DetachedStream> {
    let (base, session) = tls.into_inner();
    Ok(DetachedStream::tls(session, base.detach()?))
}

/// Passes writing on to whichever variant there is.
macro_rules! forward_writes {
    ($ty:ty, $field:tt, $($variant:path),+) => {
        impl AsyncWrite for $ty {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
                match &mut self.$field { $($variant(io) => Pin::new(io).poll_write(cx, data),)+ }
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                data: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match &mut self.$field { $($variant(io) => Pin::new(io).poll_write_vectored(cx, data),)+ }
            }

            fn is_write_vectored(&self) -> bool {
                match &self.$field { $($variant(io) => io.is_write_vectored(),)+ }
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match &mut self.$field { $($variant(io) => Pin::new(io).poll_flush(cx),)+ }
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match &mut self.$field { $($variant(io) => Pin::new(io).poll_shutdown(cx),)+ }
            }
        }
    };
}

forward_writes!(Stream, 0, Layers::Plain, Layers::Tls);
forward_writes!(Base, transport, Transport::Tcp, Transport::TlsProxy);

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Layers::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Layers::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncRead for Base {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let len = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..len]);
            self.early.advance(len);
            return Poll::Ready(Ok(()));
        }
        match &mut self.transport {
            Transport::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Transport::TlsProxy(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}
