//! The task around the stream.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use peer_core::key::{PrivateKey, PublicKey};
use peer_core::reach::{Failure, Step};
use rand::rngs::StdRng;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Status, Streaming};

use super::client::{CONNECT, Client};
use super::metrics::Loss;
use super::outbox::Outbox;
use super::watchdog::{Verdict, Watchdog};
use super::{Direction, Message, NotSent, SignalStats};
use crate::backoff::{Backoff, Schedule};
use crate::call::CallError;
use crate::clock::{now, until};
use crate::dial::Dial;
use crate::proto::signal::EncryptedMessage;
use crate::server::ServerUrl;

/// Events that may wait for their reader.
const EVENTS: usize = 256;
/// A stream that lived this long was a good one: the next wait is short again.
const STABLE: Duration = Duration::from_secs(10);

/// Whom to talk to, as whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub server: ServerUrl,
    /// Our WireGuard key.
    pub identity: PrivateKey,
}

/// What the owner wants to know.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The stream is registered: offers can be sent.
    Connected,
    /// It is gone.
    Disconnected {
        /// Why.
        error: SignalError,
        /// When the next attempt is made.
        retry_in: Duration,
    },
    /// A message; it is authentic.
    Message {
        /// Who sent it. Anybody may: whether it is a peer of ours is to be checked.
        from: PublicKey,
        /// What.
        message: Message,
    },
}

/// Why there is no stream, or a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// There was no answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The server took the stream and did not say that it registered the peer.
    #[error("ConnectStream: the server did not register this peer")]
    NotRegistered,
    /// Our own heartbeat did not come back.
    #[error("ConnectStream: the stream is silent, a heartbeat to ourselves was lost")]
    Silent,
    /// The server has forgotten a machine that slept.
    #[error("ConnectStream: this machine has slept, the stream is made anew")]
    Slept,
}

impl SignalError {
    /// How far it went, and what to do.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let (step, remedy) = match self {
            Self::Call(CallError::Unreached { failure, .. }) => return failure.clone(),
            Self::NotRegistered => {
                (Step::Login, Some("check that the address that management names is that of a signal server"))
            }
            Self::Call(CallError::Timeout { .. }) => (
                Step::Login,
                Some(
                    "the server takes connections and does not answer: look at its log, and at proxies in front of it",
                ),
            ),
            Self::Call(CallError::Status { .. } | CallError::Ended { .. } | CallError::Slept { .. })
            | Self::Silent
            | Self::Slept => (Step::Stream, None),
        };
        Failure { step, error: self.to_string(), remedy }
    }
}

/// The running task. It ends when [`Self::events`] is dropped.
#[derive(Debug)]
pub struct Signal {
    /// What happens, in order. While it is not read, nothing more is received.
    pub events: mpsc::Receiver<Event>,
    /// For messages.
    pub sender: Sender,
    /// The task.
    pub task: JoinHandle<()>,
}

/// Sends messages. Those to one peer keep their order.
#[derive(Clone, Debug)]
pub struct Sender {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    outbox: Mutex<Outbox>,
    wake: Notify,
    renew: Notify,
    stats: Arc<SignalStats>,
}

impl Sender {
    /// Queues a message for `to`; never waits. An offer takes the place of one that still waits.
    ///
    /// # Errors
    ///
    /// When there is no connection, or far too much waits.
    pub fn send(&self, to: PublicKey, message: Message) -> Result<(), NotSent> {
        let result = self.shared.with_outbox(|outbox| outbox.push(to, message));
        match result {
            Ok(()) => self.shared.wake.notify_one(),
            Err(NotSent::Offline) => self.shared.stats.on_loss(Loss::Offline),
            Err(NotSent::Full) => self.shared.stats.on_loss(Loss::Full),
        }
        result
    }

    /// Makes the stream anew now, or ends the wait for that: this machine has slept.
    pub fn renew(&self) {
        self.shared.renew.notify_one();
    }
}

