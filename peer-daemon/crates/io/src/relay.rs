//! Where relayed datagrams enter and leave a shard, beside its sockets.
//!
//! Relay connections live in tasks of their own; the shard's thread knows nothing of their protocol. Per connection:
//!
//! * out: the thread writes finished frames ([`Framer`]) into one buffer of fixed size; the task swaps it for an empty
//!   one and writes it to its connection, many frames by one system call. When the buffer is full, datagrams are dropped
//!   and counted: they are WireGuard's, whose payload knows how to deal with loss.
//! * in: the task fills batches from a small pool and hands them over; the thread gives them back. When the pool is empty
//!   the task waits, and its connection's flow control tells the server.
//!
//! Nothing is allocated per datagram, and a wake-up is for as many as came meanwhile.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use peer_core::batch::DatagramBatch;
use peer_core::path::{Path, RelayId};
use rustix::event::EventfdFlags;

use crate::stats::{IoDrop, ShardStats};

/// Frames of one connection that wait to be written, bytes: 10 ms of 200 Mbit/s. More would only be delay.
const OUT_BYTES: usize = 256 << 10;
/// Payload of one arriving batch, bytes; well within what the shard has room for.
pub const IN_BYTES: usize = 128 << 10;
/// Datagrams of one arriving batch.
pub const IN_ITEMS: usize = 1024;
/// Batches per connection: one is filled, two may wait.
const IN_BATCHES: usize = 3;

/// What a relay connection makes of datagrams.
pub trait Framer: Send + 'static {
    /// What a frame may have more than the datagram in it, bytes.
    const OVERHEAD: usize;

    /// Writes the frame that carries `datagram` to `peer` to the start of `room`, which has [`Framer::OVERHEAD`] bytes more
    /// than the datagram, and returns its length.
    ///
    /// # Errors
    /// When the datagram cannot go that way.
    fn frame(&mut self, peer: u32, datagram: &[u8], room: &mut [u8]) -> Result<usize, Unframed>;
}

/// Why there is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unframed {
    /// The connection does not know the peer, or no more.
    #[error("the peer is not known to the relay connection")]
    Gone,
    /// The relay does not take messages of that size.
    #[error("the datagram is larger than a relay message")]
    TooBig,
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

/// What tasks leave for the thread.
#[derive(Default)]
struct Desk {
    arrived: VecDeque<(Arc<dyn Lane>, DatagramBatch)>,
    lanes: Vec<Arc<dyn Lane>>,
    /// The thread has not seen `lanes` yet.
    changed: bool,
    /// The thread is gone.
    closed: bool,
}

/// A connection as the thread sees it.
trait Lane: Send + Sync {
    fn connection(&self) -> u32;
    /// Frames these datagrams of `batch`, which all go by this connection.
    fn send(&self, batch: &DatagramBatch, items: Range<usize>, stats: &ShardStats);
    /// Takes a batch back.
    fn give_back(&self, batch: DatagramBatch);
    /// Nobody will fetch or give back anything any more.
    fn close(&self);
}

struct Way<F> {
    connection: u32,
    out: Mutex<Out<F>>,
    pool: Mutex<Pool>,
}

struct Out<F> {
    framer: F,
    buffer: FrameBuffer,
    /// The task, when it has found nothing.
    waker: Option<Waker>,
    closed: bool,
}

#[derive(Default)]
struct Pool {
    spare: Vec<DatagramBatch>,
    made: usize,
    waker: Option<Waker>,
    closed: bool,
}

/// Frames back to back.
pub struct FrameBuffer {
    bytes: Box<[u8]>,
    used: usize,
}

/// A relay connection at a shard. Dropping it detaches it: what the engine still sends there is dropped and counted.
pub struct RelayConnection<F: Framer> {
    port: Arc<Port>,
    way: Arc<Way<F>>,
}

