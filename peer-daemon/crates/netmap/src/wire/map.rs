//! The network map.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use peer_core::desired::{Action, PortRange, Protocol};
use peer_core::key::PublicKey;
use peer_netbird::proto::management as wire;

use super::{own, prefix};
use crate::model::{Matcher, NetworkMap, PeerRule, RemotePeer, Route, RouteRule, RouteTarget, Rules, Skipped};

impl From<wire::NetworkMap> for NetworkMap {
    fn from(map: wire::NetworkMap) -> Self {
        let mut skipped = Skipped::default();
        let mut texts = Texts::default();
        // Old servers are known by what they leave out, whether or not the rest can be understood.
        let legacy_peers = map.firewall_rules.is_empty() && !map.firewall_rules_is_empty;
        let legacy_routes = map.routes_firewall_rules.is_empty() && !map.routes_firewall_rules_is_empty;
        let remote = if map.remote_peers_is_empty { Vec::new() } else { map.remote_peers };
        let mut keys = HashSet::with_capacity(remote.len());
        let mut routes = HashSet::with_capacity(map.routes.len());
        Self {
            serial: map.serial,
            own: map.peer_config.map(|config| own(config, &mut skipped)),
            peers: remote.into_iter().filter_map(|peer| remote_peer(peer, &mut keys, &mut skipped)).collect(),
            offline: map
                .offline_peers
                .into_iter()
                .filter_map(|peer| remote_peer(peer, &mut keys, &mut skipped))
                .collect(),
            routes: map.routes.into_iter().filter_map(|route| self::route(route, &mut routes, &mut skipped)).collect(),
            peer_rules: if legacy_peers {
                Rules::Legacy
            } else {
                Rules::List(peer_rules(map.firewall_rules, &mut texts, &mut skipped))
            },
            route_rules: if legacy_routes {
                Rules::Legacy
            } else {
                Rules::List(route_rules(map.routes_firewall_rules, &mut texts, &mut skipped))
            },
            forwarding_rules: map.forwarding_rules.len(),
            skipped,
        }
    }
}

/// Texts that many rules share.
#[derive(Default)]
struct Texts {
    known: HashSet<Arc<str>>,
}

impl Texts {
    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.known.insert(Arc::clone(&text));
        text
    }
}

fn remote_peer(
    peer: wire::RemotePeerConfig,
    known: &mut HashSet<PublicKey>,
    skipped: &mut Skipped,
) -> Option<RemotePeer> {
    let Some(key) = peer.wg_pub_key.parse().ok().filter(|key| known.insert(*key)) else {
        skipped.peers += 1;
        return None;
    };
    let mut allowed_ips = Vec::with_capacity(peer.allowed_ips.len());
    for text in &peer.allowed_ips {
        match prefix::cidr(text) {
            Some(net) => allowed_ips.push(net),
            None => skipped.addresses += 1,
        }
    }
    allowed_ips.sort();
    allowed_ips.dedup();
    Some(RemotePeer { key, allowed_ips, fqdn: peer.fqdn, agent_version: peer.agent_version })
}

fn route(route: wire::Route, known: &mut HashSet<String>, skipped: &mut Skipped) -> Option<Route> {
    let target = if route.domains.is_empty() {
        prefix::cidr(&route.network).map(RouteTarget::Prefix)
    } else {
        Some(RouteTarget::Domains(route.domains))
    };
    // A dynamic route without domains leads to its placeholder, which is nothing.
    let target = target.filter(|target| route.network_type != DOMAINS || matches!(target, RouteTarget::Domains(_)));
    let usable = target.zip(route.peer.parse().ok()).filter(|_| known.insert(route.id.clone()));
    let Some((target, router)) = usable else {
        skipped.routes += 1;
        return None;
    };
    Some(Route {
        id: route.id,
        net_id: route.net_id,
        target,
        router,
        metric: route.metric,
        masquerade: route.masquerade,
        skip_auto_apply: route.skip_auto_apply,
    })
}

fn peer_rules(rules: Vec<wire::FirewallRule>, texts: &mut Texts, skipped: &mut Skipped) -> Vec<PeerRule> {
    // The dataplane keeps state: what goes out is never filtered.
    let inbound = rules.into_iter().filter(|rule| rule.direction != wire::RuleDirection::Out as i32);
    let rule = |rule: wire::FirewallRule| {
        let known = rule.direction == wire::RuleDirection::In as i32;
        let understood = known.then(|| peer_rule(&rule, texts)).flatten();
        if understood.is_none() {
            skipped.peer_rules += 1;
        }
        understood
    };
    inbound.filter_map(rule).collect()
}

fn peer_rule(rule: &wire::FirewallRule, texts: &mut Texts) -> Option<PeerRule> {
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
        policy: texts.share(&String::from_utf8_lossy(&rule.policy_id)),
    };
    Some(PeerRule { source: prefix::source(source), matcher })
}

fn route_rules(rules: Vec<wire::RouteFirewallRule>, texts: &mut Texts, skipped: &mut Skipped) -> Vec<RouteRule> {
    let mut understood = Vec::with_capacity(rules.len());
    for rule in rules {
        match route_rule(rule, texts, skipped) {
            Some(rule) => understood.push(rule),
            None => skipped.route_rules += 1,
        }
    }
    understood
}

fn route_rule(rule: wire::RouteFirewallRule, texts: &mut Texts, skipped: &mut Skipped) -> Option<RouteRule> {
    let target = if rule.is_dynamic {
        RouteTarget::Domains(rule.domains)
    } else {
        RouteTarget::Prefix(prefix::cidr(&rule.destination)?)
    };
    let action = action(rule.action)?;
    let matcher = Matcher {
        protocol: protocol(rule.protocol)?,
        ports: selection(rule.port_info.as_ref()).ports(action)?,
        action,
        policy: texts.share(&String::from_utf8_lossy(&rule.policy_id)),
    };
    let mut sources = Vec::with_capacity(rule.source_ranges.len());
    for text in &rule.source_ranges {
        match prefix::cidr(text) {
            Some(net) => sources.push(net),
            None => skipped.addresses += 1,
        }
    }
    Some(RouteRule { sources, target, route: texts.share(&rule.route_id), matcher })
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
