//! Start, run, stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use peer_core::desired::{self, Desired};
use peer_core::key::PublicKey;
use peer_core::readiness::Readiness;
use peer_core::shard::ShardId;
use peer_dataplane::driver::Driver;
use peer_dataplane::ebpf::EbpfDataplane;
use peer_dataplane::observe::{ObserveLimits, Observer};
use peer_dataplane::{Configuration, Latches};
use peer_identity::{EndpointFile, Endpoints};
use peer_io::shard::{Shard, ShardConfig};
use peer_io::udp::Sockets;
use peer_io::wt0::{Reserved, Wt0, Wt0Config};
use peer_wireguard::{Engine, EngineConfig, Event, Roaming};
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::{JoinHandle, block_in_place};

use super::drain::drain;
use super::early::{explained, sockets};
use super::endpoints::{self, Keeper};
use super::mesh_device;
use super::signals::{Signals, Told};
use super::translate::{self, Limits};
use crate::admin::{Admin, ControlPlane, Known, Running, Source};
use crate::cli::UpArgs;
use crate::clock::stamps::Stamps;
use crate::clock::{Clock, Noticed};
use crate::flow_log::FlowLog;
use crate::peers::PeerIds;
use crate::status::Interface;
use crate::trace::LiveTrace;

/// Runs until a signal, or until a part fails.
pub(super) async fn live(args: &UpArgs, file: &Path, desired: Desired, dataplane: EbpfDataplane) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let readiness = Readiness::new();
    let opened = async { Ok((Admin::bind(args)?, Opened::open(args, &desired.interface)?)) };
    let (admin, opened) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            dataplane.abandon()?;
            return Err(error);
        }
    };
    let limits = Limits::of(args, &desired.interface.name, opened.sockets.port(), admin.health_port());
    let mut node = Node::start(opened, desired, limits, dataplane, args.keep_dataplane, &readiness, |_| {}).await?;
    if let Some(error) = node.take_refused() {
        tracing::error!(%error, file = %file.display(), "nothing is served: change the file, and SIGHUP reads it again");
    }
    let (_publish, running) = watch::channel(Some(node.running()));
    let source = Source::new(readiness.clone(), ControlPlane::Static, running);
    let mut tasks = admin.serve(&Arc::new(source));
    let mut stopped = Box::pin(node.shard.stopped());
    let mut clock = Clock::watch();
    let ended: anyhow::Result<()> = loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Reload => {
                    node.reopen_flow_log();
                    node.reload(file).await;
                }
                Told::Stop(name) => {
                    tracing::info!(signal = name, "stopping");
                    break Ok(());
                }
            },
            noticed = clock.changed() => node.clock_changed(noticed).await,
            stopped = &mut stopped => break Err(stopped.into()),
        }
    };
    readiness.drain();
    // As after a crash: what is in the kernel stays, and the next start takes it over.
    ended?;
    drain(args.drain_timeout, &node, &mut signals).await;
    tasks.shutdown().await;
    node.stop(args.keep_dataplane).await
}

/// What can be refused without a trace: it is asked for before the device exists.
pub(crate) struct Opened {
    pub(crate) sockets: Sockets,
    file: Option<EndpointFile>,
    endpoints: Endpoints,
    stamps: Stamps,
    flow_log: Option<FlowLog>,
    observer: Observer,
    bpffs: PathBuf,
    state_dir: PathBuf,
    configuration: Configuration,
    /// The mesh device, if it is made before it is known what it shall be.
    device: Option<Reserved>,
    known: watch::Sender<Arc<Known>>,
}

impl Opened {
    /// With a device that is made already.
    pub(crate) fn on(self, device: Reserved) -> Self {
        Self { device: Some(device), ..self }
    }

    /// Takes away what was made for a node that does not start.
    pub(crate) fn abandon(self) {
        if let Some(device) = self.device {
            device.abandon();
        }
    }

    pub(crate) fn open(args: &UpArgs, interface: &desired::Interface) -> anyhow::Result<Self> {
        Self::with(
            sockets(interface.listen_port, Configuration::File)?,
            args,
            interface.private_key.public_key(),
            Configuration::File,
        )
    }