/// The shard has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard has stopped")]
pub struct PortClosed;

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

    /// Attaches a connection. The numbers of its peers, the second half of their [`RelayId`], are `framer`'s business.
    pub fn attach<F: Framer>(&self, framer: F) -> RelayConnection<F> {
        let connection = self.0.next_connection.fetch_add(1, Ordering::Relaxed);
        let mut desk = lock(&self.0.desk);
        let out = Out { framer, buffer: FrameBuffer::new(), waker: None, closed: desk.closed };
        let pool = Pool { closed: desk.closed, ..Pool::default() };
        let way = Arc::new(Way { connection, out: Mutex::new(out), pool: Mutex::new(pool) });
        if !desk.closed {
            desk.lanes.push(Arc::clone(&way) as Arc<dyn Lane>);
            desk.changed = true;
        }
        drop(desk);
        self.0.announce();
        RelayConnection { port: Arc::clone(&self.0), way }
    }
}

impl fmt::Debug for RelayPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayPort").field("connections", &lock(&self.0.desk).lanes.len()).finish()
    }
}

impl Port {
    fn announce(&self) {
        if !self.news.swap(true, Ordering::AcqRel) {
            // Full means that the thread is awake already.
            _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        }
    }
}

impl<F: Framer> RelayConnection<F> {
    /// The path to its peer of this number.
    #[must_use]
    pub fn path(&self, peer: u32) -> Path {
        Path::Relay(RelayId { connection: self.way.connection, peer })
    }

    /// Runs `f` on the framer: to add and remove peers.
    pub fn with_framer<R>(&self, f: impl FnOnce(&mut F) -> R) -> R {
        f(&mut lock(&self.way.out).framer)
    }

    /// Swaps `buffer` for the frames that are waiting; pending while there are none. What was in `buffer` is forgotten.
    ///
    /// # Errors
    /// When the shard has stopped.
    pub fn poll_frames(&self, cx: &mut Context<'_>, buffer: &mut FrameBuffer) -> Poll<Result<(), PortClosed>> {
        let mut out = lock(&self.way.out);
        if out.closed {
            return Poll::Ready(Err(PortClosed));
        }
        if out.buffer.is_empty() {
            keep(&mut out.waker, cx);
            return Poll::Pending;
        }
        buffer.clear();
        std::mem::swap(&mut out.buffer, buffer);
        Poll::Ready(Ok(()))
    }

    /// An empty batch to be filled; pending while all are on their way.
    ///
    /// # Errors
    /// When the shard has stopped.
    pub fn poll_batch(&self, cx: &mut Context<'_>) -> Poll<Result<DatagramBatch, PortClosed>> {
        let mut pool = lock(&self.way.pool);
        if pool.closed {
            return Poll::Ready(Err(PortClosed));
        }
        if let Some(batch) = pool.spare.pop() {
            return Poll::Ready(Ok(batch));
        }
        if pool.made < IN_BATCHES {
            pool.made += 1;
            return Poll::Ready(Ok(DatagramBatch::with_capacity(IN_BYTES, IN_ITEMS)));
        }
        keep(&mut pool.waker, cx);
        Poll::Pending
    }

    /// Hands a batch of [`RelayConnection::poll_batch`] over to the shard, and wakes it.
    pub fn deliver(&self, batch: DatagramBatch) {
        if batch.is_empty() {
            return self.way.give_back(batch);
        }
        let mut desk = lock(&self.port.desk);
        if !desk.closed {
            desk.arrived.push_back((Arc::clone(&self.way) as Arc<dyn Lane>, batch));
        }
        drop(desk);
        self.port.announce();
    }
}

impl<F: Framer> Drop for RelayConnection<F> {
    fn drop(&mut self) {
        let mut desk = lock(&self.port.desk);
        desk.lanes.retain(|lane| lane.connection() != self.way.connection);
        desk.changed = true;
        drop(desk);
        self.port.announce();
    }
}

impl<F: Framer> fmt::Debug for RelayConnection<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayConnection").field("connection", &self.way.connection).finish_non_exhaustive()
    }
}

