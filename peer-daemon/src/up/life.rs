//! Start, run, stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use peer_core::desired::Desired;
use peer_core::readiness::Readiness;
use peer_core::shard::ShardId;
use peer_dataplane::Listener;
use peer_dataplane::driver::Driver;
use peer_dataplane::ebpf::EbpfDataplane;
use peer_dataplane::observe::{ObserveLimits, Observer};
use peer_io::shard::{Shard, ShardConfig};
use peer_io::udp::Sockets;
use peer_io::wt0::Wt0;
use peer_wireguard::{Engine, EngineConfig, Event};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet, block_in_place};

use super::endpoints::{self, Keeper};
use super::translate::{self, Limits};
use crate::admin::{ControlSocket, Known, Source, serve_health};
use crate::cli::UpArgs;
use crate::flow_log::FlowLog;
use crate::peers::PeerIds;
use crate::state::{EndpointFile, Endpoints};
use crate::status::Interface;
use crate::trace::LiveTrace;

/// Runs until a signal, or until a part fails.
pub(super) async fn live(args: &UpArgs, desired: Desired, dataplane: EbpfDataplane) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let readiness = Readiness::new();
    let ids = PeerIds::default().with(&desired.peers);
    let known = watch::Sender::new(Arc::new(Known::of(&desired, &ids)));
    let opened = match Opened::open(args, &desired, &known).await {
        Ok(opened) => opened,
        Err(error) => {
            dataplane.abandon()?;
            return Err(error);
        }
    };
    let limits =
        Limits { nat_ports: args.nat_ports.clone(), listeners: opened.listeners(), peer_quota: args.peer_flows };
    let dataplane = dataplane.observed_by(opened.observer.clone());
    let (wt0, driver) = forward(&desired, &ids, dataplane, &limits, &readiness).await?;
    let started = InForce { desired, ids, limits, known };
    let mut node = match Node::start(opened, started, (wt0, driver), readiness.clone()) {
        Ok(node) => node,
        Err((error, wt0, driver)) => {
            remove(*wt0, *driver, args.keep_dataplane).await?;
            return Err(error);
        }
    };
    let mut stopped = Box::pin(node.shard.stopped());
    let ended: anyhow::Result<()> = loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Reload => {
                    node.reopen_flow_log();
                    node.reload(&args.config).await;
                }
                Told::Stop(name) => {
                    tracing::info!(signal = name, "stopping");
                    break Ok(());
                }
            },
            stopped = &mut stopped => break Err(stopped.into()),
        }
    };
    readiness.drain();
    // As after a crash: what is in the kernel stays, and the next start takes it over.
    ended?;
    node.stop(args.keep_dataplane).await
}

/// What can be refused without a trace: it is asked for before the device exists.
struct Opened {
    sockets: Sockets,
    health: Option<TcpListener>,
    control: ControlSocket,
    file: Option<EndpointFile>,
    endpoints: Endpoints,
    flow_log: Option<FlowLog>,
    observer: Observer,
}

/// What is in force at the start, and who is told when that changes.
struct InForce {
    desired: Desired,
    ids: PeerIds,
    limits: Limits,
    known: watch::Sender<Arc<Known>>,
}

impl Opened {
    async fn open(args: &UpArgs, desired: &Desired, known: &watch::Sender<Arc<Known>>) -> anyhow::Result<Self> {
        let flow_log = args.flow_log.as_deref().map(|path| FlowLog::open(path, known.subscribe())).transpose()?;
        let limits = ObserveLimits {
            events_per_second: args.flow_log_rate,
            denied: usize::try_from(args.denied_flows).unwrap_or(usize::MAX),
        };
        let observer = Observer::new(limits, flow_log.as_ref().map(FlowLog::sink));
        let sockets = Sockets::bind(desired.interface.listen_port)?;
        let health = match args.health_addr {
            Some(addr) => Some(bind_health(addr).await?),
            None => None,
        };
        let control = ControlSocket::bind(&args.socket.candidates())?;
        let own = desired.interface.private_key.public_key();
        let kept = EndpointFile::open(&args.socket.state_dir, own).and_then(|file| Ok((file.read()?, file)));
        let (endpoints, file) = match kept {
            Ok((endpoints, file)) => (endpoints, Some(file)),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "endpoints of peers are not kept: a restart takes longer");
                (Endpoints::new(), None)
            }
        };
        Ok(Self { sockets, health, control, file, endpoints, flow_log, observer })
    }
}

impl Opened {
    /// Ports that nobody in the mesh may reach.
    fn listeners(&self) -> Vec<Listener> {
        let health = self.health.as_ref().and_then(|listener| listener.local_addr().ok());
        let health = health.map(|addr| Listener::Tcp(addr.port()));
        std::iter::once(Listener::Udp(self.sockets.port())).chain(health).collect()
    }
}

async fn bind_health(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| format!("--health-addr {addr}: choose a free port of an own address"))
}

