//! Routes, and the rules for traffic that a router forwards.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::rules::ports_of;
use super::{Account, Peer, Shape, speaks_ipv6};
use crate::account::{ClassicRoute, Destination, Policy, Resource, Router};
use crate::proto::management::{PortInfo, Route, RouteFirewallRule, RuleAction, RuleProtocol};

/// Stands for the addresses of a name.
const PLACEHOLDER: &str = "192.0.2.0/32";
/// Appended to the id of an exit node's other half.
const SECOND_EXIT: &str = "-v6-default";

/// Both lists; whom a route connects the peer with is added to `reachable`.
pub(crate) fn routes<'a>(
    account: &'a Account,
    own: &Peer,
    shape: Shape,
    reachable: &mut BTreeSet<&'a str>,
) -> (Vec<Route>, Vec<RouteFirewallRule>) {
    let mut found = Found { account, own, shape, routes: Vec::new(), rules: Vec::new() };
    for network in &account.networks {
        for resource in network.resources.iter().filter(|resource| resource.enabled) {
            found.resource(resource, &network.routers, reachable);
        }
    }
    for route in account.routes.iter().filter(|route| route.enabled) {
        found.classic(route, reachable);
    }
    if !shape.has_rules() {
        found.rules.clear();
    }
    (found.routes, found.rules)
}

struct Found<'a, 'b> {
    account: &'a Account,
    own: &'b Peer,
    shape: Shape,
    routes: Vec<Route>,
    rules: Vec<RouteFirewallRule>,
}

