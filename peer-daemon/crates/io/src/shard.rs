//! One owner thread per shard: it alone touches the engine, one TUN queue and its sockets.
//!
//! The thread sleeps in poll(2) over sockets, queue and a wake-up descriptor, and serves each that is ready with a fixed
//! budget per turn, so that neither direction starves the other, nor both the timers and the control side. Memory is
//! allocated once, at start.

mod run;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use peer_core::shard::{Engine, ShardId};
use rustix::event::EventfdFlags;
use tokio::sync::{mpsc, oneshot, watch};

use self::run::{Runner, Ways};
use crate::Error;
use crate::relay::{RelayEnd, RelayPort};
use crate::stats::ShardStats;
use crate::tun::TunQueue;
use crate::udp::Sockets;

/// Calls of the control side that may wait; one more waits before it is queued.
const COMMANDS: usize = 64;

/// What a shard is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct ShardConfig {
    /// Which one.
    pub id: ShardId,
    /// MTU of the mesh device, bytes. Larger TCP segments are cut to it.
    pub mtu: u16,
}

/// Why a shard's thread ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// It was asked to.
    #[error("it was asked to stop")]
    Requested,
    /// A descriptor failed for good, most likely because the device was deleted.
    #[error("{what}: {message}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The answer.
        message: String,
    },
    /// Its thread panicked: an error in the program.
    #[error("its thread panicked: {0}")]
    Panicked(String),
}

/// The shard runs no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard has stopped: {reason}")]
pub struct Stopped {
    /// Why.
    #[source]
    pub reason: StopReason,
}

type Command<E> = Box<dyn FnOnce(&mut E, Instant) + Send>;

/// A running shard. Dropping it stops it.
pub struct Shard<E: Engine> {
    commands: mpsc::Sender<Command<E>>,
    wake: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    ended: watch::Receiver<Option<StopReason>>,
    stats: Arc<ShardStats>,
    relays: RelayPort,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<E: Engine> fmt::Debug for Shard<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("ended", &*self.ended.borrow()).finish_non_exhaustive()
    }
}

/// Starts the shard's thread. `on_event` is called on it for each event of the engine: it must not block.
///
/// # Errors
/// When there is no thread or no descriptor to be had.
pub fn spawn<E: Engine>(
    config: ShardConfig,
    engine: E,
    queue: TunQueue,
    sockets: Sockets,
    on_event: impl FnMut(E::Event) + Send + 'static,
) -> Result<Shard<E>, Error> {
    let wake = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
        .map_err(|error| Error::Io { what: "creating an eventfd".into(), source: error.into() })?;
    let wake = Arc::new(wake);
    let stats = Arc::new(ShardStats::default());
    let (commands, mut inbox) = mpsc::channel(COMMANDS);
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let (end, ended) = watch::channel(None);
    let relays = RelayPort::new(Arc::clone(&wake));
    let ways = Ways { queue, sockets, relays: RelayEnd::new(&relays) };
    let mut runner = Runner::new(config, engine, ways, on_event, Arc::clone(&wake), Arc::clone(&stats));
    let body = move || {
        // The inbox is closed after the reason is known: who finds it closed also finds the reason.
        let result = catch_unwind(AssertUnwindSafe(|| runner.run(&mut inbox, &stopping)));
        drop(runner);
        let reason = result.unwrap_or_else(|panic| StopReason::Panicked(text(&*panic)));
        if reason != StopReason::Requested {
            tracing::error!(shard = config.id.number(), "shard stopped: {reason}");
        }
        end.send_replace(Some(reason));
        drop(inbox);
    };
    let thread = std::thread::Builder::new()
        .name(format!("shard-{}", config.id.number()))
        .spawn(body)
        .map_err(Error::io("starting a shard's thread"))?;
    Ok(Shard { commands, wake, stop, ended, stats, relays, thread: Mutex::new(Some(thread)) })
}

impl<E: Engine> Shard<E> {
    /// Runs `f` on the shard's thread, between two batches, and gives back what it returned. What the engine wants to
    /// send or tell after it is taken care of at once.
    ///
    /// # Errors
    /// When the shard has stopped, before or meanwhile.
    pub async fn with_engine<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut E, Instant) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (reply, answer) = oneshot::channel();
        // Nobody waits for the answer any more: no failure.
        let command: Command<E> = Box::new(move |engine, now| _ = reply.send(f(engine, now)));
        if self.commands.send(command).await.is_err() {
            return Err(self.stopped().await);
        }
        self.wake();
        match answer.await {
            Ok(result) => Ok(result),
            Err(_) => Err(self.stopped().await),
        }
    }

    /// Its figures.
    #[must_use]
    pub fn stats(&self) -> Arc<ShardStats> {
        Arc::clone(&self.stats)
    }

    /// Where relay connections are attached.
    #[must_use]
    pub fn relay_port(&self) -> RelayPort {
        self.relays.clone()
    }

    /// Ends when the shard has stopped, for whatever reason. It does not borrow the shard.
    pub fn stopped(&self) -> impl Future<Output = Stopped> + Send + 'static {
        let mut ended = self.ended.clone();
        async move {
            let reason = match ended.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone(),
                Err(_) => None,
            };
            // The thread always says why, also when it panics.
            Stopped { reason: reason.unwrap_or_else(|| StopReason::Panicked("without a word".into())) }
        }
    }

    /// Stops the thread and waits for its end, a turn at most. Packets on the way are dropped; queue and sockets are
    /// closed. Returns why it stopped: it may have stopped before.
    pub fn stop(&self) -> StopReason {
        self.join();
        self.ended.borrow().clone().unwrap_or(StopReason::Requested)
    }

    fn join(&self) {
        // The wake-up that follows orders it: the thread reads it after having been woken.
        self.stop.store(true, Ordering::Release);
        self.wake();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // It catches its panics.
            _ = thread.join();
        }
    }

    fn wake(&self) {
        // Full means that it is awake already.
        _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
    }
}

impl<E: Engine> Drop for Shard<E> {
    fn drop(&mut self) {
        self.join();
    }
}

impl StopReason {
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what, message: error.to_string() }
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message").into()
}
