//! Where answers come from: the readiness latches, the dataplane, the shard.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use foldhash::HashSet;
use ipnet::IpNet;
use peer_common::PacketCount;
use peer_core::desired::{Desired, Peer, Rule};
use peer_core::key::PublicKey;
use peer_core::path::Path;
use peer_core::readiness::Readiness;
use peer_core::shard::ShardId;
use peer_dataplane::driver::StatsReader;
use peer_dataplane::metrics::RouteTraffic;
use peer_dataplane::observe::Observer;
use peer_dataplane::{Configuration, Mode, RouteStats, Stats};
use peer_io::IoMetrics;
use peer_io::shard::Shard;
use peer_io::wt0::{RepairCollector, RepairStats};
use peer_wireguard::metrics::EngineCollector;
use peer_wireguard::traffic::PeerTraffic;
use peer_wireguard::{Engine, EngineStats, PeerStatus};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::hardening::HardeningCollector;
use super::overview;
use super::process::ProcessCollector;
use super::readiness::ReadinessCollector;
use super::server::{ListenerCollector, ListenerStats};
use crate::clock;
use crate::flow_log::{FlowLogCollector, FlowLogStats};
use crate::netbird;
use crate::peers::{PeerIds, PeerKeys};
use crate::status::{
    self, Answer, Attachment, Control, Count, Dataplane, Flows, Interface, Network, Part, Policy, Report, Route,
};
use crate::trace::LiveTrace;

/// How long the shard may take to answer before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whom to ask.
pub(crate) struct Source {
    started: Instant,
    process: ProcessCollector,
    readiness: Readiness,
    control: ControlPlane,
    running: watch::Receiver<Option<Arc<Running>>>,
    routes: RouteTraffic,
    peers: PeerTraffic,
    pub(super) listeners: Listeners,
}

/// What those who ask are counted by.
pub(super) struct Listeners {
    pub(super) health: Arc<ListenerStats>,
    pub(super) control: Arc<ListenerStats>,
}

/// Who says what the node serves.
pub(crate) enum ControlPlane {
    /// A file.
    Static,
    /// A NetBird network.
    NetBird(Arc<netbird::View>),
}

/// A node that has started.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) interface: Interface,
    pub(crate) mode: Mode,
    /// Where its programs and tables are pinned.
    pub(crate) bpffs: PathBuf,
    /// Where it keeps what its clock has said.
    pub(crate) state_dir: PathBuf,
    /// What remedies may name.
    pub(crate) configuration: Configuration,
    pub(crate) dataplane: StatsReader,
    pub(crate) known: watch::Receiver<Arc<Known>>,
    pub(crate) shard: Arc<Shard<Engine>>,
    pub(crate) engine_stats: Arc<EngineStats>,
    /// What was put right about the mesh device.
    pub(crate) mesh_device: Arc<RepairStats>,
    pub(crate) observer: Observer,
    pub(crate) flow_log: Option<Arc<FlowLogStats>>,
    pub(crate) live_trace: LiveTrace,
}

/// What may change while the daemon runs.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) peers: Arc<PeerKeys>,
    /// The same peers with what is configured of them.
    pub(crate) configured: Arc<[Peer]>,
    pub(crate) rules: Arc<[Arc<Rule>]>,
}

impl Known {
    /// Of a desired state that is in force.
    pub(crate) fn of(desired: &Desired, ids: &PeerIds) -> Self {
        Self {
            addresses: desired.interface.addresses.clone(),
            peers: Arc::clone(ids.keys()),
            configured: Arc::clone(&desired.peers),
            rules: Arc::clone(&desired.rules),
        }
    }

    /// Of many peers few are asked for.
    fn names(&self, of: &HashSet<PublicKey>) -> HashMap<PublicKey, String> {
        let name = |peer: &Peer| Some((peer.public_key, peer.allowed_ips.first()?.addr().to_string()));
        self.configured.iter().filter(|peer| of.contains(&peer.public_key)).filter_map(name).collect()
    }

    /// Addresses of the peer with that number.
    pub(crate) fn prefixes(&self, id: u32) -> &[IpNet] {
        let Some(key) = self.peers.get(id) else { return &[] };
        self.configured.iter().find(|peer| peer.public_key == *key).map_or(&[], |peer| &peer.allowed_ips)
    }
}

