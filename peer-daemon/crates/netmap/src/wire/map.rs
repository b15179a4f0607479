//! The network map.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::{HashSet, HashSetExt as _};
use ipnet::IpNet;
use peer_core::desired::{Action, PortRange, Protocol};
use peer_core::key::PublicKey;
use peer_netbird::proto::management as wire;

use super::{own, prefix};
use crate::model::{Matcher, NetworkMap, PeerRule, RemotePeer, Route, RouteRule, RouteTarget, Rules, Skipped};

impl From<wire::NetworkMap> for NetworkMap {
    fn from(map: wire::NetworkMap) -> Self {
        let mut shared = Shared::default();
        let peers = |peers: Vec<wire::RemotePeerConfig>| peers.into_iter().map(remote_peer).collect::<Vec<_>>();
        let rules = map.firewall_rules.iter().map(|rule| peer_rule(rule, &mut shared)).collect::<Vec<_>>();
        let route_rules = map.routes_firewall_rules.iter().map(|rule| route_rule(rule, &mut shared));
        let entries = Entries {
            peers: &peers(map.remote_peers),
            offline: &peers(map.offline_peers),
            routes: &map.routes.into_iter().map(route).collect::<Vec<_>>(),
            peer_rules: &rules,
            route_rules: &route_rules.collect::<Vec<_>>(),
        };
        let rest = Rest {
            serial: map.serial,
            own: map.peer_config,
            no_peers: map.remote_peers_is_empty,
            no_peer_rules: map.firewall_rules_is_empty,
            no_route_rules: map.routes_firewall_rules_is_empty,
            forwarding_rules: map.forwarding_rules.len(),
        };
        entries.map(rest)
    }
}

/// The lists of a map, each entry by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entries<'a> {
    pub(crate) peers: &'a [Entry<Arc<RemotePeer>>],
    pub(crate) offline: &'a [Entry<Arc<RemotePeer>>],
    pub(crate) routes: &'a [Entry<Arc<Route>>],
    pub(crate) peer_rules: &'a [Entry<PeerRule>],
    pub(crate) route_rules: &'a [Entry<Arc<RouteRule>>],
}

/// What else a map says.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    pub(crate) serial: u64,
    pub(crate) own: Option<wire::PeerConfig>,
    pub(crate) no_peers: bool,
    pub(crate) no_peer_rules: bool,
    pub(crate) no_route_rules: bool,
    pub(crate) forwarding_rules: usize,
}

/// An entry of a list.
#[derive(Clone, Debug)]
pub(crate) struct Entry<T> {
    heard: Heard<T>,
    /// Addresses in it that were left out.
    addresses: u32,
}

/// What is made of an entry.
#[derive(Clone, Debug)]
enum Heard<T> {
    Understood(T),
    /// It cannot be understood.
    Skipped,
    /// It says nothing to this node.
    Silent,
}

impl<T> Entry<T> {
    fn of(understood: Option<T>) -> Self {
        Self { heard: understood.map_or(Heard::Skipped, Heard::Understood), addresses: 0 }
    }
}

impl Entries<'_> {
    /// The map of them. Of peers with the same key the first is taken, and so of routes with the same id.
    pub(crate) fn map(&self, rest: Rest) -> NetworkMap {
        let mut skipped = Skipped::default();
        let own = rest.own.map(|config| own(config, &mut skipped));
        // Old servers are known by what they leave out, whether or not the rest can be understood.
        let legacy_peers = self.peer_rules.is_empty() && !rest.no_peer_rules;
        let legacy_routes = self.route_rules.is_empty() && !rest.no_route_rules;
        let remote = if rest.no_peers { &[] } else { self.peers };
        let mut keys = HashSet::with_capacity(remote.len());
        let mut once = |peers: &[Entry<Arc<RemotePeer>>], skipped: &mut Skipped| {
            let Skipped { addresses, peers: count, .. } = skipped;
            understood(peers, |peer| keys.insert(peer.key), count, addresses)
        };
        let (peers, offline) = (once(remote, &mut skipped), once(self.offline, &mut skipped));
        let mut ids = HashSet::with_capacity(self.routes.len());
        let Skipped { addresses, routes, peer_rules, route_rules, .. } = &mut skipped;
        NetworkMap {
            serial: rest.serial,
            own,
            peers: peers.into(),
            offline,
            routes: understood(self.routes, |route| ids.insert(Id(Arc::clone(route))), routes, addresses),
            peer_rules: if legacy_peers {
                Rules::Legacy
            } else {
                Rules::List(understood(self.peer_rules, |_| true, peer_rules, addresses))
            },
            route_rules: if legacy_routes {
                Rules::Legacy
            } else {
                Rules::List(understood(self.route_rules, |_| true, route_rules, addresses))
            },
            forwarding_rules: rest.forwarding_rules,
            skipped,
        }
    }
}

