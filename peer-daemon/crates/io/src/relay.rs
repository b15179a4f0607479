//! Relay connections beside the sockets of a shard.
//!
//! A connection is made elsewhere, by tasks that may wait: name resolution, TLS, authentication. Then it is attached to a
//! [`RelayPort`], and from there on the shard's thread alone drives it ([`RelayLane`]): it waits for its descriptor together
//! with all others, reads many frames at once into a batch that the engine opens, and writes the frames of an engine's
//! batch by one call. A packet changes threads nowhere; nothing is allocated for it.
//!
//! A connection takes what fits into its buffer; more is dropped and counted. It is WireGuard's, whose payload knows how to
//! deal with loss.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use peer_core::batch::DatagramBatch;
use peer_core::path::Path;
use rustix::event::{EventfdFlags, PollFlags};

use crate::stats::{IoDrop, ShardStats};

/// Connections of one shard.
pub const MAX_LANES: usize = 60;
/// Bytes that a connection should read into a batch at once; there is room for more.
pub const READ_BYTES: usize = 128 << 10;

/// A connection to a relay, as a shard's thread drives it. No call may wait.
pub trait RelayLane: Send + 'static {
    /// What to wait for.
    fn as_fd(&self) -> BorrowedFd<'_>;

    /// Whether something waits until the descriptor can be written to.
    fn wants_write(&self) -> bool;

    /// Reads what has arrived and appends the datagrams of peers to `batch`. Returns whether there may be more of which the
    /// descriptor knows nothing.
    fn receive(&mut self, now: Instant, batch: &mut DatagramBatch) -> bool;

    /// Makes a frame of a datagram, to be written by the next [`RelayLane::flush`].
    ///
    /// # Errors
    /// When it cannot go that way.
    fn send(&mut self, peer: u32, datagram: &[u8]) -> Result<(), LaneError>;

    /// Writes as much as the descriptor takes.
    fn flush(&mut self, now: Instant);

    /// Takes what the control side has left for it: called after [`RelayPort::wake`].
    fn handle_commands(&mut self, now: Instant);

    /// Does what is due at `now`.
    fn handle_timeout(&mut self, now: Instant);

    /// When [`RelayLane::handle_timeout`] wants to be called next, at the latest.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Whether it is over: then it is dropped.
    fn is_over(&self) -> bool;
}

/// Why a relay connection does not take a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// It does not know the peer, or no more.
    #[error("the peer is not known to the relay connection")]
    Gone,
    /// The relay does not take messages of that size.
    #[error("the datagram is larger than a relay message")]
    TooBig,
    /// Its buffer is full.
    #[error("the relay connection takes no more for now")]
    Full,
}

/// A connection was not attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The shard has stopped.
    #[error("the shard has stopped")]
    Closed,
    /// There are enough.
    #[error("the shard has {MAX_LANES} relay connections already")]
    TooMany,
}

/// Where relay connections are attached to a shard. Cheap to clone.
#[derive(Clone)]
pub struct RelayPort(Arc<Port>);

struct Port {
    wake: Arc<OwnedFd>,
    /// There is news for the thread.
    news: AtomicBool,
    next_connection: AtomicU32,
    desk: Mutex<Desk>,
}

/// What is left for the thread.
#[derive(Default)]
struct Desk {
    attached: Vec<(u32, Box<dyn RelayLane>)>,
    /// Connections that are or will be with the thread.
    count: usize,
    /// The thread is gone.
    closed: bool,
}

impl RelayPort {
    /// A port whose other end the caller drives, in the place of a shard: for tests and benches of relay connections.
    ///
    /// # Errors
    /// When there is no descriptor to be had.
    pub fn detached() -> io::Result<(Self, RelayEnd)> {
        let wake = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let port = Self::new(Arc::new(wake));
        let end = RelayEnd::new(&port);
        Ok((port, end))
    }

    pub(crate) fn new(wake: Arc<OwnedFd>) -> Self {
        let (news, next_connection) = (AtomicBool::new(false), AtomicU32::new(1));
        Self(Arc::new(Port { wake, news, next_connection, desk: Mutex::default() }))
    }

    /// Attaches the connection that `make` makes. It is told the connection's number, which the
    /// [`RelayId`](peer_core::path::RelayId)s of its peers carry.
    ///
    /// # Errors
    /// When the shard has stopped or has enough connections; `make` is not called then.
    pub fn attach<L: RelayLane>(&self, make: impl FnOnce(u32) -> L) -> Result<(), AttachError> {
        let connection = self.0.next_connection.fetch_add(1, Ordering::Relaxed);
        let mut desk = lock(&self.0.desk);
        if desk.closed {
            return Err(AttachError::Closed);
        }
        if desk.count >= MAX_LANES {
            return Err(AttachError::TooMany);
        }
        desk.count += 1;
        desk.attached.push((connection, Box::new(make(connection))));
        drop(desk);
        self.wake();
        Ok(())
    }

    /// Lets all connections take their commands.
    pub fn wake(&self) {
        if !self.0.news.swap(true, Ordering::AcqRel) {
            // Full means that the thread is awake already.
            _ = rustix::io::write(&*self.0.wake, &1_u64.to_ne_bytes());
        }
    }
}

impl fmt::Debug for RelayPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayPort").field("connections", &lock(&self.0.desk).count).finish()
    }
}

