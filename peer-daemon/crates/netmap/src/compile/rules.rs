//! Rules: many of the wire become few of the dataplane.
//!
//! A server sends one rule for each address and port. What differs in one of sources, ports and destinations only is
//! put together, and all is sorted: servers send the same rules in changing order, which is no change.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};
use ipnet::IpNet;
use peer_core::desired::{Action, PortRange, Protocol, Route, Rule, Scope};
use peer_core::net::is_whole_internet;

use super::Groups;
use crate::ids::Ids;
use crate::model::{Matcher, NetworkMap, PeerRule, RouteRule, RouteTarget, Rules};

/// Compiles the rules of one map after the other. Those of one policy do not depend on those of another: what a policy says
/// now as it did before was compiled already, and its rules are the very same.
#[derive(Debug, Default)]
pub(super) struct Rulebook {
    peers: Buckets<PeerRule, Vec<IpNet>>,
    routes: Buckets<Arc<RouteRule>, Unserved>,
}

/// Ids of routes that name this node and are not served.
pub(super) type Unserved = BTreeSet<String>;

/// What the policies of one scope said, and what was made of it; beside, what that depends on, too.
#[derive(Debug)]
struct Buckets<T, C> {
    context: C,
    policies: HashMap<Arc<str>, Bucket<T>>,
}

#[derive(Debug)]
struct Bucket<T> {
    said: Vec<T>,
    /// Number of the policy.
    id: u32,
    made: Vec<Arc<Rule>>,
}

impl Rulebook {
    /// Rules of both scopes, `own` being the addresses of this node. Of routes in `unserved` only what forbids is heard.
    pub(super) fn next(
        &mut self,
        map: &NetworkMap,
        own: &[IpNet],
        routes: &[Route],
        unserved: &Unserved,
        ids: &mut Ids,
    ) -> Vec<Arc<Rule>> {
        let mut all = Vec::new();
        match &map.peer_rules {
            _ if own.is_empty() => {}
            // Servers so old know no IPv6.
            Rules::Legacy => all.push(Draft::permit(Scope::Node, &ANY[..1], own.to_vec()).rule(ids.number(&"".into()))),
            Rules::List(rules) => {
                self.peers.clear_unless(&own.to_vec());
                let policies = by_policy(rules, |rule| &rule.matcher.policy);
                self.peers.next(policies, ids, &mut all, |rules| of_peers(rules, own));
            }
        }
        match &map.route_rules {
            _ if routes.is_empty() => {}
            Rules::Legacy => {
                let destinations = routes.iter().map(|route| route.destination).collect();
                all.push(Draft::permit(Scope::Route, &ANY, destinations).rule(ids.number(&"".into())));
            }
            Rules::List(rules) => {
                self.routes.clear_unless(unserved);
                let policies = by_policy(rules, |rule| &rule.matcher.policy);
                self.routes.next(policies, ids, &mut all, |rules| of_routes(rules, unserved));
            }
        }
        all
    }
}

impl<T, C: Default> Default for Buckets<T, C> {
    fn default() -> Self {
        Self { context: C::default(), policies: HashMap::new() }
    }
}

impl<T, C> Buckets<T, C> {
    /// What was made in another context is worth nothing.
    fn clear_unless(&mut self, context: &C)
    where
        C: Clone + PartialEq,
    {
        if self.context != *context {
            self.context.clone_from(context);
            self.policies.clear();
        }
    }

    /// Appends the rules of all policies, in the order of their texts. What the map does not name any more is forgotten.
    fn next(
        &mut self,
        policies: Vec<(&Arc<str>, Vec<&T>)>,
        ids: &mut Ids,
        all: &mut Vec<Arc<Rule>>,
        compile: impl Fn(&[&T]) -> Vec<Draft>,
    ) where
        T: Clone + PartialEq,
    {
        let mut next = HashMap::with_capacity(policies.len());
        for (policy, says) in policies {
            let id = ids.number(policy);
            let known = self.policies.remove(policy);
            let known = known.filter(|known| known.id == id && known.said.iter().eq(says.iter().copied()));
            let bucket = known.unwrap_or_else(|| {
                let mut drafts = compile(&says);
                drafts.sort_by(|one, other| one.rank().cmp(&other.rank()));
                let made = drafts.into_iter().map(|draft| draft.rule(id)).collect();
                Bucket { said: says.into_iter().cloned().collect(), id, made }
            });
            all.extend(bucket.made.iter().cloned());
            next.insert(Arc::clone(policy), bucket);
        }
        self.policies = next;
    }
}

/// What each policy says, in the order of their texts: servers send the same rules in changing order, which is no change.
fn by_policy<T>(rules: &[T], policy: impl Fn(&T) -> &Arc<str>) -> Vec<(&Arc<str>, Vec<&T>)> {
    let mut policies: Groups<&Arc<str>, Vec<&T>> = Groups::new();
    // A text is mostly the very same as that of the rule before, or of another one.
    let mut names: HashMap<*const u8, usize> = HashMap::new();
    for rule in rules {
        let policy = policy(rule);
        // An empty text has no place of its own.
        let position = if policy.is_empty() {
            policies.position(policy)
        } else {
            *names.entry(policy.as_ptr()).or_insert_with(|| policies.position(policy))
        };
        policies.groups[position].1.push(rule);
    }
    policies.groups.sort_unstable_by_key(|(policy, _)| *policy);
    policies.groups
}

