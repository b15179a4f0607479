//! The task around the session: calls, timers, the stream.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::error::SYNC;
use super::session::{Action, Event, Input, Session};
use super::{Client, Error, ManagementStats, MapStream, Options, SetupKey, SyncMessage};
use crate::call::CallError;
use crate::clock::{now, until};
use crate::dial::Dial;
use crate::proto::management::{Checks, LoginResponse, PeerSystemMeta};

/// Events that may wait for their reader. A map can take tens of megabytes: beyond, the server has to wait.
const EVENTS: usize = 2;
/// How often changed facts are sent again when that fails, and how far apart.
const META_ATTEMPTS: u32 = 3;
const META_PAUSE: Duration = Duration::from_secs(5);

/// What the task asks of its node.
pub trait Node: Send + Sync + 'static {
    /// What to tell the server about this system; the posture checks ask for the files `checks`.
    fn meta(&self, checks: &[String]) -> impl Future<Output = PeerSystemMeta> + Send;

    /// The setup key as it is now. Asked for only when the server refused us, and never kept.
    fn setup_key(&self) -> Option<SetupKey>;
}

/// The running task. It ends when [`Self::events`] is dropped, and with [`Client::logout`].
#[derive(Debug)]
pub struct Management {
    /// What happens, in order. While it is not read, nothing more is received.
    pub events: mpsc::Receiver<Event>,
    /// For requests.
    pub handle: Handle,
    /// The task.
    pub task: JoinHandle<()>,
}

/// Requests to management.
#[derive(Clone, Debug)]
pub struct Handle {
    client: Client,
    requests: Arc<Requests>,
}

#[derive(Debug, Default)]
struct Requests {
    retry: Notify,
    refresh: Notify,
    renew: Notify,
}

impl Handle {
    /// Ends a wait between attempts: e.g. there is a new setup key.
    pub fn retry(&self) {
        self.requests.retry.notify_one();
    }

    /// Makes the stream anew now, or ends the wait for that: this machine has slept.
    pub fn renew(&self) {
        self.requests.renew.notify_one();
    }

    /// Sends the facts about this system again, if the stream is open; a stream that opens sends them anyway.
    pub fn refresh_meta(&self) {
        self.requests.refresh.notify_one();
    }

    /// For single calls: [`Client::logout`], [`Client::healthy`].
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }
}

/// Starts the task: logs in, registers where that is needed and possible, keeps the stream open.
#[must_use]
pub fn spawn(options: Options, dial: impl Dial, node: impl Node, stats: Arc<ManagementStats>) -> Management {
    let client = Client::new(options, dial);
    let (events, receiver) = mpsc::channel(EVENTS);
    let requests = Arc::<Requests>::default();
    let task = Task {
        client: client.clone(),
        node: Arc::new(node),
        stats,
        requests: requests.clone(),
        events,
        session: Session::new(now(), rand::make_rng()),
        stream: None,
        checks: Vec::new(),
        work: None,
        telling: None,
    };
    Management { events: receiver, handle: Handle { client, requests }, task: tokio::spawn(task.run()) }
}

type Work<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

struct Task<N> {
    client: Client,
    node: Arc<N>,
    stats: Arc<ManagementStats>,
    requests: Arc<Requests>,
    events: mpsc::Sender<Event>,
    session: Session<StdRng>,
    stream: Option<MapStream>,
    /// Files that the posture checks ask for.
    checks: Vec<String>,
    /// The session's action.
    work: Work<Done>,
    /// Changed facts on their way to the server.
    telling: Work<()>,
}

enum Done {
    Login { by_setup_key: bool, result: Result<Box<LoginResponse>, Error> },
    Stream(Result<Box<(MapStream, SyncMessage)>, Error>),
}

enum Woken {
    Done(Done),
    Message(Result<Arc<SyncMessage>, Error>),
    Told,
    Timeout,
    Retry,
    Refresh,
    Renew,
    Over,
}

impl<N: Node> Task<N> {
    async fn run(self) {
        let client = self.client.clone();
        tokio::select! {
            () = client.left() => {}
            () = self.work() => {}
        }
    }

    async fn work(mut self) {
        loop {
            while let Some(action) = self.session.poll_action() {
                self.act(action);
            }
            while let Some(event) = self.session.poll_event() {
                if self.events.send(event).await.is_err() {
                    return;
                }
            }
            match self.wake().await {
                Woken::Done(done) => self.done(done),
                Woken::Message(message) => self.message(message),
                Woken::Told => self.telling = None,
                Woken::Timeout => self.session.handle_timeout(now()),
                Woken::Retry => self.session.handle_input(now(), Input::Retry),
                Woken::Refresh => self.tell(),
                Woken::Renew => self.renew(),
                Woken::Over => return,
            }
        }
    }

