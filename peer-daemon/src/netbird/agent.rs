//! The one task that ties servers, maps, peers' connections and the node together.
//!
//! It waits for the next thing to happen, tells the machine that it concerns, and carries out what they all want. Only
//! putting a map in force, starting and ending take time; everything else is done at once.

mod direct;
mod end;
mod local;
mod map;
mod parts;
mod peers;
mod relays;
mod servers;

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use peer_connect::Connector;
use peer_core::key::PublicKey;
use peer_core::reach::Outages;
use peer_core::readiness::{Latch, Readiness};
use peer_dataplane::ebpf::EbpfDataplane;
use peer_ice::Ice;
use peer_identity::{Identity, StateDir};
use peer_io::shard::Stopped;
use peer_mesh::Mesh;
use peer_netbird::management::{self, Management, SyncMessage};
use peer_netbird::meta::NETBIRD_VERSION;
use peer_netbird::server::ServerUrl;
use peer_netbird::signal::{self, Signal};
use peer_netmap::compile::Compiler;
use peer_netmap::ids::Ids;
use peer_netmap::model;
use peer_netmap::read::Reader;
use peer_netmap::session::Session;
use peer_relay::Relays;
use peer_wireguard::Event as EngineEvent;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::direct::{Resolved, StunServers};
use self::local::Local;
use self::parts::Parts;
use super::dial::Dialer;
use super::direct::Direct;
use super::facts::{Facts, Unkept};
use super::keep::Keeper;
use super::settings::Settings;
use super::view::View;
use crate::admin::{ControlPlane, Running, Source};
use crate::cli::UpArgs;
use crate::clock::{Clock, Noticed};
use crate::up::{Drain, Node, Opened, Signals, Told};

/// Events of the engine that may wait for the agent; more are lost, and the machines' timers make up for them.
const ENGINE_EVENTS: usize = 4096;
/// So many peers that appear together are greeted although they may be lazy.
const GREETINGS: usize = 64;
/// How often the engine is asked which peers have traffic: an idle peer is one without for many minutes.
const LOOK: Duration = Duration::from_secs(20);

/// A member of a NetBird network.
pub(super) struct Agent<'a> {
    args: &'a UpArgs,
    settings: Settings,
    own: PublicKey,
    dir: Arc<StateDir>,
    view: Arc<View>,
    signals: Signals,
    readiness: Readiness,
    /// Whether there is a map in force and the server takes the peer.
    latch: Latch,
    publish: watch::Sender<Option<Arc<Running>>>,
    admin: JoinSet<()>,
    health_port: Option<u16>,
    connector: Connector,
    facts: Facts,
    keeper: Keeper,
    local: Local,
    clock: Clock,
    management: Management,
    signal: Option<(ServerUrl, Signal)>,
    /// What the log has said of servers that are not reached.
    outages: Outages<Server>,
    /// `None`: relays only.
    direct: Option<Direct>,
    stun: StunServers,
    relays: Option<(Relays, mpsc::UnboundedReceiver<peer_relay::Event>)>,
    /// What the relays' task was told of them.
    told_relays: Option<model::Relay>,
    reader: Reader,
    session: Session,
    ids: Ids,
    compiler: Compiler,
    /// What the node will be made of.
    waiting: Option<Waiting>,
    node: Option<Node>,
    stopped: Option<Pin<Box<dyn Future<Output = Stopped> + Send>>>,
    engine_events: mpsc::Receiver<EngineEvent>,
    /// Of the device, once it exists.
    mtu: Option<u16>,
    /// Whether the server has said anything in this life.
    heard: bool,
    /// The message of a map that is not in force yet; once it is, it is kept for the next start.
    unkept: Option<Arc<SyncMessage>>,
    /// A map could not be put in force: when to try again.
    retry: Option<Instant>,
    look: Instant,
    drain: Option<Drain>,
}

/// A server that there is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Server {
    Management,
    Signal,
}

/// What a node needs, until it is known what it shall be.
struct Waiting {
    dataplane: EbpfDataplane,
    opened: Opened,
    port: u16,
    events: mpsc::Sender<EngineEvent>,
}

impl Waiting {
    fn abandon(self) -> anyhow::Result<()> {
        self.opened.abandon();
        Ok(self.dataplane.abandon()?)
    }
}

/// The next thing.
enum Happening {
    Told(Told),
    Management(Option<management::Event>),
    Signal(Option<signal::Event>),
    Relay(Option<peer_relay::Event>),
    Ice(Option<peer_ice::Event>),
    /// The names of STUN servers are resolved, as far as they could be.
    StunServers(Resolved),
    Engine(EngineEvent),
    /// The machine has slept, or its wall clock was set.
    Clock(Noticed),
    /// Perhaps the node has others; the time to look is set.
    Addresses,
    Time,
    Stopped(Stopped),
}