impl Running {
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.borrow())
    }

    /// With what is wrong with the clock.
    fn with_clock(&self, mut stats: Stats) -> Stats {
        stats.findings.extend(clock::finding::findings(&self.state_dir));
        stats.findings.sort_by_key(|finding| finding.severity);
        stats
    }

    fn interface(&self) -> Interface {
        Interface { addresses: self.known().addresses.clone(), ..self.interface.clone() }
    }
}

impl Source {
    pub(crate) fn new(
        readiness: Readiness,
        control: ControlPlane,
        running: watch::Receiver<Option<Arc<Running>>>,
    ) -> Self {
        let process = ProcessCollector { started: SystemTime::now() };
        let (routes, peers) = (RouteTraffic::new(), PeerTraffic::new());
        let listeners = Listeners { health: ListenerStats::new("health"), control: ListenerStats::new("control") };
        Self { started: Instant::now(), process, readiness, control, running, routes, peers, listeners }
    }

    /// The node, once it has started.
    pub(crate) fn running(&self) -> Option<Arc<Running>> {
        self.running.borrow().clone()
    }

    pub(crate) fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Whether the shard, if there is one yet, still turns.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub(crate) async fn alive(&self) -> anyhow::Result<()> {
        let Some(running) = self.running() else { return Ok(()) };
        let answer = running.shard.with_engine(|_, _| ());
        tokio::time::timeout(PATIENCE, answer).await.context("the packet thread does not answer")??;
        Ok(())
    }

    /// All metrics, in the text format of OpenMetrics 1.0.
    ///
    /// # Errors
    /// When dataplane or shard do not answer.
    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.process));
        registry.register_collector(Box::new(HardeningCollector));
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("profile", profile)];
        let build = registry.sub_registry_with_labels(labels.into_iter().map(|(k, v)| (k.into(), v.into())));
        build.register(
            "peer_build_info",
            "The daemon's version, and whether it is a release build",
            ConstGauge::new(1_u64),
        );
        registry.register_collector(Box::new(ReadinessCollector(self.readiness.report())));
        let listeners = [Arc::clone(&self.listeners.health), Arc::clone(&self.listeners.control)];
        registry.register_collector(Box::new(ListenerCollector(listeners)));
        if let Some(running) = self.running() {
            let stats = running.with_clock(running.dataplane.examined().await?);
            self.routes.update(&stats.routes);
            self.update_peers(&running).await?;
            registry.register_collector(Box::new(stats));
            registry.register_collector(Box::new(self.routes.clone()));
            registry.register_collector(Box::new(self.peers.clone()));
            registry.register_collector(Box::new(running.mode.clone()));
            registry.register_collector(Box::new(running.observer.clone()));
            if let Some(flow_log) = &running.flow_log {
                registry.register_collector(Box::new(FlowLogCollector(Arc::clone(flow_log))));
            }
            registry.register_collector(Box::new(IoMetrics::new([(ShardId::ONLY, running.shard.stats())])));
            registry.register_collector(Box::new(RepairCollector(Arc::clone(&running.mesh_device))));
            registry.register_collector(Box::new(EngineCollector::new([Arc::clone(&running.engine_stats)])));
        }
        if let ControlPlane::NetBird(view) = &self.control {
            view.register(&mut registry);
        }
        let mut text = String::new();
        encode(&mut text, &registry).context("encode the metrics")?;
        Ok(text)
    }

    /// Peers of a file are called by their first address.
    async fn update_peers(&self, running: &Running) -> anyhow::Result<()> {
        let figures = running.shard.with_engine(|engine, now| engine.figures(now));
        let figures = tokio::time::timeout(PATIENCE, figures).await.context("the packet thread does not answer")??;
        let active = figures.active.iter().map(|peer| peer.public_key).collect();
        let names = match &self.control {
            ControlPlane::NetBird(view) => view.names(&active),
            ControlPlane::Static => running.known().names(&active),
        };
        self.peers.update(figures, SystemTime::now(), |key| names.get(key).cloned());
        Ok(())
    }

    /// What `status` shows.
    ///
    /// # Errors
    /// When dataplane or shard do not answer.
    pub(crate) async fn answer(&self) -> anyhow::Result<Answer> {
        let running = self.running();
        let (stats, peers) = match &running {
            Some(running) => {
                let peers = running.shard.with_engine(|engine, now| engine.peers(now)).await?;
                (Some(running.with_clock(running.dataplane.followed().await?)), peers)
            }
            None => (None, Vec::new()),
        };
        let interface = running.as_ref().map(|running| running.interface());
        let overview = match &self.control {
            ControlPlane::Static => overview::of_static(interface.as_ref(), &peers, stats.as_ref()),
            ControlPlane::NetBird(view) => view.overview(interface.as_ref(), &peers),
        };
        let mut report = self.report();
        report.interface = interface;
        report.bpffs = running.as_ref().map(|running| running.bpffs.clone());
        report.routes = stats.iter().flat_map(|stats| &stats.routes).map(route).collect();
        report.dataplane = running.zip(stats).map(|(running, stats)| dataplane(&running.mode, stats));
        report.peers = peers.iter().map(peer).collect();
        Ok(Answer { overview, node: report })
    }

    /// The networks of the map.
    pub(crate) fn networks(&self) -> Vec<Network> {
        match &self.control {
            ControlPlane::Static => Vec::new(),
            ControlPlane::NetBird(view) => view.networks(),
        }
    }

    /// Whether the daemon is as far as `status --check startup` wants it.
    pub(crate) fn joined(&self) -> Result<(), String> {
        match &self.control {
            ControlPlane::Static => {
                let report = self.readiness.report();
                if report.started { Ok(()) } else { Err(report.to_string()) }
            }
            ControlPlane::NetBird(view) => view.joined(),
        }
    }

    fn report(&self) -> Report {
        let readiness = self.readiness.report();
        let part = |part: &peer_core::readiness::Part| Part {
            name: part.name.to_owned(),
            ready: part.ready,
            reason: (!part.ready).then(|| part.reason.clone()),
        };
        let (control, unsupported, map) = match &self.control {
            ControlPlane::Static => (Control::Static, Vec::new(), None),
            ControlPlane::NetBird(view) => (Control::NetBird, view.unsupported(), view.map()),
        };
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            control,
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: readiness.ready,
            parts: readiness.parts.iter().map(part).collect(),
            interface: None,
            bpffs: None,
            dataplane: None,
            peers: Vec::new(),
            routes: Vec::new(),
            unsupported,
            map,
            hardening: peer_confine::look().map(|(measure, on)| (measure.name().to_owned(), on)).into(),
        }
    }
}