    async fn wake(&mut self) -> Woken {
        let timeout = self.session.poll_timeout();
        tokio::select! {
            biased;
            () = self.events.closed() => Woken::Over,
            done = pending(&mut self.work) => Woken::Done(done),
            () = pending(&mut self.telling) => Woken::Told,
            () = until(timeout) => Woken::Timeout,
            () = self.requests.retry.notified() => Woken::Retry,
            () = self.requests.refresh.notified() => Woken::Refresh,
            () = self.requests.renew.notified() => Woken::Renew,
            message = next(&mut self.stream) => Woken::Message(message),
        }
    }

    fn act(&mut self, action: Action) {
        let (client, node, checks) = (self.client.clone(), self.node.clone(), self.checks.clone());
        self.work = Some(Box::pin(async move {
            let meta = node.meta(&checks).await;
            match action {
                Action::Login => {
                    Done::Login { by_setup_key: false, result: client.login(meta, None).await.map(Box::new) }
                }
                Action::Register(key) => {
                    Done::Login { by_setup_key: true, result: client.login(meta, Some(&key)).await.map(Box::new) }
                }
                Action::OpenStream => Done::Stream(client.sync(meta).await.map(Box::new)),
            }
        }));
    }

    fn done(&mut self, done: Done) {
        self.work = None;
        let input = match done {
            Done::Login { by_setup_key, result: Ok(response) } => {
                self.stats.on_login(by_setup_key);
                self.checks = files(&response.checks);
                Input::LoggedIn(response)
            }
            Done::Login { result: Err(error), .. } => {
                self.stats.on_error(&error);
                Input::LoginFailed { error, setup_key: self.node.setup_key() }
            }
            Done::Stream(Ok(opened)) => {
                let (stream, first) = *opened;
                self.stats.stream.on_open();
                self.stream = Some(stream);
                self.session.handle_input(now(), Input::StreamOpened);
                return self.message(Ok(Arc::new(first)));
            }
            Done::Stream(Err(error)) => {
                self.stats.on_error(&error);
                Input::StreamFailed(error)
            }
        };
        self.session.handle_input(now(), input);
    }

    fn message(&mut self, message: Result<Arc<SyncMessage>, Error>) {
        let input = match message {
            Ok(response) => {
                self.stats.on_update(self.stream.as_ref().map_or(0, MapStream::bytes));
                // Fresh credentials come without checks; those of the last map stay.
                let asked = response.has_map().then(|| files(&response.head().checks));
                if let Some(checks) = asked.filter(|checks| *checks != self.checks) {
                    self.checks = checks;
                    self.tell();
                }
                Input::Message(response)
            }
            Err(error) => {
                self.stats.on_error(&error);
                self.stats.stream.on_over();
                self.stream = None;
                self.telling = None;
                self.client.doubt(&error);
                Input::StreamFailed(error)
            }
        };
        self.session.handle_input(now(), input);
    }

    fn renew(&mut self) {
        if self.stream.is_some() {
            self.message(Err(CallError::Slept { call: SYNC }.into()));
        }
        self.session.handle_input(now(), Input::Retry);
    }

    /// Sends the facts about this system, the newest only.
    fn tell(&mut self) {
        if self.stream.is_none() {
            return;
        }
        let (client, node, checks) = (self.client.clone(), self.node.clone(), self.checks.clone());
        let stats = self.stats.clone();
        self.telling = Some(Box::pin(async move {
            for _ in 0..META_ATTEMPTS {
                match client.sync_meta(node.meta(&checks).await).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::debug!(%error, "the server did not take the changed facts about this system");
                        stats.on_error(&error);
                    }
                }
                tokio::time::sleep(META_PAUSE).await;
            }
        }));
    }
}

impl<N> Drop for Task<N> {
    fn drop(&mut self) {
        self.stats.stream.on_over();
    }
}

fn files(checks: &[Checks]) -> Vec<String> {
    let mut files: Vec<_> = checks.iter().flat_map(|check| &check.files).cloned().collect();
    files.sort_unstable();
    files.dedup();
    files
}

async fn pending<T>(work: &mut Work<T>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn next(stream: &mut Option<MapStream>) -> Result<Arc<SyncMessage>, Error> {
    match stream {
        Some(stream) => stream.next().await.map(Arc::new),
        None => std::future::pending().await,
    }
}
