//! The flow log: a line of JSON for each flow that opens or closes and for each packet that is dropped.
//!
//! Lines are written by a thread of their own. What it cannot write in time, or at all, is counted and never waited for.

mod line;
mod stats;
mod target;

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use peer_dataplane::observe::{FlowRecord, FlowSink, What};
use tokio::sync::watch;

pub(crate) use self::line::direction_name;
pub(crate) use self::stats::{FlowLogCollector, FlowLogStats};
use self::target::Target;
use crate::admin::Known;

/// Records that may wait to be written.
const QUEUE: usize = 8192;
/// Bytes that are written at once.
const CHUNK: usize = 64 * 1024;
/// How long the end may take: a disk that hangs must not hold the daemon.
const FAREWELL: Duration = Duration::from_secs(2);

/// The log. Its thread ends with it.
#[derive(Debug)]
pub(crate) struct FlowLog {
    queue: SyncSender<Message>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
    stats: Arc<FlowLogStats>,
}

#[derive(Debug)]
enum Message {
    Record(Box<FlowRecord>),
    Reopen,
    End,
}

impl FlowLog {
    /// Opens the file at `path` to append to it; `-` is standard output. `known` tells whose peers are whose.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn open(path: &Path, known: watch::Receiver<Arc<Known>>) -> anyhow::Result<Self> {
        let target = Target::open(path)
            .with_context(|| format!("--flow-log {}: name a file that can be written, or -", path.display()))?;
        let (queue, messages) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        let stats = Arc::new(FlowLogStats::default());
        let writer =
            Writer { messages, known, target, stats: Arc::clone(&stats), buffer: Vec::with_capacity(2 * CHUNK) };
        let thread = std::thread::Builder::new().name("flow-log".to_owned()).spawn(move || {
            writer.run();
            let _ = end.send(());
        });
        Ok(Self { queue, ended, thread: thread.context("start the thread of the flow log")?, stats })
    }

    /// Where the dataplane tells what happens.
    pub(crate) fn sink(&self) -> Box<dyn FlowSink> {
        Box::new(Sink { queue: self.queue.clone(), stats: Arc::clone(&self.stats), last: OnceLock::new() })
    }

    pub(crate) fn stats(&self) -> Arc<FlowLogStats> {
        Arc::clone(&self.stats)
    }

    /// Opens the file anew: somebody has moved it away. What was told before still goes to the old one.
    pub(crate) fn reopen(&self) {
        if self.queue.try_send(Message::Reopen).is_err() {
            tracing::error!("the flow log does not keep up and is not opened anew: send SIGHUP again");
        }
    }

    /// Writes what waits, if that does not take long.
    pub(crate) fn end(self) {
        let told = self.queue.try_send(Message::End).is_ok();
        drop(self.queue);
        // Whoever else could tell is gone or goes soon; a full queue ends by itself then.
        match self.ended.recv_timeout(FAREWELL) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => drop(self.thread.join()),
            Err(RecvTimeoutError::Timeout) => tracing::error!(told, "the flow log could not be written to its end"),
        }
    }
}

#[derive(Debug)]
struct Sink {
    queue: SyncSender<Message>,
    stats: Arc<FlowLogStats>,
    /// When the last records are waited for no longer.
    last: OnceLock<Instant>,
}

impl FlowSink for Sink {
    fn tell(&self, record: FlowRecord) {
        match self.queue.try_send(Message::Record(Box::new(record))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.stats.lost_in_queue(),
        }
    }

    fn tell_last(&self, record: FlowRecord) {
        let mut message = Message::Record(Box::new(record));
        let deadline = *self.last.get_or_init(|| Instant::now() + FAREWELL);
        loop {
            message = match self.queue.try_send(message) {
                Ok(()) => return,
                Err(TrySendError::Full(message)) if Instant::now() < deadline => message,
                Err(_) => return self.stats.lost_in_queue(),
            };
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Writer {
    messages: Receiver<Message>,
    known: watch::Receiver<Arc<Known>>,
    target: Target,
    stats: Arc<FlowLogStats>,
    buffer: Vec<u8>,
}

impl Writer {
    fn run(mut self) {
        while let Ok(first) = self.messages.recv() {
            let mut next = Some(first);
            let known = Arc::clone(&self.known.borrow());
            while let Some(message) = next {
                match message {
                    Message::Record(record) => self.add(&record, &known),
                    Message::Reopen => {
                        self.write();
                        self.stats.reopened();
                        self.target.reopen();
                    }
                    Message::End => return self.write(),
                }
                next = if self.buffer.len() < CHUNK { self.messages.try_recv().ok() } else { None };
            }
            self.write();
        }
    }

    fn add(&mut self, record: &FlowRecord, known: &Known) {
        line::write(&mut self.buffer, record, &known.peers);
        match record.what {
            What::Opened => self.stats.opened(),
            What::Closed(_) => self.stats.closed(),
            What::Denied(..) => self.stats.denied(),
        }
    }

    fn write(&mut self) {
        let lost = self.target.write(&self.buffer);
        self.stats.lost_in_writing(lost);
        self.buffer.clear();
    }
}

#[cfg(test)]
mod tests;