impl Shared {
    fn with_outbox<T>(&self, act: impl FnOnce(&mut Outbox) -> T) -> T {
        // The outbox does not panic between two changes that belong together.
        let mut outbox: MutexGuard<'_, Outbox> = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let superseded = outbox.superseded;
        let result = act(&mut outbox);
        (superseded..outbox.superseded).for_each(|_| self.stats.on_loss(Loss::Superseded));
        self.stats.set_queued(outbox.queued());
        result
    }
}

/// Starts the task: it keeps the stream open.
#[must_use]
pub fn spawn(options: Options, dial: impl Dial, stats: Arc<SignalStats>) -> Signal {
    let (events, receiver) = mpsc::channel(EVENTS);
    let shared =
        Arc::new(Shared { outbox: Mutex::default(), wake: Notify::new(), renew: Notify::new(), stats: stats.clone() });
    let sender = Sender { shared: shared.clone() };
    let task = Task {
        client: Client::new(options, dial, stats.clone()),
        stats,
        shared,
        events,
        backoff: Backoff::new(Schedule::RECONNECT),
        rng: rand::make_rng(),
        state: State::Waiting { until: now() },
        sends: JoinSet::new(),
    };
    Signal { events: receiver, sender, task: tokio::spawn(task.run()) }
}

type Connecting = Pin<Box<dyn Future<Output = Result<Streaming<EncryptedMessage>, SignalError>> + Send>>;

enum State {
    Waiting { until: Instant },
    Connecting(Connecting),
    Online(Box<Online>),
}

struct Online {
    stream: Streaming<EncryptedMessage>,
    since: Instant,
    watchdog: Watchdog,
}

struct Task {
    client: Client,
    stats: Arc<SignalStats>,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    backoff: Backoff,
    rng: StdRng,
    state: State,
    sends: JoinSet<(PublicKey, Message, Result<(), CallError>)>,
}

enum Woken {
    Timeout,
    Connected(Result<Streaming<EncryptedMessage>, SignalError>),
    Received(Result<Option<EncryptedMessage>, Status>),
    Sent(PublicKey, Message, Result<(), CallError>),
    Queued,
    Renew,
    Over,
}

impl Task {
    async fn run(mut self) {
        loop {
            let woken = self.wake().await;
            let event = match woken {
                Woken::Timeout => self.timeout(),
                Woken::Connected(Ok(stream)) => Some(self.connected(stream)),
                Woken::Connected(Err(error)) => Some(self.lost(error)),
                Woken::Received(Ok(Some(message))) => self.received(message),
                Woken::Received(Ok(None)) => Some(self.lost(CallError::Ended { call: CONNECT }.into())),
                Woken::Received(Err(status)) => Some(self.lost(CallError::status(CONNECT, &status).into())),
                Woken::Sent(to, message, result) => {
                    self.sent(&to, &message, result);
                    None
                }
                Woken::Queued => None,
                Woken::Renew => self.renew(),
                Woken::Over => return,
            };
            if let Some(event) = event
                && self.events.send(event).await.is_err()
            {
                return;
            }
            self.send_queued();
        }
    }

    async fn wake(&mut self) -> Woken {
        let timeout = match &self.state {
            State::Waiting { until } => Some(*until),
            State::Connecting(_) => None,
            State::Online(online) => Some(online.watchdog.poll_timeout()),
        };
        tokio::select! {
            biased;
            () = self.events.closed() => Woken::Over,
            Some(Ok((to, message, result))) = self.sends.join_next() => Woken::Sent(to, message, result),
            () = self.shared.wake.notified() => Woken::Queued,
            () = self.shared.renew.notified() => Woken::Renew,
            woken = receive(&mut self.state, &self.events) => woken,
            () = until(timeout) => Woken::Timeout,
        }
    }

    fn timeout(&mut self) -> Option<Event> {
        let now = now();
        match &mut self.state {
            State::Waiting { until } if *until <= now => {
                let client = self.client.clone();
                self.state = State::Connecting(Box::pin(async move { client.connect().await }));
            }
            State::Online(online) => match online.watchdog.handle_timeout(now) {
                // Nobody reads what came, so that silence says nothing.
                _ if self.events.capacity() == 0 => online.watchdog.received(now),
                Verdict::Quiet => {}
                Verdict::Test => self.send(*self.client.public_key(), Message::Heartbeat),
                Verdict::Dead => return Some(self.lost(SignalError::Silent)),
            },
            _ => {}
        }
        None
    }