impl<'a> Agent<'a> {
    /// Opens what this machine has to give, then sees to it that the identity is kept, then starts to talk to management: a start
    /// that fails here leaves neither a key nor a peer behind.
    ///
    /// # Errors
    /// When something is unavailable; nothing is left behind then.
    pub(super) async fn open(
        args: &'a UpArgs,
        settings: Settings,
        dir: Arc<StateDir>,
        identity: Identity,
        dataplane: EbpfDataplane,
    ) -> anyhow::Result<Self> {
        let own = settings.private_key.public_key();
        let (parts, opened) = match Parts::open(args, &settings, own, !dataplane.is_first()).await {
            Ok(opened) => opened,
            Err(error) => {
                dataplane.abandon()?;
                return Err(error);
            }
        };
        let unkept = match Unkept::of(identity, &dir, &settings) {
            Ok(unkept) => unkept,
            Err(error) => {
                opened.abandon();
                dataplane.abandon()?;
                return Err(error);
            }
        };
        let Parts { signals, connector, local, admin, ports } = parts;
        let port = opened.sockets.port();
        let mesh = Mesh::new(
            peer_mesh::Settings {
                own_key: own,
                wireguard_port: port,
                version: NETBIRD_VERSION.to_owned(),
                greetings: GREETINGS,
                inactivity: settings.lazy_inactivity,
                ice: settings.ice.is_some(),
            },
            rand::rng(),
        );
        let direct = settings.ice.as_ref().zip(ports).map(|(ice, ports)| {
            let ice = Ice::new(ice.timing, rand::rng());
            Direct::start(ice, ports)
        });
        let handle = direct.as_ref().map(Direct::handle);
        let view = Arc::new(View::new(settings.management.to_string(), mesh, handle));
        let readiness = Readiness::new();
        let latch = readiness.latch("network");
        latch.not_ready("there is no network map yet");
        let (publish, running) = watch::channel(None);
        let source = Source::new(readiness.clone(), ControlPlane::NetBird(Arc::clone(&view)), running);
        let health_port = admin.health_port();
        let admin = admin.serve(&Arc::new(source));
        let facts = Facts::new(&settings, unkept);
        let options = management::Options {
            dns_labels: settings.dns_labels.clone(),
            ..management::Options::new(settings.management.clone(), settings.private_key.clone())
        };
        let stats = Arc::clone(&view.management);
        let management = management::spawn(options, Dialer(connector.clone()), facts.clone(), stats);
        let (events, engine_events) = mpsc::channel(ENGINE_EVENTS);
        Ok(Self {
            keeper: Keeper::new(Arc::clone(&dir), own, view.management_url.clone()),
            waiting: Some(Waiting { dataplane, opened, port, events }),
            args,
            settings,
            own,
            dir,
            view,
            signals,
            readiness,
            latch,
            publish,
            admin,
            health_port,
            connector,
            facts,
            local,
            clock: Clock::watch(),
            management,
            signal: None,
            outages: Outages::default(),
            direct,
            stun: StunServers::default(),
            relays: None,
            told_relays: None,
            reader: Reader::default(),
            session: Session::new(own),
            ids: Ids::new(),
            compiler: Compiler::default(),
            node: None,
            stopped: None,
            engine_events,
            mtu: None,
            heard: false,
            unkept: None,
            retry: None,
            look: Instant::now() + LOOK,
            drain: None,
        })
    }