/// A route, told apart by its id.
struct Id(Arc<Route>);

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Id {}

impl Hash for Id {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

/// Those that are understood and `taken`; the rest is counted.
fn understood<T: Clone>(
    entries: &[Entry<T>],
    mut taken: impl FnMut(&T) -> bool,
    skipped: &mut u32,
    addresses: &mut u32,
) -> Vec<T> {
    let mut understood = Vec::with_capacity(entries.len());
    for entry in entries {
        match &entry.heard {
            Heard::Understood(value) if taken(value) => {
                *addresses += entry.addresses;
                understood.push(value.clone());
            }
            Heard::Understood(_) | Heard::Skipped => *skipped += 1,
            Heard::Silent => {}
        }
    }
    understood
}

/// What many rules have in common.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    texts: HashSet<Arc<str>>,
    lists: HashSet<Arc<[IpNet]>>,
}

impl Shared {
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }

    fn list(&mut self, list: Vec<IpNet>) -> Arc<[IpNet]> {
        if let Some(known) = self.lists.get(list.as_slice()) {
            return Arc::clone(known);
        }
        let list: Arc<[IpNet]> = list.into();
        self.lists.insert(Arc::clone(&list));
        list
    }

    /// What nobody else has any more is forgotten.
    pub(crate) fn forget_unused(&mut self) {
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.lists.retain(|list| Arc::strong_count(list) > 1);
    }
}

pub(crate) fn remote_peer(peer: wire::RemotePeerConfig) -> Entry<Arc<RemotePeer>> {
    let Ok(key) = peer.wg_pub_key.parse::<PublicKey>() else { return Entry::of(None) };
    let (allowed_ips, addresses) = cidrs(&peer.allowed_ips);
    let allowed_ips = allowed_ips.into();
    let peer = RemotePeer { key, allowed_ips, fqdn: peer.fqdn, agent_version: peer.agent_version };
    Entry { addresses, ..Entry::of(Some(Arc::new(peer))) }
}

/// Those that are some, in order and each once, and how many are none.
fn cidrs(texts: &[String]) -> (Vec<IpNet>, u32) {
    let mut nets = Vec::with_capacity(texts.len());
    let mut skipped = 0;
    for text in texts {
        match prefix::cidr(text) {
            Some(net) => nets.push(net),
            None => skipped += 1,
        }
    }
    nets.sort_unstable();
    nets.dedup();
    (nets, skipped)
}

pub(crate) fn route(route: wire::Route) -> Entry<Arc<Route>> {
    let target = if route.domains.is_empty() {
        prefix::cidr(&route.network).map(RouteTarget::Prefix)
    } else {
        Some(RouteTarget::Domains(route.domains))
    };
    // A dynamic route without domains leads to its placeholder, which is nothing.
    let target = target.filter(|target| route.network_type != DOMAINS || matches!(target, RouteTarget::Domains(_)));
    let usable = target.zip(route.peer.parse().ok());
    Entry::of(usable.map(|(target, router)| {
        Arc::new(Route {
            id: route.id,
            net_id: route.net_id,
            target,
            router,
            metric: route.metric,
            masquerade: route.masquerade,
            skip_auto_apply: route.skip_auto_apply,
        })
    }))
}

pub(crate) fn peer_rule(rule: &wire::FirewallRule, shared: &mut Shared) -> Entry<PeerRule> {
    // The dataplane keeps state: what goes out is never filtered.
    if rule.direction == wire::RuleDirection::Out as i32 {
        return Entry { heard: Heard::Silent, addresses: 0 };
    }
    let known = rule.direction == wire::RuleDirection::In as i32;
    Entry::of(known.then(|| inbound(rule, shared)).flatten())
}