impl<'a> Found<'a, '_> {
    fn resource(&mut self, resource: &'a Resource, routers: &'a [Router], reachable: &mut BTreeSet<&'a str>) {
        let policies: Vec<_> = self.policies_to(&resource.groups).collect();
        let mut users = BTreeSet::new();
        for policy in &policies {
            users.extend(self.account.members(&policy.sources));
        }
        if policies.is_empty() {
            return;
        }
        for router in routers.iter().filter(|router| router.enabled) {
            for key in router.routers.keys(self.account) {
                let id = format!("{}:{key}", resource.id);
                let route = self.route(&id, &resource.name, &resource.destination, key, router.metric, true);
                let route = Route { masquerade: router.masquerade, ..route };
                if key == self.own.key {
                    self.routes.push(route);
                    for policy in &policies {
                        self.policy_rules(policy, &id, &resource.destination, false);
                    }
                    reachable.extend(&users);
                } else if users.contains(self.own.key.as_str()) {
                    self.routes.push(route);
                    reachable.insert(key);
                }
            }
        }
    }

    fn classic(&mut self, classic: &'a ClassicRoute, reachable: &BTreeSet<&'a str>) {
        let for_us = self.account.members(&classic.groups).contains(self.own.key.as_str());
        for key in classic.routers.keys(self.account) {
            let ours = key == self.own.key;
            if !(ours || for_us && reachable.contains(key)) {
                continue;
            }
            for (id, net_id, destination) in self.halves(classic) {
                let keep = !is_exit(&destination);
                let route = self.route(&id, &net_id, &destination, key, classic.metric, keep);
                self.routes.push(Route { masquerade: classic.masquerade, ..route });
                if ours {
                    self.classic_rules(classic, &id, &destination);
                }
            }
        }
    }

    /// An exit node of IPv4 brings one of IPv6 along.
    fn halves(&self, classic: &ClassicRoute) -> Vec<(String, String, Destination)> {
        let first = (classic.id.clone(), classic.net_id.clone(), classic.destination.clone());
        if !(is_exit(&classic.destination) && speaks_ipv6(self.own, self.shape)) {
            return vec![first];
        }
        let second = Destination::Prefix(IpNet::V6(ipnet::Ipv6Net::default()));
        let second = (format!("{}{SECOND_EXIT}", classic.id), format!("{}-v6", classic.net_id), second);
        vec![first, second]
    }

    fn classic_rules(&mut self, classic: &ClassicRoute, id: &str, destination: &Destination) {
        if classic.access_control_groups.is_empty() {
            let any = if is_v6(destination) { "::/0" } else { "0.0.0.0/0" };
            self.rules.push(RouteFirewallRule {
                source_ranges: vec![any.to_owned()],
                action: RuleAction::Accept.into(),
                protocol: RuleProtocol::All.into(),
                port_info: Some(PortInfo::default()),
                ..self.rule_to(id, destination)
            });
            return;
        }
        for policy in self.policies_to(&classic.access_control_groups).collect::<Vec<_>>() {
            self.policy_rules(policy, id, destination, self.shape.has_rules_without_sources());
        }
    }

    /// One rule for each port; for names, one for each family of sources besides.
    fn policy_rules(&mut self, policy: &Policy, id: &str, destination: &Destination, even_without_sources: bool) {
        let families: &[bool] = match destination {
            Destination::Prefix(prefix) => &[matches!(prefix, IpNet::V6(_))],
            Destination::Domain(_) if speaks_ipv6(self.own, self.shape) => &[false, true],
            Destination::Domain(_) => &[false],
        };
        for ports in ports_of(policy) {
            for &v6 in families {
                let source_ranges = self.sources(policy, v6);
                if source_ranges.is_empty() && !even_without_sources {
                    continue;
                }
                self.rules.push(RouteFirewallRule {
                    source_ranges,
                    action: policy.action.as_proto(),
                    protocol: policy.protocol.as_proto().into(),
                    port_info: Some(ports.as_info()),
                    policy_id: policy.id.clone().into_bytes(),
                    ..self.rule_to(id, destination)
                });
            }
        }
    }

    fn sources(&self, policy: &Policy, v6: bool) -> Vec<String> {
        let members = self.account.members(&policy.sources);
        let peers = members.into_iter().filter(|key| *key != self.own.key);
        let peers = peers.filter_map(|key| self.account.peers.get(key)).filter(|peer| !peer.login_expired);
        let addresses =
            peers.filter_map(|peer| if v6 { peer.address6.map(IpAddr::from) } else { Some(peer.address.into()) });
        addresses.map(|address| IpNet::from(address).to_string()).collect()
    }

    fn rule_to(&self, id: &str, destination: &Destination) -> RouteFirewallRule {
        let (text, domains) = texts(destination);
        RouteFirewallRule {
            destination: text,
            is_dynamic: !domains.is_empty(),
            domains,
            route_id: id.to_owned(),
            ..RouteFirewallRule::default()
        }
    }

    fn route(&self, id: &str, net_id: &str, to: &Destination, router: &str, metric: u16, keep: bool) -> Route {
        let (network, domains) = texts(to);
        Route {
            id: id.to_owned(),
            network,
            network_type: match to {
                Destination::Domain(_) => 3,
                Destination::Prefix(IpNet::V6(_)) => 2,
                Destination::Prefix(IpNet::V4(_)) => 1,
            },
            peer: router.to_owned(),
            metric: metric.into(),
            net_id: net_id.to_owned(),
            domains,
            keep_route: keep,
            ..Route::default()
        }
    }

    fn policies_to(&self, groups: &'a [String]) -> impl Iterator<Item = &'a Policy> {
        let targets = move |policy: &&Policy| policy.destinations.iter().any(|group| groups.contains(group));
        self.account.policies.iter().filter(|policy| policy.enabled).filter(targets)
    }
}

fn texts(destination: &Destination) -> (String, Vec<String>) {
    match destination {
        Destination::Prefix(prefix) => (prefix.to_string(), Vec::new()),
        Destination::Domain(domain) => (PLACEHOLDER.to_owned(), vec![domain.clone()]),
    }
}

fn is_exit(destination: &Destination) -> bool {
    matches!(destination, Destination::Prefix(prefix) if prefix.prefix_len() == 0)
}

fn is_v6(destination: &Destination) -> bool {
    matches!(destination, Destination::Prefix(IpNet::V6(_)))
}
