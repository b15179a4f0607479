//! Rules: many of the wire become few of the dataplane.
//!
//! A server sends one rule for each address and port. What differs in one of sources, ports and destinations only is
//! put together, and all is sorted: servers send the same rules in changing order, which is no change.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _, HashSet};
use ipnet::IpNet;
use peer_core::desired::{Action, PortRange, Protocol, Route, Rule, Scope};

use super::Groups;
use crate::ids::Ids;
use crate::model::{Matcher, NetworkMap, PeerRule, RouteRule, RouteTarget, Rules};

/// Rules of both scopes, `own` being the addresses of this node. Of routes in `unserved` only what forbids is heard.
pub(super) fn of(
    map: &NetworkMap,
    own: &[IpNet],
    routes: &[Route],
    unserved: &HashSet<&str>,
    ids: &mut Ids,
) -> Vec<Rule> {
    let mut drafts = match &map.peer_rules {
        _ if own.is_empty() => Vec::new(),
        // Servers so old know no IPv6.
        Rules::Legacy => vec![Draft::permit(Scope::Node, &ANY[..1], own.to_vec())],
        Rules::List(rules) => of_peers(rules, own),
    };
    match &map.route_rules {
        _ if routes.is_empty() => {}
        Rules::Legacy => {
            let destinations = routes.iter().map(|route| route.destination).collect();
            drafts.push(Draft::permit(Scope::Route, &ANY, destinations));
        }
        Rules::List(rules) => drafts.extend(of_routes(rules, unserved)),
    }
    drafts.sort_by(|one, other| one.rank().cmp(&other.rank()));
    drafts.into_iter().map(|draft| draft.rule(ids)).collect()
}

fn of_peers(rules: &[PeerRule], own: &[IpNet]) -> Vec<Draft> {
    let mut sources: Groups<Subject, Vec<IpNet>> = Groups::new();
    for rule in rules {
        for subject in Subject::of(&rule.matcher) {
            sources.entry(subject).push(rule.source);
        }
    }
    let sources = sources.groups.into_iter().map(|(subject, sources)| (subject, sorted(sources)));
    let mut ports: Groups<_, Vec<Option<PortRange>>> = Groups::new();
    for (Subject { policy, action, protocol, ports: range }, sources) in sources {
        ports.entry((policy, action, protocol, sources)).push(range);
    }
    let draft = |((policy, action, protocol, sources), ports)| {
        let ports = merged(ports);
        Draft { policy, action, protocol, ports, sources, destinations: own.to_vec(), scope: Scope::Node }
    };
    ports.groups.into_iter().map(draft).collect()
}

fn of_routes(rules: &[Arc<RouteRule>], unserved: &HashSet<&str>) -> Vec<Draft> {
    // Long lists of sources are compared once, and by number from then on; lists that are the very same not even once.
    let mut sets: Groups<&[IpNet], ()> = Groups::new();
    let mut known: HashMap<*const IpNet, usize> = HashMap::new();
    // So are the names of policies.
    let mut policies: Groups<&str, ()> = Groups::new();
    let mut names: HashMap<*const u8, usize> = HashMap::new();
    let mut ports: Groups<_, Vec<Option<PortRange>>> = Groups::new();
    for rule in rules {
        let RouteTarget::Prefix(destination) = &rule.target else { continue };
        // What an exit node permits is everything: without one it would open the other routes.
        let unserved = destination.prefix_len() == 0 || unserved.contains(&*rule.route);
        if rule.sources.is_empty() || (unserved && rule.matcher.action == Action::Accept) {
            continue;
        }
        let set = *known.entry(rule.sources.as_ptr()).or_insert_with(|| sets.position(&rule.sources));
        let name = &*rule.matcher.policy;
        // An empty text has no place of its own.
        let policy = if name.is_empty() {
            policies.position("")
        } else {
            *names.entry(name.as_ptr()).or_insert_with(|| policies.position(name))
        };
        for (protocol, range) in subjects(&rule.matcher) {
            ports.entry((policy, rule.matcher.action, protocol, set, *destination)).push(range);
        }
    }
    let mut destinations: Groups<_, Vec<IpNet>> = Groups::new();
    for ((policy, action, protocol, set, destination), ports) in ports.groups {
        destinations.entry((policy, action, protocol, set, merged(ports))).push(destination);
    }
    let draft = |((policy, action, protocol, set, ports), destinations): ((usize, _, _, usize, _), _)| {
        let (sources, policy) = (sets.groups[set].0.to_vec(), policies.groups[policy].0.into());
        Draft { policy, action, protocol, ports, sources, destinations: sorted(destinations), scope: Scope::Route }
    };
    destinations.groups.into_iter().map(draft).collect()
}

