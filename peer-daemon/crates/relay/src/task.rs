//! Connections as tasks, and the manager between them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use peer_connect::Connector;
use peer_core::key::PublicKey;
use peer_io::RelayPort;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use crate::connection::{Link, LinkCommand, LinkEvent};
use crate::error::ConnectError;
use crate::manager::{Action, Event, LinkId, Manager, RelayStatus};
use crate::peer_id::PeerId;
use crate::stats::RelayStats;
use crate::token::Token;
use crate::url::RelayUrl;

/// For saying goodbye to all relays.
const GOODBYE: Duration = Duration::from_secs(2);

/// What relays are used with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Makes connections.
    pub connector: Connector,
    /// Where datagrams go. When its shard stops, all relays are left.
    pub port: RelayPort,
    /// Our own key: relays name us after it.
    pub own: PublicKey,
    /// Figures, which outlive a change of the shard.
    pub stats: Arc<RelayStats>,
}

/// Relays in use. Dropping the last clone leaves them.
#[derive(Clone, Debug)]
pub struct Relays {
    requests: mpsc::UnboundedSender<Request>,
    status: Arc<Mutex<Vec<RelayStatus>>>,
}

enum Request {
    Servers { urls: Vec<RelayUrl>, token: Option<Token> },
    Open { peer: PublicKey, attempt: u32, server: RelayUrl, address: Option<IpAddr> },
    Close { peer: PublicKey, attempt: u32 },
    Renew,
    Leave(oneshot::Sender<()>),
}

impl Relays {
    /// Starts a task on the current runtime that keeps to relays. Events come by the channel; there are at most two for each
    /// way that is opened, and two for each connection to the home relay.
    #[must_use]
    pub fn start(config: Config) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (requests, inbox) = mpsc::unbounded_channel();
        let (events, outbox) = mpsc::unbounded_channel();
        let status = Arc::<Mutex<_>>::default();
        let mut rng = StdRng::from_rng(&mut rand::rng());
        let (reports_in, reports) = mpsc::unbounded_channel();
        let driver = Driver {
            manager: Manager::new(StdRng::from_rng(&mut rng)),
            links: HashMap::new(),
            tasks: JoinSet::new(),
            reports_in,
            events,
            status: Arc::clone(&status),
            config,
            rng,
            stopped: false,
        };
        tokio::spawn(driver.run(inbox, reports));
        (Self { requests, status }, outbox)
    }

    /// Tells what management says: URLs of which one becomes the home relay, and a token. Without URLs no home relay is
    /// sought; without a token the old one stays. A connection that is up stays up.
    pub fn set_servers(&self, urls: Vec<RelayUrl>, token: Option<Token>) {
        self.request(Request::Servers { urls, token });
    }

    /// Opens a way to the peer through `server`, reached at `address` if its name cannot be resolved. [`Event::Up`] or
    /// [`Event::Down`] with the same `attempt` follows. A way that was open to the peer is closed silently.
    pub fn open(&self, peer: PublicKey, attempt: u32, server: RelayUrl, address: Option<IpAddr>) {
        self.request(Request::Open { peer, attempt, server, address });
    }

    /// Closes the way that was opened as `attempt`; no event follows.
    pub fn close(&self, peer: PublicKey, attempt: u32) {
        self.request(Request::Close { peer, attempt });
    }

    /// Makes all connections anew now: this machine has slept, and the relays have forgotten it.
    pub fn renew(&self) {
        self.request(Request::Renew);
    }

    /// All relays that matter now: the home relay, or what may become it, first.
    #[must_use]
    pub fn status(&self) -> Vec<RelayStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Leaves all relays, in two seconds at most.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        self.request(Request::Leave(done));
        // An error: the task has ended, for the same end.
        _ = left.await;
    }

    fn request(&self, request: Request) {
        // The task ends only with the shard, and then nobody has use for relays.
        _ = self.requests.send(request);
    }
}

struct Driver {
    manager: Manager,
    links: HashMap<LinkId, (mpsc::UnboundedSender<LinkCommand>, AbortHandle)>,
    tasks: JoinSet<()>,
    reports_in: mpsc::UnboundedSender<(LinkId, LinkEvent)>,
    events: mpsc::UnboundedSender<Event>,
    status: Arc<Mutex<Vec<RelayStatus>>>,
    config: Config,
    rng: StdRng,
    stopped: bool,
}

impl Driver {
    async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Request>,
        mut reports: mpsc::UnboundedReceiver<(LinkId, LinkEvent)>,
    ) {
        let mut done = None;
        while done.is_none() && !self.stopped {
            let timeout = self.manager.poll_timeout();
            let timer = async {
                match timeout {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                request = inbox.recv() => match request {
                    Some(Request::Leave(reply)) => done = Some(Some(reply)),
                    None => done = Some(None),
                    Some(request) => self.handle(request),
                },
                Some((link, event)) = reports.recv() => self.report(link, event),
                Some(_) = self.tasks.join_next() => {}
                () = timer => self.manager.handle_timeout(Instant::now()),
            }
            self.act();
        }
        self.manager.leave();
        self.act();
        let goodbyes = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE, goodbyes).await.is_err() {
            tracing::debug!("relays did not take our goodbye in time");
        }
        if let Some(Some(reply)) = done {
            _ = reply.send(());
        }
    }

    fn handle(&mut self, request: Request) {
        let now = Instant::now();
        match request {
            Request::Servers { urls, token } => {
                if self.manager.set_servers(now, urls, token) {
                    self.config.stats.tokens.add(1);
                }
            }
            Request::Open { peer, attempt, server, address } => self.manager.open(now, peer, attempt, server, address),
            Request::Close { peer, attempt } => self.manager.close(now, &peer, attempt),
            Request::Renew => {
                for (id, (_, task)) in std::mem::take(&mut self.links) {
                    task.abort();
                    self.manager.handle_link(now, id, LinkEvent::Down(ConnectError::Slept));
                }
                self.manager.hurry(now);
            }
            Request::Leave(_) => {}
        }
    }

    fn report(&mut self, link: LinkId, event: LinkEvent) {
        if let LinkEvent::Down(error) = &event {
            self.links.remove(&link);
            self.stopped |= matches!(error, ConnectError::ShardStopped);
        }
        self.manager.handle_link(Instant::now(), link, event);
    }

    fn act(&mut self) {
        while let Some(action) = self.manager.poll_action() {
            match action {
                Action::Dial { link, url, fallback, token } => self.dial(link, url, fallback, token),
                Action::Tell { link, command } => {
                    // One that has just ended says so by itself.
                    if let Some((commands, _)) = self.links.get(&link) {
                        _ = commands.send(command);
                    }
                }
                Action::Cancel { link } => {
                    if let Some((_, task)) = self.links.remove(&link) {
                        task.abort();
                    }
                }
                // Nobody listens any more: nobody needs to know.
                Action::Emit(event) => _ = self.events.send(event),
            }
        }
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = self.manager.status();
    }

    fn dial(&mut self, id: LinkId, url: RelayUrl, fallback: Option<IpAddr>, token: Token) {
        let link = Link {
            connector: self.config.connector.clone(),
            url,
            fallback,
            token,
            own: PeerId::from(&self.config.own),
            port: self.config.port.clone(),
            rng: StdRng::from_rng(&mut self.rng),
            stats: Arc::clone(&self.config.stats),
        };
        let (commands, inbox) = mpsc::unbounded_channel();
        let reports = self.reports_in.clone();
        let task = self.tasks.spawn(async move {
            link.run(inbox, move |event| _ = reports.send((id, event))).await;
        });
        self.links.insert(id, (commands, task));
    }
}