impl FrameBuffer {
    /// An empty one of the size that all have.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: vec![0; OUT_BYTES].into_boxed_slice(), used: 0 }
    }

    /// The frames.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.used = 0;
    }
}

impl Default for FrameBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FrameBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameBuffer").field("used", &self.used).finish_non_exhaustive()
    }
}

impl<F: Framer> Lane for Way<F> {
    fn connection(&self) -> u32 {
        self.connection
    }

    fn send(&self, batch: &DatagramBatch, items: Range<usize>, stats: &ShardStats) {
        let mut out = lock(&self.out);
        let Out { framer, buffer, .. } = &mut *out;
        let before = buffer.used;
        for at in items {
            let Some((datagram, Path::Relay(id))) = batch.get(at) else { continue };
            let Some(room) = buffer.bytes.get_mut(buffer.used..buffer.used + datagram.len() + F::OVERHEAD) else {
                stats.dropped(IoDrop::RelayFull, 1);
                continue;
            };
            match framer.frame(id.peer, datagram, room) {
                Ok(len) => {
                    buffer.used += len.min(room.len());
                    stats.relay_out.packets.add(1);
                    stats.relay_out.bytes.add(datagram.len() as u64);
                }
                Err(Unframed::Gone) => stats.dropped(IoDrop::RelayGone, 1),
                Err(Unframed::TooBig) => stats.dropped(IoDrop::RelayTooBig, 1),
            }
        }
        let waker = if buffer.used > before { out.waker.take() } else { None };
        drop(out);
        stats.relay_out.calls.add(1);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn give_back(&self, mut batch: DatagramBatch) {
        batch.clear();
        let mut pool = lock(&self.pool);
        pool.spare.push(batch);
        let waker = pool.waker.take();
        drop(pool);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn close(&self) {
        let wakers = {
            let (mut out, mut pool) = (lock(&self.out), lock(&self.pool));
            (out.closed, pool.closed) = (true, true);
            [out.waker.take(), pool.waker.take()]
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// The thread's end of a port. Dropping it closes the port.
pub struct RelayEnd {
    port: Arc<Port>,
    lanes: Vec<Arc<dyn Lane>>,
    arrived: VecDeque<(Arc<dyn Lane>, DatagramBatch)>,
}

impl RelayEnd {
    pub(crate) fn new(port: &RelayPort) -> Self {
        Self { port: Arc::clone(&port.0), lanes: Vec::new(), arrived: VecDeque::new() }
    }

    /// Looks for news. Returns whether datagrams are waiting.
    pub fn look(&mut self) -> bool {
        if self.port.news.swap(false, Ordering::AcqRel) {
            let mut desk = lock(&self.port.desk);
            self.arrived.append(&mut desk.arrived);
            if std::mem::take(&mut desk.changed) {
                self.lanes.clone_from(&desk.lanes);
            }
        }
        !self.arrived.is_empty()
    }

    /// Lets `f` have the next batch.
    pub fn receive<R>(&mut self, stats: &ShardStats, f: impl FnOnce(&mut DatagramBatch) -> R) -> Option<R> {
        let (lane, mut batch) = self.arrived.pop_front()?;
        stats.relay_in.calls.add(1);
        stats.relay_in.packets.add(batch.len() as u64);
        stats.relay_in.bytes.add(batch.bytes() as u64);
        let result = f(&mut batch);
        lane.give_back(batch);
        Some(result)
    }

    /// Passes on what in `batch` goes by relays: each run of one connection at once.
    pub fn send(&mut self, batch: &DatagramBatch, stats: &ShardStats) {
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
            match self.lanes.iter().find(|lane| lane.connection() == run) {
                Some(lane) => lane.send(batch, start..next, stats),
                None => stats.dropped(IoDrop::RelayGone, (next - start) as u64),
            }
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
        desk.arrived.clear();
        let lanes = std::mem::take(&mut desk.lanes);
        drop(desk);
        for lane in lanes {
            lane.close();
        }
    }
}

fn keep(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

/// A panic elsewhere leaves nothing half done that would matter here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