fn dataplane(mode: &Mode, stats: Stats) -> Dataplane {
    let drops = stats.drops.iter().filter(|(_, drops)| drops.packets > 0);
    let attachment = |attachment: peer_dataplane::Attachment| Attachment {
        program: attachment.program.to_owned(),
        device: attachment.device,
        position: attachment.position,
        chain: attachment.chain,
        ahead: attachment.ahead.iter().map(ToString::to_string).collect(),
    };
    Dataplane {
        mode: mode.name.to_owned(),
        why: mode.why.clone(),
        hardened: mode.hardened,
        policy: Policy { generation: stats.policy_generation, entries: stats.policy_entries },
        flows: Flows { used: stats.flows, max: stats.flows_max },
        map_bytes: stats.map_bytes,
        packets: stats.counters.iter().map(|(counter, value)| (counter.name().to_owned(), *value)).collect(),
        drops: drops.map(|(reason, drops)| (reason.name().to_owned(), count(*drops))).collect(),
        findings: stats.findings.iter().map(Into::into).collect(),
        programs: stats.attachments.into_iter().map(attachment).collect(),
    }
}

fn peer(peer: &PeerStatus) -> status::Peer {
    status::Peer {
        public_key: peer.public_key.to_string(),
        connected: peer.connected,
        endpoint: peer.path.and_then(endpoint),
        last_handshake_seconds: peer.last_handshake.map(|ago| ago.as_secs()),
        received: Count { packets: peer.rx_packets, bytes: peer.rx_bytes },
        sent: Count { packets: peer.tx_packets, bytes: peer.tx_bytes },
        allowed_ips: peer.allowed_ips.to_vec(),
        persistent_keepalive: peer.persistent_keepalive.map(Into::into),
    }
}

/// The address of a path, where it has one.
pub(crate) fn endpoint(path: Path) -> Option<SocketAddr> {
    match path {
        Path::Udp { remote, .. } => Some(remote),
        Path::Relay(_) => None,
    }
}

fn route(route: &RouteStats) -> Route {
    Route {
        destination: route.destination,
        masquerade: route.masquerade,
        uplinks: route.uplinks.clone(),
        by_kernel: route.by_kernel.clone(),
        unserved: route.unserved.clone(),
        forwarded_out: count(route.out),
        forwarded_in: count(route.back),
    }
}

fn count(count: PacketCount) -> Count {
    Count { packets: count.packets, bytes: count.bytes }
}
