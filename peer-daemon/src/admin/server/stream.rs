//! A stream whose other end must take what is written within a time.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A stream of hyper's, which flushes when the last byte of an answer is written and not before. From the first byte to that
/// no more than a fixed time may pass, however steadily a slow reader takes one byte after the other.
pub(super) struct Timed<S, F> {
    stream: S,
    limit: Duration,
    deadline: Pin<Box<Sleep>>,
    writing: bool,
    /// Called whenever all is taken.
    taken: F,
}

/// The other end has not taken an answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the answer was not taken in time")]
struct Late;

/// Whether that is what an error says.
pub(super) fn is_late(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .is_some_and(<dyn Error + Send + Sync>::is::<Late>)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

impl<S, F: Fn() + Unpin> Timed<S, F> {
    pub(super) fn new(stream: S, limit: Duration, taken: F) -> Self {
        Self { stream, limit, deadline: Box::pin(sleep(limit)), writing: false, taken }
    }

    fn begin(&mut self) {
        if !self.writing {
            self.writing = true;
            self.deadline.as_mut().reset(Instant::now() + self.limit);
        }
    }

    /// Whether the stream may be waited for.
    fn in_time<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, Late)))
    }
}

impl<S: AsyncRead + Unpin, F: Fn() + Unpin> AsyncRead for Timed<S, F> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin, F: Fn() + Unpin> AsyncWrite for Timed<S, F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.begin();
        match Pin::new(&mut self.stream).poll_write(cx, buf) {
            Poll::Pending => self.in_time(cx),
            written => written,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.begin();
        match Pin::new(&mut self.stream).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.in_time(cx),
            written => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        // Bodies are then written from where they are, and not copied for each connection.
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if self.writing {
            self.writing = false;
            (self.taken)();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
