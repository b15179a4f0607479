//! Where answers come from: the readiness latches, the dataplane, the shard.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ipnet::IpNet;
use peer_common::PacketCount;
use peer_core::desired::{Desired, Peer, Rule};
use peer_core::path::Path;
use peer_core::readiness::Readiness;
use peer_core::shard::ShardId;
use peer_dataplane::driver::StatsReader;
use peer_dataplane::observe::Observer;
use peer_dataplane::{Mode, RouteStats, Stats};
use peer_io::IoMetrics;
use peer_io::shard::Shard;
use peer_wireguard::metrics::EngineCollector;
use peer_wireguard::{Engine, EngineStats, PeerStatus};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::flow_log::{FlowLogCollector, FlowLogStats};
use crate::peers::{PeerIds, PeerKeys};
use crate::status::{self, Attachment, Count, Dataplane, Flows, Interface, Part, Policy, Report, Route};
use crate::trace::LiveTrace;

/// How long the shard may take to answer before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whom to ask.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) started: Instant,
    pub(crate) readiness: Readiness,
    pub(crate) interface: Interface,
    pub(crate) mode: Mode,
    pub(crate) dataplane: StatsReader,
    pub(crate) known: watch::Receiver<Arc<Known>>,
    pub(crate) shard: Arc<Shard<Engine>>,
    pub(crate) engine_stats: Arc<EngineStats>,
    pub(crate) observer: Observer,
    pub(crate) flow_log: Option<Arc<FlowLogStats>>,
    pub(crate) live_trace: LiveTrace,
}

/// What may change while the daemon runs.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) peers: PeerKeys,
    /// Addresses of peers, by their ids.
    pub(crate) prefixes: BTreeMap<u32, Vec<IpNet>>,
    pub(crate) rules: Vec<Rule>,
}

impl Known {
    /// Of a desired state that is in force.
    pub(crate) fn of(desired: &Desired, ids: &PeerIds) -> Self {
        let prefixes = |peer: &Peer| Some((ids.of(&peer.public_key)?, peer.allowed_ips.clone()));
        Self {
            addresses: desired.interface.addresses.clone(),
            peers: ids.keys().clone(),
            prefixes: desired.peers.iter().filter_map(prefixes).collect(),
            rules: desired.rules.clone(),
        }
    }
}

impl Source {
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.borrow())
    }

    pub(crate) fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Whether the shard still turns.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub(crate) async fn alive(&self) -> anyhow::Result<()> {
        let answer = self.shard.with_engine(|_, _| ());
        tokio::time::timeout(PATIENCE, answer).await.context("the packet thread does not answer")??;
        Ok(())
    }

    /// All metrics, in the text format of OpenMetrics 1.0.
    ///
    /// # Errors
    /// When the dataplane does not answer.
    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        let stats = self.dataplane.read().await?;
        let mut registry = Registry::default();
        let version = vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
        let build = registry.sub_registry_with_labels(version.into_iter().map(|(k, v)| (k.into(), v.into())));
        build.register("peer_build_info", "The daemon's version", ConstGauge::new(1_u64));
        let ready = ConstGauge::new(u64::from(self.readiness.report().ready));
        registry.register("peer_ready", "Whether packets can flow", ready);
        registry.register_collector(Box::new(stats));
        registry.register_collector(Box::new(self.mode.clone()));
        registry.register_collector(Box::new(self.observer.clone()));
        if let Some(flow_log) = &self.flow_log {
            registry.register_collector(Box::new(FlowLogCollector(Arc::clone(flow_log))));
        }
        registry.register_collector(Box::new(IoMetrics::new([(ShardId::ONLY, self.shard.stats())])));
        registry.register_collector(Box::new(EngineCollector::new([Arc::clone(&self.engine_stats)])));
        let mut text = String::new();
        encode(&mut text, &registry).context("encode the metrics")?;
        Ok(text)
    }

    /// What `status` shows.
    ///
    /// # Errors
    /// When dataplane or shard do not answer.
    pub(crate) async fn report(&self) -> anyhow::Result<Report> {
        let stats = self.dataplane.read().await?;
        let peers = self.shard.with_engine(|engine, now| engine.peers(now)).await?;
        let readiness = self.readiness.report();
        let part = |part: &peer_core::readiness::Part| Part {
            name: part.name.to_owned(),
            ready: part.ready,
            reason: (!part.ready).then(|| part.reason.clone()),
        };
        Ok(Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: readiness.ready,
            parts: readiness.parts.iter().map(part).collect(),
            interface: Interface { addresses: self.known().addresses.clone(), ..self.interface.clone() },
            routes: stats.routes.iter().map(route).collect(),
            dataplane: dataplane(&self.mode, stats),
            peers: peers.into_iter().map(peer).collect(),
        })
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

fn peer(peer: PeerStatus) -> status::Peer {
    status::Peer {
        public_key: peer.public_key.to_string(),
        connected: peer.connected,
        endpoint: peer.path.and_then(endpoint),
        last_handshake_seconds: peer.last_handshake.map(|ago| ago.as_secs()),
        received: Count { packets: peer.rx_packets, bytes: peer.rx_bytes },
        sent: Count { packets: peer.tx_packets, bytes: peer.tx_bytes },
        allowed_ips: peer.allowed_ips,
        persistent_keepalive: peer.persistent_keepalive.map(Into::into),
    }
}

/// The address of a path, where it has one.
pub(crate) fn endpoint(path: Path) -> Option<SocketAddr> {
    match path {
        Path::Udp { remote, .. } => Some(remote),
        _ => None,
    }
}

fn route(route: &RouteStats) -> Route {
    Route {
        destination: route.destination,
        masquerade: route.masquerade,
        uplinks: route.uplinks.clone(),
        unserved: route.unserved.clone(),
        forwarded_out: count(route.out),
        forwarded_in: count(route.back),
    }
}

fn count(count: PacketCount) -> Count {
    Count { packets: count.packets, bytes: count.bytes }
}
