//! What the control side shows: written by the agent, read by those who answer questions.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::HashSet;
use jiff::Timestamp;
use peer_core::key::PublicKey;
use peer_ice::metrics::IceCollector;
use peer_mesh::Mesh;
use peer_mesh::metrics::PathCollector;
use peer_metrics::Shown;
use peer_netbird::management::ManagementStats;
use peer_netbird::signal::SignalStats;
use peer_netmap::compile::Compiled;
use peer_netmap::model::{NetworkMap, OwnConfig, RemotePeer, RouteTarget};
use peer_relay::{RelayMetrics, RelayStats, RelayStatus, Relays};
use prometheus_client::registry::Registry;

use super::direct::DirectHandle;
use super::metrics::{MapStats, MeshCollector};
use crate::status::{Event, Map, Network, Relay};

/// Events that are shown; the oldest go first.
const EVENTS: usize = 10;

/// Shared state of the control side.
pub(crate) struct View {
    pub(super) management_url: String,
    board: Mutex<Board>,
    mesh: Arc<Mutex<Mesh>>,
    /// `None`: relays only.
    pub(super) direct: Option<DirectHandle>,
    pub(super) management: Arc<ManagementStats>,
    pub(super) signal: Arc<SignalStats>,
    pub(super) relay: Arc<RelayStats>,
    relays: Mutex<Option<Relays>>,
    pub(super) maps: Arc<MapStats>,
}

/// What is known now.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) login: Login,
    pub(super) management: Link,
    pub(super) signal: Link,
    pub(super) signal_url: String,
    pub(super) fqdn: String,
    pub(super) lazy: bool,
    pub(super) peers: Arc<[Arc<RemotePeer>]>,
    pub(super) offline: Vec<Arc<RemotePeer>>,
    pub(super) networks: Vec<Network>,
    pub(super) served: Vec<String>,
    pub(super) unsupported: Vec<String>,
    pub(super) map: Option<InForce>,
    pub(super) refused: Option<String>,
    pub(super) events: VecDeque<Event>,
}

/// How it stands with the login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Login {
    /// On its way.
    #[default]
    Unknown,
    /// The server knows the peer.
    In,
    /// The server does not, and there is no setup key.
    NeedsSetupKey,
    /// The server does not take it.
    Refused,
    /// The peer belongs to a user whose login has ended.
    Expired,
}

/// A connection to a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) connected: bool,
    /// Why not.
    pub(super) error: String,
}

/// The map in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct InForce {
    pub(super) serial: u64,
    pub(super) received: Instant,
    /// How old it was then: one that an earlier run kept.
    pub(super) kept: Option<Duration>,
}

impl View {
    pub(super) fn new(management_url: String, mesh: Mesh, direct: Option<DirectHandle>) -> Self {
        Self {
            management_url,
            board: Mutex::default(),
            mesh: Arc::new(Mutex::new(mesh)),
            direct,
            management: Arc::default(),
            signal: Arc::default(),
            relay: Arc::default(),
            relays: Mutex::default(),
            maps: Arc::default(),
        }
    }

    /// What is known; to be held for moments only.
    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        // Changes are assignments: a panic of a holder leaves nothing half done that would matter.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections to peers; to be held for moments only.
    pub(super) fn mesh(&self) -> MutexGuard<'_, Mesh> {
        self.mesh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn networks(&self) -> Vec<Network> {
        self.board().networks.clone()
    }

    pub(crate) fn unsupported(&self) -> Vec<String> {
        self.board().unsupported.clone()
    }

    pub(crate) fn map(&self) -> Option<Map> {
        let board = self.board();
        board.map.map(|map| Map {
            serial: map.serial,
            age_seconds: map.age().as_secs(),
            kept: map.kept.is_some(),
            refused: board.refused.clone(),
        })
    }

    /// What `status --check startup` wants: the servers are there, and a relay if there is any.
    pub(crate) fn joined(&self) -> Result<(), String> {
        let board = self.board();
        for (name, link) in [("management", &board.management), ("signal", &board.signal)] {
            if !link.connected {
                return Err(format!("{name} is not connected: {}", link.error));
            }
        }
        drop(board);
        let relays = self.relays();
        if relays.is_empty() || relays.iter().any(|relay| relay.available) {
            return Ok(());
        }
        Err("no relay is connected".to_owned())
    }

    pub(super) fn set_relays(&self, relays: Relays) {
        *self.relays.lock().unwrap_or_else(PoisonError::into_inner) = Some(relays);
    }

    /// Relays as they are now.
    pub(super) fn relays(&self) -> Vec<Relay> {
        let relays = self.relays.lock().unwrap_or_else(PoisonError::into_inner);
        let statuses = relays.as_ref().map(Relays::status).unwrap_or_default();
        let relay = |status: RelayStatus| Relay {
            uri: status.url.to_string(),
            available: status.connected,
            error: status.error.unwrap_or_default(),
            transport: status.connected.then(|| "ws".to_owned()),
        };
        statuses.into_iter().map(relay).collect()
    }