    /// Runs until a signal, or until a part fails.
    ///
    /// # Errors
    /// When a part fails: what is in the kernel stays then, as after a crash, and the next start takes it over.
    pub(super) async fn live(mut self) -> anyhow::Result<()> {
        let ended = match self.restore().await {
            Ok(()) => self.run().await,
            Err(error) => Err(error),
        };
        self.readiness.drain();
        match ended {
            Ok(()) => self.end().await,
            Err(error) => {
                if let Some(waiting) = self.waiting.take() {
                    waiting.abandon()?;
                }
                Err(error)
            }
        }
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        loop {
            self.carry_out().await?;
            match self.next().await {
                Happening::Told(Told::Stop(name)) => {
                    tracing::info!(signal = name, again = self.drain.is_some(), "stopping");
                    if self.drain.is_some() || self.node.is_none() {
                        return Ok(());
                    }
                    // Everything goes on meanwhile, so that new flows find their way as well.
                    self.readiness.drain();
                    self.drain = Some(Drain::begin(self.args.drain_timeout));
                }
                Happening::Told(Told::Reload) => {
                    if let Some(node) = &self.node {
                        node.reopen_flow_log();
                    }
                    // There may be another setup key.
                    self.management.handle.retry();
                }
                Happening::Management(event) => {
                    self.on_management(event.context("the task of management has ended")?).await?;
                }
                Happening::Signal(event) => self.on_signal(event.context("the task of signal has ended")?),
                Happening::Relay(event) => self.on_relay(event.context("the task of the relays has ended")?),
                Happening::Ice(event) => self.on_ice(event.context("the task of direct paths has ended")?),
                Happening::StunServers(resolved) => self.stun_resolved(resolved),
                Happening::Engine(event) => self.on_engine(event),
                Happening::Addresses => {}
                Happening::Clock(noticed) => self.on_clock(noticed).await,
                Happening::Time => {
                    self.on_time().await?;
                    if let (Some(drain), Some(node)) = (&mut self.drain, &self.node)
                        && drain.is_over(node).await
                    {
                        return Ok(());
                    }
                }
                Happening::Stopped(stopped) => return Err(stopped.into()),
            }
        }
    }

    async fn next(&mut self) -> Happening {
        let timeout = self.poll_timeout();
        let Self { signals, management, signal, relays, direct, stun, local, clock, engine_events, stopped, .. } = self;
        tokio::select! {
            told = signals.next() => Happening::Told(told),
            event = management.events.recv() => Happening::Management(event),
            event = of_signal(signal) => Happening::Signal(event),
            event = of_relays(relays) => Happening::Relay(event),
            event = of_direct(direct) => Happening::Ice(event),
            resolved = stun.resolved() => Happening::StunServers(resolved),
            Some(event) = engine_events.recv() => Happening::Engine(event),
            () = local.changed() => Happening::Addresses,
            noticed = clock.changed() => Happening::Clock(noticed),
            reason = of_shard(stopped) => Happening::Stopped(reason),
            () = tokio::time::sleep_until(timeout.into()) => Happening::Time,
        }
    }

    fn poll_timeout(&self) -> Instant {
        let mesh = self.view.mesh().poll_timeout();
        let drain = self.drain.as_ref().map(Drain::poll_timeout);
        let others =
            [mesh, drain, self.keeper.poll_timeout(), self.local.poll_timeout(), self.retry, self.stun.poll_timeout()]
                .into_iter()
                .flatten();
        others.fold(self.look, Instant::min)
    }

    /// Servers have ended the streams of a machine that slept, and tokens of relays may have run out: all is asked for anew now,
    /// not when a timeout of a dead connection says so.
    async fn on_clock(&self, noticed: Noticed) {
        if noticed.slept.is_some() {
            self.management.handle.renew();
            if let Some((_, signal)) = &self.signal {
                signal.sender.renew();
            }
            if let Some((relays, _)) = &self.relays {
                relays.renew();
            }
        }
        if let Some(node) = &self.node {
            node.clock_changed(noticed).await;
        }
    }

    async fn on_time(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        self.view.mesh().handle_timeout(now);
        if self.keeper.poll_timeout().is_some_and(|due| due <= now) {
            let connected = self.view.board().management.connected;
            self.keeper.write(connected, now).await;
        }
        if self.look <= now {
            self.look = now + LOOK;
            self.look_for_traffic().await?;
        }
        self.look_at_addresses(now).await?;
        self.stun.handle_timeout(now);
        if self.retry.is_some_and(|retry| retry <= now) {
            self.retry = None;
            self.put_in_force(None, now).await?;
        }
        Ok(())
    }
}

async fn of_signal(signal: &mut Option<(ServerUrl, Signal)>) -> Option<signal::Event> {
    match signal {
        Some((_, signal)) => signal.events.recv().await,
        None => pending().await,
    }
}

async fn of_relays(
    relays: &mut Option<(Relays, mpsc::UnboundedReceiver<peer_relay::Event>)>,
) -> Option<peer_relay::Event> {
    match relays {
        Some((_, events)) => events.recv().await,
        None => pending().await,
    }
}

async fn of_direct(direct: &mut Option<Direct>) -> Option<peer_ice::Event> {
    match direct {
        Some(direct) => direct.next().await,
        None => pending().await,
    }
}

async fn of_shard(stopped: &mut Option<Pin<Box<dyn Future<Output = Stopped> + Send>>>) -> Stopped {
    match stopped {
        Some(stopped) => stopped.await,
        None => pending().await,
    }
}