    /// As [`Self::open`], with sockets that are bound already.
    ///
    /// # Errors
    /// When the flow log cannot be opened.
    pub(crate) fn with(
        sockets: Sockets,
        args: &UpArgs,
        own: PublicKey,
        configuration: Configuration,
    ) -> anyhow::Result<Self> {
        let known = watch::Sender::new(Arc::new(Known::default()));
        let flow_log = args.flow_log.as_deref().map(|path| FlowLog::open(path, known.subscribe())).transpose()?;
        let limits = ObserveLimits {
            events_per_second: args.flow_log_rate,
            denied: usize::try_from(args.denied_flows).unwrap_or(usize::MAX),
        };
        let observer = Observer::new(limits, flow_log.as_ref().map(FlowLog::sink));
        let kept = EndpointFile::open(&args.socket.state_dir, own).and_then(|file| Ok((file.read()?, file)));
        let (endpoints, file) = match kept {
            Ok((endpoints, file)) => (endpoints, Some(file)),
            Err(error) => {
                tracing::warn!(%error, "endpoints of peers are not kept: a restart takes longer");
                (Endpoints::new(), None)
            }
        };
        Ok(Self {
            sockets,
            file,
            endpoints,
            stamps: Stamps::open(&args.socket.state_dir, own),
            flow_log,
            observer,
            bpffs: args.bpffs.clone(),
            state_dir: args.socket.state_dir.clone(),
            configuration,
            device: None,
            known,
        })
    }
}

/// Device and programs. The programs are in place before the first packet comes out of the device.
async fn forward(
    desired: &Desired,
    ids: &PeerIds,
    dataplane: EbpfDataplane,
    limits: &Limits,
    readiness: &Readiness,
    reserved: Option<Reserved>,
    configuration: Configuration,
) -> anyhow::Result<(Wt0, Driver)> {
    let name = &desired.interface.name;
    let config = Wt0Config { adopt: !dataplane.is_first(), ..translate::device(desired) };
    let set_up = match reserved {
        Some(reserved) => reserved.set_up(&config).await,
        None => Wt0::open(&config).await,
    };
    let wt0 = match set_up {
        Ok(wt0) => wt0,
        Err(error) => {
            dataplane.abandon()?;
            return Err(explained(error, configuration));
        }
    };
    let device = peer_dataplane::Wt0 { name: name.clone(), index: wt0.index(), mtu: desired.interface.mtu.into() };
    let intent = translate::intent(desired, ids, device, limits);
    let latches = Latches::of(readiness);
    match Driver::start(Box::new(dataplane), intent, latches, limits.ready_routes, wt0.adopted()).await {
        Ok(driver) => Ok((wt0, driver)),
        Err(error) => {
            if !wt0.adopted() {
                wt0.remove().await?;
            }
            Err(error.into())
        }
    }
}

/// A running peer.
pub(crate) struct Node {
    pub(super) wt0: Arc<Mutex<Wt0>>,
    /// Keeps it as it should be, until it is aborted.
    wt0_keeper: JoinHandle<()>,
    pub(super) driver: Driver,
    pub(crate) shard: Arc<Shard<Engine>>,
    /// What is in force.
    pub(crate) desired: Desired,
    refused: Option<peer_dataplane::Error>,
    pub(super) ids: PeerIds,
    pub(super) device: peer_dataplane::Wt0,
    pub(super) limits: Limits,
    /// Tells those who answer questions what is in force.
    pub(super) known: watch::Sender<Arc<Known>>,
    flow_log: Option<FlowLog>,
    running: Arc<Running>,
    /// Ends by itself after it was told to.
    keeper: Option<(Arc<Notify>, JoinHandle<()>)>,
    /// As the keeper; the last is told when the wall clock was set.
    stamps: (Arc<Notify>, JoinHandle<()>, Arc<Notify>),
}