/// Device and programs. The programs are in place before the first packet comes out of the device.
async fn forward(
    desired: &Desired,
    ids: &PeerIds,
    dataplane: EbpfDataplane,
    limits: &Limits,
    readiness: &Readiness,
) -> anyhow::Result<(Wt0, Driver)> {
    let name = &desired.interface.name;
    let wt0 = match Wt0::open(&translate::device(desired)).await {
        Ok(wt0) => wt0,
        Err(error) => {
            dataplane.abandon()?;
            return Err(error.into());
        }
    };
    let device = peer_dataplane::Wt0 { name: name.clone(), index: wt0.index(), mtu: desired.interface.mtu.into() };
    let intent = translate::intent(desired, ids, device, limits);
    match Driver::start(Box::new(dataplane), intent, readiness.latch("dataplane"), wt0.adopted()).await {
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
pub(super) struct Node {
    pub(super) wt0: Wt0,
    pub(super) driver: Driver,
    pub(super) shard: Arc<Shard<Engine>>,
    /// What is in force.
    pub(super) desired: Desired,
    pub(super) ids: PeerIds,
    pub(super) device: peer_dataplane::Wt0,
    pub(super) limits: Limits,
    /// Tells those who answer questions what is in force.
    pub(super) known: watch::Sender<Arc<Known>>,
    flow_log: Option<FlowLog>,
    /// Serve until they are aborted.
    tasks: JoinSet<()>,
    /// Ends by itself after it was told to.
    keeper: Option<(Arc<Notify>, JoinHandle<()>)>,
}

type Failed = (anyhow::Error, Box<Wt0>, Box<Driver>);

impl Node {
    fn start(
        opened: Opened,
        InForce { desired, ids, limits, known }: InForce,
        (mut wt0, driver): (Wt0, Driver),
        readiness: Readiness,
    ) -> Result<Self, Failed> {
        let interface = Interface {
            name: wt0.name().to_owned(),
            index: wt0.index(),
            mtu: desired.interface.mtu,
            addresses: desired.interface.addresses.clone(),
            listen_port: opened.sockets.port(),
            public_key: desired.interface.private_key.public_key().to_string(),
        };
        let changed = Arc::new(Notify::new());
        let engine = engine(&desired, &opened.endpoints);
        let engine_stats = engine.stats();
        for skipped in wt0.skipped_routes() {
            tracing::warn!(destination = %skipped.destination, "the node sends this network elsewhere: left as it is");
        }
        let queues = wt0.take_queues();
        let Some(queue) = queues.into_iter().next() else {
            return Err((anyhow::anyhow!("{} has no queue", wt0.name()), Box::new(wt0), Box::new(driver)));
        };
        let config = ShardConfig { id: ShardId::ONLY, mtu: desired.interface.mtu };
        let on_event = {
            let changed = Arc::clone(&changed);
            move |event| log_event(event, &changed)
        };
        let shard = match peer_io::shard::spawn(config, engine, queue, opened.sockets, on_event) {
            Ok(shard) => Arc::new(shard),
            Err(error) => return Err((error.into(), Box::new(wt0), Box::new(driver))),
        };
        tracing::info!(
            device = interface.name,
            port = interface.listen_port,
            public_key = interface.public_key,
            mode = driver.mode().name,
            hardened = driver.mode().hardened,
            adopted = wt0.adopted(),
            "up"
        );
        let device =
            peer_dataplane::Wt0 { name: interface.name.clone(), index: interface.index, mtu: interface.mtu.into() };
        let source = Arc::new(Source {
            started: Instant::now(),
            readiness,
            interface,
            mode: driver.mode().clone(),
            dataplane: driver.stats(),
            known: known.subscribe(),
            shard: Arc::clone(&shard),
            engine_stats,
            observer: opened.observer,
            flow_log: opened.flow_log.as_ref().map(FlowLog::stats),
            live_trace: LiveTrace::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(opened.control.serve(Arc::clone(&source)));
        if let Some(listener) = opened.health {
            tasks.spawn(serve_health(listener, source));
        }
        let keeper = opened.file.map(|file| {
            let stop = Arc::new(Notify::new());
            let keeper = Keeper::new(file, Arc::clone(&shard), changed);
            (Arc::clone(&stop), tokio::spawn(keeper.run(stop)))
        });
        let flow_log = opened.flow_log;
        Ok(Self { wt0, driver, shard, desired, ids, device, limits, known, flow_log, tasks, keeper })
    }

    /// Somebody may have moved it away.
    fn reopen_flow_log(&self) {
        if let Some(flow_log) = &self.flow_log {
            flow_log.reopen();
        }
    }

    /// Stops in the order in which packets flow: no packet enters a device whose programs are gone.
    async fn stop(mut self, keep: bool) -> anyhow::Result<()> {
        if let Some((stop, keeper)) = self.keeper {
            stop.notify_one();
            keeper.await.context("keep endpoints")?;
        }
        self.tasks.shutdown().await;
        // It ends within a turn of its loop.
        self.shard.stop();
        let removed = remove(self.wt0, self.driver, keep).await;
        if let Some(flow_log) = self.flow_log {
            block_in_place(|| flow_log.end());
        }
        removed
    }
}

/// Takes device and programs away, or leaves both in place.
async fn remove(wt0: Wt0, driver: Driver, keep: bool) -> anyhow::Result<()> {
    let removed = driver.shutdown(keep).await;
    if !keep {
        wt0.remove().await?;
    }
    Ok(removed?)
}

fn engine(desired: &Desired, endpoints: &Endpoints) -> Engine {
    let now = Instant::now();
    let config = EngineConfig { private_key: desired.interface.private_key.clone(), shard: ShardId::ONLY };
    let mut engine = Engine::new(config, rand::rng(), now);
    engine.set_mtu(desired.interface.mtu);
    let changed = engine.set_peers(now, &desired.peers);
    for (peer, why) in changed.refused {
        tracing::warn!(%peer, %why, "peer not taken");
    }
    endpoints::restore(&mut engine, endpoints);
    engine.start_handshakes(now);
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
        other => tracing::debug!(?other, "event"),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal tells.
enum Told {
    /// To end, by the signal of that name.
    Stop(&'static str),
    /// To read the configuration again.
    Reload,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The next signal that comes.
    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Told::Stop("SIGINT"),
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}