    fn connected(&mut self, stream: Streaming<EncryptedMessage>) -> Event {
        let since = now();
        self.state = State::Online(Box::new(Online { stream, since, watchdog: Watchdog::new(since) }));
        self.stats.stream.on_open();
        self.shared.with_outbox(|outbox| outbox.set_online(true));
        Event::Connected
    }

    fn lost(&mut self, error: SignalError) -> Event {
        let now = now();
        if let State::Online(online) = &self.state {
            if now.saturating_duration_since(online.since) >= STABLE {
                self.backoff.reset();
            }
            self.client.renew();
        }
        self.go_offline();
        self.stats.on_disconnect();
        let retry_in = self.backoff.wait(&mut self.rng);
        self.state = State::Waiting { until: now + retry_in };
        Event::Disconnected { error, retry_in }
    }

    fn renew(&mut self) -> Option<Event> {
        let event = match self.state {
            State::Online(_) => Some(self.lost(SignalError::Slept)),
            State::Connecting(_) => {
                self.client.renew();
                None
            }
            State::Waiting { .. } => None,
        };
        self.backoff.reset();
        self.state = State::Waiting { until: now() };
        event
    }

    fn go_offline(&mut self) {
        self.stats.stream.on_over();
        self.shared.with_outbox(|outbox| outbox.set_online(false));
        // Dropping it aborts what is on its way.
        self.sends = JoinSet::new();
    }

    fn received(&mut self, envelope: EncryptedMessage) -> Option<Event> {
        if let State::Online(online) = &mut self.state {
            online.watchdog.received(now());
        }
        match self.open(envelope) {
            Ok((from, message)) => {
                self.stats.on_message(Direction::Received, &message);
                let own = from == *self.client.public_key();
                (!own && message != Message::Heartbeat).then_some(Event::Message { from, message })
            }
            Err(loss) => {
                // Anybody can send us anything: it is counted, not logged.
                self.stats.on_loss(loss);
                None
            }
        }
    }

    fn open(&self, envelope: EncryptedMessage) -> Result<(PublicKey, Message), Loss> {
        let from: PublicKey = envelope.key.parse().map_err(|_| Loss::SenderKey)?;
        let plaintext = self.client.open(&from, envelope.body).map_err(|_| Loss::Forged)?;
        let message = Message::decode(&plaintext).map_err(|_| Loss::Malformed)?;
        Ok((from, message))
    }

    fn send_queued(&mut self) {
        while let Some((to, message)) = self.shared.with_outbox(Outbox::pop) {
            self.send(to, message);
        }
    }

    fn send(&mut self, to: PublicKey, message: Message) {
        let client = self.client.clone();
        self.sends.spawn(async move {
            let result = client.send(to, &message).await;
            (to, message, result)
        });
    }

    fn sent(&self, to: &PublicKey, message: &Message, result: Result<(), CallError>) {
        match result {
            Ok(()) => self.stats.on_message(Direction::Sent, message),
            Err(error) => {
                tracing::debug!(peer = %to, %error, "the signal server did not take a message");
                self.stats.on_loss(Loss::Failed);
            }
        }
        self.shared.with_outbox(|outbox| outbox.done(to));
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.go_offline();
    }
}

/// The next thing of the connection.
async fn receive(state: &mut State, events: &mpsc::Sender<Event>) -> Woken {
    match state {
        State::Waiting { .. } => std::future::pending().await,
        State::Connecting(connecting) => Woken::Connected(connecting.await),
        State::Online(online) => {
            // Taken off the wire only when there is room for it: then the server waits, not our memory.
            let Ok(_room) = events.reserve().await else { return Woken::Over };
            Woken::Received(online.stream.message().await)
        }
    }
}