impl Node {
    /// Starts it. `on_event` is told, on the packet thread, what the engine has to say: it must not block. Rules or routes
    /// that are too many for the tables are left out, all of them ([`Self::take_refused`]).
    ///
    /// # Errors
    /// When a part refuses. Nothing is left in place then but what was there before.
    pub(crate) async fn start(
        opened: Opened,
        desired: Desired,
        limits: Limits,
        dataplane: EbpfDataplane,
        keep: bool,
        readiness: &Readiness,
        on_event: impl FnMut(&Event) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let ids = PeerIds::default().with(&desired.peers);
        let latch = readiness.latch("mesh_device");
        let dataplane = dataplane.observed_by(opened.observer.clone());
        let (mut wt0, mut driver) =
            forward(&desired, &ids, dataplane, &limits, readiness, opened.device, opened.configuration).await?;
        let (mut desired, refused) = (desired, driver.take_refused());
        if refused.is_some() {
            (desired.routes, desired.rules) = (Vec::new(), Arc::default());
        }
        let port = opened.sockets.port();
        let changed = Arc::new(Notify::new());
        let engine = engine(&desired, &opened.endpoints, &opened.stamps, opened.configuration);
        let engine_stats = engine.stats();
        let shard = match spawn(&mut wt0, &desired, engine, opened.sockets, on_event, &changed) {
            Ok(shard) => Arc::new(shard),
            Err(error) => {
                remove(&wt0, driver, keep).await?;
                return Err(error);
            }
        };
        let notices = match wt0.notices() {
            Ok(notices) => notices,
            Err(error) => {
                remove(&wt0, driver, keep).await?;
                return Err(error.into());
            }
        };
        let interface = interface(&wt0, &desired, port);
        tracing::info!(
            device = interface.name,
            port,
            public_key = interface.public_key,
            mode = driver.mode().name,
            hardened = driver.mode().hardened,
            adopted = wt0.adopted(),
            "up"
        );
        let device =
            peer_dataplane::Wt0 { name: interface.name.clone(), index: interface.index, mtu: interface.mtu.into() };
        let known = opened.known;
        known.send_replace(Arc::new(Known::of(&desired, &ids)));
        let running = Arc::new(Running {
            interface,
            mode: driver.mode().clone(),
            bpffs: opened.bpffs,
            state_dir: opened.state_dir,
            configuration: opened.configuration,
            dataplane: driver.stats(),
            known: known.subscribe(),
            shard: Arc::clone(&shard),
            engine_stats,
            mesh_device: Arc::clone(wt0.repairs()),
            observer: opened.observer,
            flow_log: opened.flow_log.as_ref().map(FlowLog::stats),
            live_trace: LiveTrace::default(),
        });
        let keeper = opened.file.map(|file| {
            let stop = Arc::new(Notify::new());
            let keeper = Keeper::new(file, Arc::clone(&shard), changed);
            (Arc::clone(&stop), tokio::spawn(keeper.run(stop)))
        });
        let (stop, set) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let kept = opened.stamps.keep(Arc::clone(&shard), Arc::clone(&set), Arc::clone(&stop));
        let stamps = (stop, tokio::spawn(kept), set);
        let flow_log = opened.flow_log;
        let wt0 = Arc::new(Mutex::new(wt0));
        let wt0_keeper = tokio::spawn(mesh_device::keep(Arc::clone(&wt0), latch, notices));
        Ok(Self {
            wt0,
            wt0_keeper,
            driver,
            shard,
            desired,
            refused,
            ids,
            device,
            limits,
            known,
            flow_log,
            running,
            keeper,
            stamps,
        })
    }

    /// Why nothing of what it was started with is served; `None`: it is, or this was asked before.
    pub(crate) fn take_refused(&mut self) -> Option<peer_dataplane::Error> {
        self.refused.take()
    }

    /// Somebody may have moved it away.
    pub(crate) fn reopen_flow_log(&self) {
        if let Some(flow_log) = &self.flow_log {
            flow_log.reopen();
        }
    }

    /// The machine has slept, or its wall clock was set.
    pub(crate) async fn clock_changed(&self, noticed: Noticed) {
        if noticed.set.is_some() {
            self.stamps.2.notify_one();
        }
        if noticed.slept.is_some() {
            // The shard waits by a clock that stood still. What is due by its own it does when it is woken; that it has stopped
            // is noticed elsewhere.
            _ = self.shard.with_engine(|_, _| ()).await;
        }
    }