/// The thread's end of a port. Dropping it closes the port and drops all connections.
pub struct RelayEnd {
    port: Arc<Port>,
    lanes: Vec<Lane>,
}

struct Lane {
    connection: u32,
    /// There may be more to be read than the descriptor knows of.
    pending: bool,
    lane: Box<dyn RelayLane>,
}

impl RelayEnd {
    pub(crate) fn new(port: &RelayPort) -> Self {
        Self { port: Arc::clone(&port.0), lanes: Vec::with_capacity(MAX_LANES) }
    }

    /// Number of connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// What to wait for, by connection.
    pub fn interests(&self) -> impl ExactSizeIterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.lanes.iter().map(|Lane { lane, .. }| {
            let write = if lane.wants_write() { PollFlags::OUT } else { PollFlags::empty() };
            (lane.as_fd(), PollFlags::IN | write)
        })
    }

    /// Whether a connection has something to be read of which its descriptor knows nothing.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        self.lanes.iter().any(|lane| lane.pending)
    }

    /// Looks for news of the control side: new connections, commands.
    pub fn look(&mut self, now: Instant) {
        if !self.port.news.swap(false, Ordering::AcqRel) {
            return;
        }
        let attached = std::mem::take(&mut lock(&self.port.desk).attached);
        let attached = attached.into_iter().map(|(connection, lane)| Lane { connection, pending: true, lane });
        self.lanes.extend(attached);
        for Lane { lane, .. } in &mut self.lanes {
            lane.handle_commands(now);
            lane.flush(now);
        }
    }

    /// Reads from the connection at `index` into `batch`, if `ready` or if it has something pending. Returns whether it may
    /// have more.
    pub fn receive(
        &mut self,
        index: usize,
        ready: bool,
        now: Instant,
        batch: &mut DatagramBatch,
        stats: &ShardStats,
    ) -> bool {
        let Some(Lane { pending, lane, .. }) = self.lanes.get_mut(index) else { return false };
        if !ready && !*pending {
            return false;
        }
        let (count, bytes) = (batch.len(), batch.bytes());
        *pending = lane.receive(now, batch);
        stats.relay_in.calls.add(1);
        stats.relay_in.packets.add((batch.len() - count) as u64);
        stats.relay_in.bytes.add((batch.bytes() - bytes) as u64);
        *pending
    }

    /// Writes what waits for the connection at `index`: its own messages, and what its descriptor did not take before.
    pub fn flush(&mut self, index: usize, now: Instant) {
        if let Some(Lane { lane, .. }) = self.lanes.get_mut(index) {
            lane.flush(now);
        }
    }

    /// Passes on what in `batch` goes by relays: each run of one connection at once.
    pub fn send(&mut self, now: Instant, batch: &DatagramBatch, stats: &ShardStats) {
        let connection = |at| match batch.get(at) {
            Some((_, Path::Relay(id))) => Some(id.connection),
            _ => None,
        };
        let mut next = 0;
        while next < batch.len() {
            let start = next;
            let run = connection(start);
            while next < batch.len() && connection(next) == run {
                next += 1;
            }
            let Some(run) = run else { continue };
            let Some(Lane { lane, .. }) = self.lanes.iter_mut().find(|lane| lane.connection == run) else {
                stats.dropped(IoDrop::RelayGone, (next - start) as u64);
                continue;
            };
            for (datagram, path) in (start..next).filter_map(|at| batch.get(at)) {
                let Path::Relay(id) = path else { continue };
                match lane.send(id.peer, datagram) {
                    Ok(()) => {
                        stats.relay_out.packets.add(1);
                        stats.relay_out.bytes.add(datagram.len() as u64);
                    }
                    Err(error) => stats.dropped(error.reason(), 1),
                }
            }
            stats.relay_out.calls.add(1);
            lane.flush(now);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for Lane { lane, .. } in &mut self.lanes {
            if lane.poll_timeout().is_some_and(|at| at <= now) {
                lane.handle_timeout(now);
                lane.flush(now);
            }
        }
    }

    /// When [`RelayEnd::handle_timeout`] wants to be called next, at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(|Lane { lane, .. }| lane.poll_timeout()).min()
    }

    /// Drops connections that are over. Others may get other indexes.
    pub fn tidy(&mut self) {
        if self.lanes.iter().any(|Lane { lane, .. }| lane.is_over()) {
            let before = self.lanes.len();
            self.lanes.retain(|Lane { lane, .. }| !lane.is_over());
            lock(&self.port.desk).count -= before - self.lanes.len();
        }
    }
}

impl fmt::Debug for RelayEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayEnd").field("connections", &self.lanes.len()).finish_non_exhaustive()
    }
}

impl AsFd for RelayEnd {
    /// Readable after news.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.wake.as_fd()
    }
}

impl Drop for RelayEnd {
    fn drop(&mut self) {
        let mut desk = lock(&self.port.desk);
        desk.closed = true;
        // Dropped without the lock: what a connection says in its end is its own business.
        let attached = std::mem::take(&mut desk.attached);
        drop(desk);
        drop(attached);
    }
}

impl LaneError {
    fn reason(self) -> IoDrop {
        match self {
            Self::Gone => IoDrop::RelayGone,
            Self::TooBig => IoDrop::RelayTooBig,
            Self::Full => IoDrop::RelayFull,
        }
    }
}

/// A panic elsewhere leaves nothing half done that would matter here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
