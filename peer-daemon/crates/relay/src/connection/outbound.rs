//! From the shard's frames to the socket.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use peer_connect::Stream;
use peer_io::RelayConnection;
use peer_io::relay::FrameBuffer;
use tokio::io::AsyncWrite;

use crate::error::ConnectError;
use crate::framer::RelayFramer;

/// How long the relay may take nothing from us.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes what the shard has framed, as it is and as much as there is; our own messages go between.
pub(super) struct Outbound {
    frames: FrameBuffer,
    /// Own messages, framed.
    pub(super) control: Vec<u8>,
    current: Current,
    /// So much of it is written.
    written: usize,
    unflushed: bool,
    blocked_since: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Current {
    Nothing,
    Control,
    Frames,
}

impl Outbound {
    pub(super) fn new() -> Self {
        Self {
            frames: FrameBuffer::new(),
            control: Vec::new(),
            current: Current::Nothing,
            written: 0,
            unflushed: false,
            blocked_since: None,
        }
    }

    /// Writes as much as the socket takes. Returns whether anything was written.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        stream: &mut Stream,
        relay: &RelayConnection<RelayFramer>,
    ) -> Result<bool, ConnectError> {
        let mut progress = false;
        while self.next(cx, relay)? {
            let chunk = match self.current {
                Current::Control => &self.control[..],
                _ => self.frames.bytes(),
            };
            match Pin::new(&mut *stream).poll_write(cx, &chunk[self.written..])? {
                Poll::Ready(0) => return Err(ConnectError::Closed),
                Poll::Ready(len) => {
                    self.written += len;
                    (self.unflushed, self.blocked_since) = (true, None);
                    progress = true;
                    if self.written == chunk.len() {
                        self.finish();
                    }
                }
                Poll::Pending => {
                    self.blocked_since.get_or_insert(now);
                    return Ok(progress);
                }
            }
        }
        if self.unflushed {
            match Pin::new(stream).poll_flush(cx)? {
                Poll::Ready(()) => (self.unflushed, self.blocked_since) = (false, None),
                Poll::Pending => _ = self.blocked_since.get_or_insert(now),
            }
        }
        Ok(progress)
    }

    /// Whether everything has left.
    pub(super) fn is_done(&self) -> bool {
        self.current == Current::Nothing && self.control.is_empty() && !self.unflushed
    }

    /// When the relay is given up because it takes nothing.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Some(self.blocked_since? + WRITE_TIMEOUT)
    }

    pub(super) fn check(&self, now: Instant) -> Result<(), ConnectError> {
        match self.deadline() {
            Some(at) if at <= now => Err(ConnectError::Stuck(WRITE_TIMEOUT.as_secs())),
            _ => Ok(()),
        }
    }

    /// Sees to it that there is a current chunk. `false`: there is nothing to write.
    fn next(&mut self, cx: &mut Context<'_>, relay: &RelayConnection<RelayFramer>) -> Result<bool, ConnectError> {
        if self.current == Current::Nothing {
            if !self.control.is_empty() {
                self.current = Current::Control;
            } else {
                match relay.poll_frames(cx, &mut self.frames) {
                    Poll::Ready(Ok(())) => self.current = Current::Frames,
                    Poll::Ready(Err(_)) => return Err(ConnectError::ShardStopped),
                    Poll::Pending => return Ok(false),
                }
            }
        }
        Ok(true)
    }

    fn finish(&mut self) {
        if self.current == Current::Control {
            self.control.clear();
        }
        (self.current, self.written) = (Current::Nothing, 0);
    }
}