    /// For those who answer questions.
    pub(crate) fn running(&self) -> Arc<Running> {
        Arc::clone(&self.running)
    }

    /// Stops in the order in which packets flow: no packet enters a device whose programs are gone.
    pub(crate) async fn stop(self, keep: bool) -> anyhow::Result<()> {
        if let Some((stop, keeper)) = self.keeper {
            stop.notify_one();
            keeper.await.context("keep endpoints")?;
        }
        let (stop, stamps, _) = self.stamps;
        stop.notify_one();
        stamps.await.context("keep stamps")?;
        // It holds the device only while it looks.
        self.wt0_keeper.abort();
        // It ends within a turn of its loop.
        self.shard.stop();
        let removed = remove(&*self.wt0.lock().await, self.driver, keep).await;
        if let Some(flow_log) = self.flow_log {
            block_in_place(|| flow_log.end());
        }
        removed
    }
}

fn spawn(
    wt0: &mut Wt0,
    desired: &Desired,
    engine: Engine,
    sockets: Sockets,
    mut on_event: impl FnMut(&Event) + Send + 'static,
    changed: &Arc<Notify>,
) -> anyhow::Result<Shard<Engine>> {
    for skipped in wt0.skipped_routes() {
        tracing::warn!(destination = %skipped.destination, "the node sends this network elsewhere: left as it is");
    }
    let queue = wt0.take_queues().into_iter().next().with_context(|| format!("{} has no queue", wt0.name()))?;
    let config = ShardConfig { id: ShardId::ONLY, mtu: desired.interface.mtu };
    let changed = Arc::clone(changed);
    let on_event = move |event| {
        on_event(&event);
        log_event(event, &changed);
    };
    Ok(peer_io::shard::spawn(config, engine, queue, sockets, on_event)?)
}

fn interface(wt0: &Wt0, desired: &Desired, listen_port: u16) -> Interface {
    Interface {
        name: wt0.name().to_owned(),
        index: wt0.index(),
        mtu: desired.interface.mtu,
        addresses: desired.interface.addresses.clone(),
        listen_port,
        public_key: desired.interface.private_key.public_key().to_string(),
    }
}

/// Takes device and programs away, or leaves both in place.
async fn remove(wt0: &Wt0, driver: Driver, keep: bool) -> anyhow::Result<()> {
    let removed = driver.shutdown(keep).await;
    if !keep {
        wt0.remove().await?;
    }
    Ok(removed?)
}

fn engine(desired: &Desired, endpoints: &Endpoints, stamps: &Stamps, configuration: Configuration) -> Engine {
    let now = peer_io::clock::now();
    let config = EngineConfig {
        private_key: desired.interface.private_key.clone(),
        shard: ShardId::ONLY,
        stamps_from: stamps.floor(),
    };
    let mut engine = Engine::new(config, rand::rng(), now);
    engine.set_mtu(desired.interface.mtu);
    // NetBird's paths are those that its connections have chosen.
    engine.set_roaming(match configuration {
        Configuration::File => Roaming::Free,
        Configuration::NetBird => Roaming::WithinUdp,
    });
    let changed = engine.set_peers(now, Arc::clone(&desired.peers));
    for (peer, why) in changed.refused {
        tracing::warn!(%peer, %why, "peer not taken");
    }
    endpoints::restore(&mut engine, endpoints);
    engine.start_handshakes(now);
    stamps.reserve(&mut engine);
    engine
}

fn log_event(event: Event, changed: &Notify) {
    match event {
        Event::HandshakeCompleted { peer, path } => {
            tracing::debug!(%peer, ?path, "handshake completed");
            changed.notify_one();
        }
        Event::PathChanged { peer, from, to } => {
            tracing::info!(%peer, ?from, ?to, "peer is reached by another path");
            changed.notify_one();
        }
        Event::SessionExpired { peer } => tracing::info!(%peer, "session expired"),
        Event::HandshakeTimedOut { peer } => tracing::info!(%peer, "peer does not answer"),
        Event::PathWanted { peer } => tracing::debug!(%peer, "a packet waits for a path to this peer"),
    }
}