    /// What the map calls these peers; of many few are asked for.
    pub(crate) fn names(&self, of: &HashSet<PublicKey>) -> HashMap<PublicKey, String> {
        let asked = |peer: &&Arc<RemotePeer>| of.contains(&peer.key);
        self.board().all_peers().filter(asked).map(|peer| (peer.key, peer.fqdn.clone())).collect()
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Shown(Arc::clone(&self.management))));
        registry.register_collector(Box::new(RelayMetrics::new(Arc::clone(&self.relay))));
        registry.register_collector(Box::new(Shown(Arc::clone(&self.signal))));
        registry.register_collector(Box::new(PathCollector::new(self.mesh().stats())));
        let ice = self.direct.as_ref().map_or_else(Arc::default, DirectHandle::stats);
        registry.register_collector(Box::new(IceCollector::new(ice)));
        registry
            .register_collector(Box::new(MeshCollector { maps: Arc::clone(&self.maps), mesh: Arc::clone(&self.mesh) }));
    }
}

impl InForce {
    pub(super) fn age(&self) -> Duration {
        self.received.elapsed() + self.kept.unwrap_or_default()
    }
}

impl Board {
    /// Peers of the map, those that are offline last.
    pub(super) fn all_peers(&self) -> impl Iterator<Item = &Arc<RemotePeer>> {
        self.peers.iter().chain(&self.offline)
    }

    /// Takes what a map says.
    pub(super) fn set_map(&mut self, map: &NetworkMap, own: &OwnConfig, own_key: PublicKey, compiled: &Compiled) {
        self.fqdn.clone_from(&own.fqdn);
        self.peers = Arc::clone(&map.peers);
        self.offline.clone_from(&map.offline);
        self.served = served(map, own_key, compiled);
        self.networks = networks(map, own_key, compiled);
        let line = |unsupported: &peer_netmap::compile::Unsupported| {
            let name = if unsupported.name.is_empty() { String::new() } else { format!("{} ", unsupported.name) };
            format!("{} {name}({})", unsupported.kind.as_str(), unsupported.detail)
        };
        self.unsupported = compiled.unsupported.iter().map(line).collect();
    }

    /// Notes that something happened.
    pub(super) fn event(
        &mut self,
        severity: &str,
        category: &str,
        message: impl Into<String>,
        metadata: &[(&str, &str)],
    ) {
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        while self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Event {
            id: uuid(rand::random()),
            severity: severity.to_owned(),
            category: category.to_owned(),
            message: message.into(),
            user_message: String::new(),
            timestamp: Timestamp::now(),
            metadata: Some(metadata.collect()).filter(|metadata: &BTreeMap<_, _>| !metadata.is_empty()),
        });
    }
}

/// Prefixes that this node serves, as the official client shows them.
fn served(map: &NetworkMap, own_key: PublicKey, compiled: &Compiled) -> Vec<String> {
    let mut served: Vec<_> = map
        .routes
        .iter()
        .filter(|route| route.router == own_key)
        .filter_map(|route| match &route.target {
            RouteTarget::Prefix(net) if compiled.routes.iter().any(|served| served.destination == *net) => {
                Some(net.to_string())
            }
            _ => None,
        })
        .collect();
    served.sort();
    served.dedup();
    served
}

/// Networks of the map by name: several routers, or both families, are one.
fn networks(map: &NetworkMap, own_key: PublicKey, compiled: &Compiled) -> Vec<Network> {
    let mut networks: BTreeMap<&str, Network> = BTreeMap::new();
    for route in &map.routes {
        let network = networks.entry(&route.net_id).or_insert_with(|| Network {
            id: route.net_id.clone(),
            prefixes: Vec::new(),
            domains: Vec::new(),
            selected: false,
            unsupported: None,
        });
        match &route.target {
            RouteTarget::Prefix(net) => {
                push(&mut network.prefixes, net.to_string());
                let ours = route.router == own_key;
                network.selected |= ours && compiled.routes.iter().any(|served| served.destination == *net);
            }
            RouteTarget::Domains(domains) => domains.iter().for_each(|name| push(&mut network.domains, name.clone())),
        }
    }
    for unsupported in &compiled.unsupported {
        if let Some(network) = networks.get_mut(unsupported.name.as_str()) {
            network.unsupported = Some(unsupported.kind.as_str().to_owned());
        }
    }
    networks.into_values().collect()
}

fn push(items: &mut Vec<String>, item: String) {
    if !items.contains(&item) {
        items.push(item);
    }
}

/// RFC 9562 §5.4: version 4, of random bytes.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests;
