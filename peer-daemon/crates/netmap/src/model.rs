//! What management says, typed. What cannot be understood is left out and counted in [`Skipped`]: it is no error.

use std::fmt;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use peer_core::desired::{Action, PortRange, Protocol};
use peer_core::key::PublicKey;
use zeroize::Zeroizing;

/// The answer to a login.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// Servers; absent: none are said.
    pub servers: Option<ServersUpdate>,
    /// Facts about this peer.
    pub own: Option<OwnConfig>,
    /// Absolute paths that posture checks ask for, sorted.
    pub checks: Vec<String>,
}

/// A message of the sync stream.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// Servers; absent: as before.
    pub servers: Option<ServersUpdate>,
    /// The whole map; absent: as before.
    pub map: Option<NetworkMap>,
    /// Absolute paths that posture checks ask for, sorted. Without a map they say nothing.
    pub checks: Vec<String>,
    /// A component map came, which this node announces not to understand: the map is left out.
    pub component_map: bool,
}

/// Servers as one message names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServersUpdate {
    /// STUN URIs, e.g. `stun:host:3478`.
    pub stuns: Vec<String>,
    /// TURN servers.
    pub turns: Vec<Turn>,
    /// The signal server.
    pub signal: Option<Signal>,
    /// Relays.
    pub relay: Option<Relay>,
}

/// A TURN server.
#[derive(Clone, PartialEq, Eq)]
pub struct Turn {
    /// URI, e.g. `turn:host:3478?transport=udp`.
    pub uri: String,
    /// User name.
    pub user: String,
    /// Password.
    pub password: Zeroizing<String>,
}

/// The signal server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// `host:port`.
    pub authority: String,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// Relays and the token that opens them.
#[derive(Clone, PartialEq, Eq)]
pub struct Relay {
    /// URLs, `rel://` or `rels://`.
    pub urls: Vec<String>,
    /// Unix seconds of the token's end, as text.
    pub token_payload: String,
    /// Its signature, base64.
    pub token_signature: Zeroizing<String>,
}

/// Facts about this peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnConfig {
    /// Own overlay addresses.
    pub addresses: OwnAddresses,
    /// Name of this peer in the overlay.
    pub fqdn: String,
    /// Whether a router resolves the names of domain routes.
    pub dns_resolution: bool,
    /// Whether idle peers are to stay unconnected.
    pub lazy: bool,
    /// MTU of the overlay, bytes.
    pub mtu: Option<u16>,
}

/// Own overlay addresses, each with the prefix length of the overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// IPv4.
    pub v4: Option<Ipv4Net>,
    /// IPv6.
    pub v6: Option<Ipv6Net>,
}

/// A network map: all of it, never a delta. What two maps have in common they may share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkMap {
    /// Serial of the account's network.
    pub serial: u64,
    /// Facts about this peer; absent: as before.
    pub own: Option<OwnConfig>,
    /// Peers of the mesh that may be connected. Each key once.
    pub peers: Arc<[Arc<RemotePeer>]>,
    /// Peers that cannot be connected now, for display.
    pub offline: Vec<Arc<RemotePeer>>,
    /// Routes of everybody. Each id once.
    pub routes: Vec<Arc<Route>>,
    /// Rules for traffic to this node.
    pub peer_rules: Rules<PeerRule>,
    /// Rules for traffic through this node.
    pub route_rules: Rules<Arc<RouteRule>>,
    /// How many ingress forwarding rules there are.
    pub forwarding_rules: usize,
    /// What was left out.
    pub skipped: Skipped,
}

/// A list of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rules<T> {
    /// The server is too old to know them: everything is permitted.
    Legacy,
    /// What none accepts is dropped.
    List(Vec<T>),
}

/// A peer of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePeer {
    /// Identity.
    pub key: PublicKey,
    /// Its addresses, in order, each once.
    pub allowed_ips: Arc<[IpNet]>,
    /// Name.
    pub fqdn: String,
    /// Version of its client.
    pub agent_version: String,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its id.
    pub id: String,
    /// Name of the network, by which people know it.
    pub net_id: String,
    /// Where it leads.
    pub target: RouteTarget,
    /// Identity of the router.
    pub router: PublicKey,
    /// Smaller is better.
    pub metric: i64,
    /// Whether sources are replaced by the router's address.
    pub masquerade: bool,
    /// Clients take it only when a person selects it.
    pub skip_auto_apply: bool,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// A prefix, host bits zero.
    Prefix(IpNet),
    /// What names resolve to.
    Domains(Vec<String>),
}

/// A rule for traffic to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRule {
    /// Where traffic comes from.
    pub source: IpNet,
    /// What it speaks of.
    pub matcher: Matcher,
}

/// A rule for traffic through this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// Where traffic comes from, in order, each once. None: nobody is meant.
    pub sources: Arc<[IpNet]>,
    /// Where it goes.
    pub target: RouteTarget,
    /// The route it belongs to; empty: an old server does not say.
    pub route: Arc<str>,
    /// What it speaks of.
    pub matcher: Matcher,
}

/// What rules of both kinds have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matcher {
    /// Protocol.
    pub protocol: Protocol,
    /// Destination ports; `None`: all, seen or not.
    pub ports: Option<PortRange>,
    /// What becomes of it.
    pub action: Action,
    /// Id of the policy's rule; may be empty.
    pub policy: Arc<str>,
}

/// How many things of a message were left out because they could not be understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Peers whose key is none, is our own or came before.
    pub peers: u32,
    /// Addresses of peers or our own, and sources of rules.
    pub addresses: u32,
    /// Routes without a usable target, router or id.
    pub routes: u32,
    /// Rules for traffic to this node.
    pub peer_rules: u32,
    /// Rules for traffic through this node.
    pub route_rules: u32,
}

impl Skipped {
    /// Everything together.
    #[must_use]
    pub fn total(&self) -> u32 {
        let Self { peers, addresses, routes, peer_rules, route_rules } = *self;
        [peers, addresses, routes, peer_rules, route_rules].into_iter().fold(0, u32::saturating_add)
    }
}

impl NetworkMap {
    /// A server may name this peer among the others: it is none of them.
    pub(crate) fn leave_out(&mut self, own: PublicKey) {
        self.offline.retain(|peer| peer.key != own);
        if self.peers.iter().any(|peer| peer.key == own) {
            let before = self.peers.len();
            self.peers = self.peers.iter().filter(|peer| peer.key != own).cloned().collect();
            self.skipped.peers += u32::try_from(before - self.peers.len()).unwrap_or(u32::MAX);
        }
    }
}

impl OwnAddresses {
    /// Both, as far as present.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> {
        self.v4.map(IpNet::V4).into_iter().chain(self.v6.map(IpNet::V6))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }
}

impl<T> Default for Rules<T> {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uri, user, password: _ } = self;
        f.debug_struct("Turn").field("uri", uri).field("user", user).finish_non_exhaustive()
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { urls, token_payload, token_signature: _ } = self;
        f.debug_struct("Relay").field("urls", urls).field("token_payload", token_payload).finish_non_exhaustive()
    }
}