/// A rule whose policy has no number yet.
struct Draft {
    policy: Arc<str>,
    action: Action,
    protocol: Protocol,
    /// Ascending and apart; empty: all.
    ports: Vec<PortRange>,
    sources: Vec<IpNet>,
    destinations: Vec<IpNet>,
    scope: Scope,
}

/// What tells traffic apart, but for addresses.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Subject {
    policy: Arc<str>,
    action: Action,
    protocol: Protocol,
    ports: Option<PortRange>,
}

impl Subject {
    fn of(matcher: &Matcher) -> impl Iterator<Item = Self> {
        subjects(matcher).map(|(protocol, ports)| Self {
            policy: Arc::clone(&matcher.policy),
            action: matcher.action,
            protocol,
            ports,
        })
    }
}

/// Ports belong to TCP and UDP only: with "all" they mean both, with ICMP nothing.
fn subjects(matcher: &Matcher) -> impl Iterator<Item = (Protocol, Option<PortRange>)> {
    let protocols: &[Protocol] = match (matcher.protocol, matcher.ports) {
        (Protocol::Any, Some(_)) => &[Protocol::Tcp, Protocol::Udp],
        (Protocol::Any, None) => &[Protocol::Any],
        (Protocol::Tcp, _) => &[Protocol::Tcp],
        (Protocol::Udp, _) => &[Protocol::Udp],
        (Protocol::Icmp, _) => &[Protocol::Icmp],
    };
    protocols.iter().map(|&protocol| {
        let ports = matcher.ports.filter(|_| matches!(protocol, Protocol::Tcp | Protocol::Udp));
        (protocol, ports)
    })
}

impl Draft {
    /// Everything is permitted.
    fn permit(scope: Scope, sources: &[IpNet], destinations: Vec<IpNet>) -> Self {
        Self {
            policy: Arc::from(""),
            action: Action::Accept,
            protocol: Protocol::Any,
            ports: Vec::new(),
            sources: sources.to_vec(),
            destinations,
            scope,
        }
    }

    fn rank(&self) -> impl Ord {
        let first = (self.scope as u8, &self.policy, self.action as u8, self.protocol as u8);
        let ports = self.ports.first().map(|range| (range.min, range.max));
        (first, self.ports.len(), ports, &self.destinations, &self.sources)
    }

    fn rule(self, ids: &mut Ids) -> Rule {
        let Self { policy, action, protocol, ports, sources, destinations, scope } = self;
        Rule { id: ids.number(&policy), sources, destinations, protocol, ports, action, scope }
    }
}

const ANY: [IpNet; 2] = [
    IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::UNSPECIFIED, 0)),
];

fn sorted(mut nets: Vec<IpNet>) -> Vec<IpNet> {
    nets.sort_unstable();
    nets.dedup();
    nets
}

/// Ranges in order, those that touch made one. `None`, all ports, takes in every range; so does their full union, because
/// traffic whose ports cannot be seen has one of them.
fn merged(ranges: Vec<Option<PortRange>>) -> Vec<PortRange> {
    let Some(mut ranges) = ranges.into_iter().collect::<Option<Vec<_>>>() else { return Vec::new() };
    ranges.sort_unstable_by_key(|range| (range.min, range.max));
    let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if u32::from(range.min) <= u32::from(last.max) + 1 => last.max = last.max.max(range.max),
            _ => merged.push(range),
        }
    }
    if merged == [PortRange { min: 0, max: u16::MAX }] { Vec::new() } else { merged }
}
