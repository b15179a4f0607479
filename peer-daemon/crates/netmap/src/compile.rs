//! From a map to the parts of [`Desired`](peer_core::desired::Desired).

mod peers;
mod rules;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};
use ipnet::IpNet;
use peer_core::desired::{Peer, Route, Rule, UplinkChoice};
pub use peer_core::desired::{Unsupported, UnsupportedKind};
use peer_core::key::{PresharedKey, PublicKey};
use peer_core::net::is_whole_internet;

use self::peers::Claims;
use self::rules::{Rulebook, Unserved};
use crate::ids::Ids;
use crate::model::{NetworkMap, OwnAddresses, RouteTarget};

/// What the node itself decides.
#[derive(Clone, Debug)]
pub struct Options {
    /// Own identity: routes that name it are served here.
    pub own_key: PublicKey,
    /// Own overlay addresses, which no peer may claim.
    pub addresses: OwnAddresses,
    /// Other addresses of this node, e.g. in its LAN: rules for traffic to this node cover them, too.
    pub local: Vec<IpAddr>,
    /// Seconds between keepalives.
    pub keepalive: Option<NonZeroU16>,
    /// Mixed into the handshakes with every peer.
    pub preshared_key: Option<PresharedKey>,
    /// By which devices routes may leave.
    pub uplinks: UplinkChoice,
    /// Whether routes are served.
    pub server_routes: bool,
    /// Whether all traffic to this node and through it is refused.
    pub block_inbound: bool,
}

/// What a map means for this node. Two that are equal need no change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Peers in the order of their keys. Nothing is known of endpoints.
    pub peers: Arc<[Peer]>,
    /// Routes this node serves, in order of destination, each once.
    pub routes: Vec<Route>,
    /// Rules. Their ids are those of [`Ids`].
    pub rules: Arc<[Arc<Rule>]>,
    /// Names of the networks this node serves, sorted, each once.
    pub served: Vec<String>,
    /// What the map wants of this node and it cannot do.
    pub unsupported: Vec<Unsupported>,
    /// Prefixes that two peers, or a peer and this node, both claim: the first keeps them.
    pub contested: u32,
}

/// Compiles `map` by itself.
#[must_use]
pub fn compile(map: &NetworkMap, options: &Options, ids: &mut Ids) -> Compiled {
    Compiler::default().compile(map, options, ids)
}

/// Compiles one map after the other. What is as it was in the map before is not compiled again, and parts of the result that
/// are the same are the very same: a large mesh changes often, and little at a time.
#[derive(Debug, Default)]
pub struct Compiler {
    peers: Claims,
    rules: Rulebook,
}

impl Compiler {
    /// Compiles `map`: the same as [`compile`].
    pub fn compile(&mut self, map: &NetworkMap, options: &Options, ids: &mut Ids) -> Compiled {
        ids.begin();
        let mut compiled = Compiled::default();
        (compiled.peers, compiled.contested) = self.peers.next(&map.peers, options);
        let unserved = compiled.routes(map, options);
        if !options.block_inbound {
            let destinations = options.destinations();
            compiled.rules = self.rules.next(map, &destinations, &compiled.routes, &unserved, ids).into();
        }
        if map.forwarding_rules > 0 {
            let (kind, detail) = (UnsupportedKind::Forwarding, map.forwarding_rules.to_string());
            compiled.unsupported.push(Unsupported { kind, name: String::new(), detail });
        }
        compiled.unsupported.sort();
        compiled
    }
}

impl Options {
    /// What rules for traffic to this node lead to. Not everything: each destination of route rules would have to be told
    /// apart from it, for each source.
    fn destinations(&self) -> Vec<IpNet> {
        let own = self.addresses.iter().map(|net| net.addr());
        let mut destinations: Vec<IpNet> = own.chain(self.local.iter().copied()).map(IpNet::from).collect();
        destinations.sort();
        destinations.dedup();
        destinations
    }
}

impl Compiled {
    /// Fills in the routes. Returns the ids of those that name this node and are not served.
    fn routes(&mut self, map: &NetworkMap, options: &Options) -> Unserved {
        let mut unserved = Unserved::new();
        // By destination: several networks may lead to the same one.
        let mut masquerade: BTreeMap<IpNet, bool> = BTreeMap::new();
        if !options.server_routes || options.block_inbound {
            return unserved;
        }
        for route in map.routes.iter().filter(|route| route.router == options.own_key) {
            let name = route.net_id.clone();
            let (kind, detail) = match &route.target {
                RouteTarget::Prefix(net) if !is_whole_internet(net) => {
                    *masquerade.entry(*net).or_default() |= route.masquerade;
                    self.served.push(name);
                    continue;
                }
                RouteTarget::Prefix(net) => (UnsupportedKind::ExitNode, net.to_string()),
                RouteTarget::Domains(domains) => (UnsupportedKind::DomainRoute, domains.join(", ")),
            };
            unserved.insert(route.id.clone());
            self.unsupported.push(Unsupported { kind, name, detail });
        }
        self.served.sort();
        self.served.dedup();
        let route = |(destination, masquerade)| Route { destination, masquerade, uplink: options.uplinks.clone() };
        self.routes = masquerade.into_iter().map(route).collect();
        unserved
    }
}

/// Things by key, in the order in which the keys came.
struct Groups<K, V> {
    positions: HashMap<K, usize>,
    groups: Vec<(K, V)>,
}

impl<K: Clone + Eq + std::hash::Hash, V: Default> Groups<K, V> {
    fn new() -> Self {
        Self { positions: HashMap::new(), groups: Vec::new() }
    }

    fn entry(&mut self, key: K) -> &mut V {
        let position = self.position(key);
        &mut self.groups[position].1
    }

    /// Where the group of `key` stands.
    fn position(&mut self, key: K) -> usize {
        *self.positions.entry(key).or_insert_with_key(|key| {
            self.groups.push((key.clone(), V::default()));
            self.groups.len() - 1
        })
    }
}

#[cfg(test)]
mod tests;