fn inbound(rule: &wire::FirewallRule, shared: &mut Shared) -> Option<PeerRule> {
    let source: IpAddr = match rule.source_prefixes.first() {
        Some(bytes) => prefix::compact(bytes)?.addr(),
        None => rule.peer_ip.parse().ok()?,
    };
    let action = action(rule.action)?;
    let selected = match selection(rule.port_info.as_ref()) {
        Selected::All if !rule.port.is_empty() => rule.port.parse().map_or(Selected::Invalid, Selected::one),
        other => other,
    };
    let matcher = Matcher {
        protocol: protocol(rule.protocol)?,
        ports: selected.ports(action)?,
        action,
        policy: shared.text(&String::from_utf8_lossy(&rule.policy_id)),
    };
    Some(PeerRule { source: prefix::source(source), matcher })
}

pub(crate) fn route_rule(rule: &wire::RouteFirewallRule, shared: &mut Shared) -> Entry<Arc<RouteRule>> {
    let (sources, addresses) = cidrs(&rule.source_ranges);
    let understood = forwarded(rule, sources, shared);
    // Of a rule that is left out as a whole nothing else is counted.
    let addresses = if understood.is_some() { addresses } else { 0 };
    Entry { addresses, ..Entry::of(understood.map(Arc::new)) }
}

fn forwarded(rule: &wire::RouteFirewallRule, sources: Vec<IpNet>, shared: &mut Shared) -> Option<RouteRule> {
    let target = if rule.is_dynamic {
        RouteTarget::Domains(rule.domains.clone())
    } else {
        RouteTarget::Prefix(prefix::cidr(&rule.destination)?)
    };
    let action = action(rule.action)?;
    let matcher = Matcher {
        protocol: protocol(rule.protocol)?,
        ports: selection(rule.port_info.as_ref()).ports(action)?,
        action,
        policy: shared.text(&String::from_utf8_lossy(&rule.policy_id)),
    };
    Some(RouteRule { sources: shared.list(sources), target, route: shared.text(&rule.route_id), matcher })
}

/// What a port selection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selected {
    All,
    Range(PortRange),
    /// No port has such a number.
    Invalid,
}

impl Selected {
    fn one(port: u16) -> Self {
        Self::Range(PortRange { min: port, max: port })
    }

    /// An invalid selection permits nothing, but forbids everything.
    fn ports(self, action: Action) -> Option<Option<PortRange>> {
        match (self, action) {
            (Self::All, _) | (Self::Invalid, Action::Drop) => Some(None),
            (Self::Range(range), _) => Some(Some(range)),
            (Self::Invalid, Action::Accept) => None,
        }
    }
}

/// An empty selection, port 0 and the range 0–0 mean all ports.
fn selection(info: Option<&wire::PortInfo>) -> Selected {
    use wire::port_info::Selection;
    match info.and_then(|info| info.selection.as_ref()) {
        None | Some(Selection::Port(0) | Selection::Range(wire::port_info::Range { start: 0, end: 0 })) => {
            Selected::All
        }
        Some(Selection::Port(port)) => u16::try_from(*port).map_or(Selected::Invalid, Selected::one),
        Some(Selection::Range(range)) => match (u16::try_from(range.start), u16::try_from(range.end)) {
            (Ok(min), Ok(max)) if min <= max => Selected::Range(PortRange { min, max }),
            _ => Selected::Invalid,
        },
    }
}

fn protocol(number: i32) -> Option<Protocol> {
    match wire::RuleProtocol::try_from(number).ok()? {
        wire::RuleProtocol::All => Some(Protocol::Any),
        wire::RuleProtocol::Tcp => Some(Protocol::Tcp),
        wire::RuleProtocol::Udp => Some(Protocol::Udp),
        wire::RuleProtocol::Icmp => Some(Protocol::Icmp),
        // As the official client: the last belongs to its own SSH server.
        wire::RuleProtocol::Unknown | wire::RuleProtocol::Custom | wire::RuleProtocol::NetbirdSsh => None,
    }
}

fn action(number: i32) -> Option<Action> {
    match wire::RuleAction::try_from(number).ok()? {
        wire::RuleAction::Accept => Some(Action::Accept),
        wire::RuleAction::Drop => Some(Action::Drop),
    }
}

/// The network type of routes to domains.
const DOMAINS: i64 = 3;