fn of_peers(rules: &[&PeerRule], own: &[IpNet]) -> Vec<Draft> {
    let mut sources: Groups<Subject, Vec<IpNet>> = Groups::new();
    for rule in rules {
        for subject in Subject::of(&rule.matcher) {
            sources.entry(subject).push(rule.source);
        }
    }
    let sources = sources.groups.into_iter().map(|(subject, sources)| (subject, sorted(sources)));
    let mut ports: Groups<_, Vec<Option<PortRange>>> = Groups::new();
    for (Subject { action, protocol, ports: range }, sources) in sources {
        ports.entry((action, protocol, sources)).push(range);
    }
    let draft = |((action, protocol, sources), ports)| Draft {
        action,
        protocol,
        ports: merged(ports),
        sources,
        destinations: own.to_vec(),
        scope: Scope::Node,
    };
    ports.groups.into_iter().map(draft).collect()
}

fn of_routes(rules: &[&Arc<RouteRule>], unserved: &Unserved) -> Vec<Draft> {
    // Long lists of sources are compared once, and by number from then on; lists that are the very same not even once.
    let mut sets: Groups<&[IpNet], ()> = Groups::new();
    let mut known: HashMap<*const IpNet, usize> = HashMap::new();
    let mut ports: Groups<_, Vec<Option<PortRange>>> = Groups::new();
    for rule in rules {
        let RouteTarget::Prefix(destination) = &rule.target else { continue };
        // What an exit node permits is everything: without one it would open the other routes.
        let unserved = is_whole_internet(destination) || unserved.contains(&*rule.route);
        if rule.sources.is_empty() || (unserved && rule.matcher.action == Action::Accept) {
            continue;
        }
        let set = *known.entry(rule.sources.as_ptr()).or_insert_with(|| sets.position(&rule.sources));
        for Subject { action, protocol, ports: range } in Subject::of(&rule.matcher) {
            ports.entry((action, protocol, set, *destination)).push(range);
        }
    }
    let mut destinations: Groups<_, Vec<IpNet>> = Groups::new();
    for ((action, protocol, set, destination), ports) in ports.groups {
        destinations.entry((action, protocol, set, merged(ports))).push(destination);
    }
    let draft = |((action, protocol, set, ports), destinations): ((_, _, usize, _), _)| {
        let (sources, destinations) = (sets.groups[set].0.to_vec(), sorted(destinations));
        Draft { action, protocol, ports, sources, destinations, scope: Scope::Route }
    };
    destinations.groups.into_iter().map(draft).collect()
}

/// A rule without its policy.
struct Draft {
    action: Action,
    protocol: Protocol,
    /// Ascending and apart; empty: all.
    ports: Vec<PortRange>,
    sources: Vec<IpNet>,
    destinations: Vec<IpNet>,
    scope: Scope,
}

/// What tells traffic apart, but for addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Subject {
    action: Action,
    protocol: Protocol,
    ports: Option<PortRange>,
}

impl Subject {
    /// Ports belong to TCP and UDP only: with "all" they mean both, with ICMP nothing.
    fn of(matcher: &Matcher) -> impl Iterator<Item = Self> {
        let protocols: &[Protocol] = match (matcher.protocol, matcher.ports) {
            (Protocol::Any, Some(_)) => &[Protocol::Tcp, Protocol::Udp],
            (Protocol::Any, None) => &[Protocol::Any],
            (Protocol::Tcp, _) => &[Protocol::Tcp],
            (Protocol::Udp, _) => &[Protocol::Udp],
            (Protocol::Icmp, _) => &[Protocol::Icmp],
        };
        protocols.iter().map(|&protocol| {
            let ports = matcher.ports.filter(|_| matches!(protocol, Protocol::Tcp | Protocol::Udp));
            Self { action: matcher.action, protocol, ports }
        })
    }
}

impl Draft {
    /// Everything is permitted.
    fn permit(scope: Scope, sources: &[IpNet], destinations: Vec<IpNet>) -> Self {
        let (action, protocol, ports) = (Action::Accept, Protocol::Any, Vec::new());
        Self { action, protocol, ports, sources: sources.to_vec(), destinations, scope }
    }

    fn rank(&self) -> impl Ord {
        let ports = self.ports.first().map(|range| (range.min, range.max));
        let first = (self.action as u8, self.protocol as u8, self.ports.len(), ports);
        (first, &self.destinations, &self.sources)
    }

    fn rule(self, id: u32) -> Arc<Rule> {
        let Self { action, protocol, ports, sources, destinations, scope } = self;
        Arc::new(Rule { id, sources, destinations, protocol, ports, action, scope })
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
