//! Rules for traffic to and from the peer itself.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Account, Peer, Shape, compact, speaks_ipv6};
use crate::account::{Policy, Protocol};
use crate::proto::management::{FirewallRule, PortInfo, RuleDirection, RuleProtocol, port_info};

/// Ports of a rule on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ports {
    /// All of them.
    All,
    /// One.
    One(u16),
    /// First and last.
    Range(u16, u16),
}

/// Rules of all policies that concern the peer; whom they name is added to `reachable`.
pub(crate) fn peer_rules<'a>(
    account: &'a Account,
    own: &Peer,
    shape: Shape,
    reachable: &mut BTreeSet<&'a str>,
) -> Vec<FirewallRule> {
    let mut rules = Vec::new();
    for policy in account.policies.iter().filter(|policy| policy.enabled) {
        let (sources, destinations) = (account.members(&policy.sources), account.members(&policy.destinations));
        let (is_source, is_destination) = (sources.contains(own.key.as_str()), destinations.contains(own.key.as_str()));
        let mut inbound = BTreeSet::new();
        let mut outbound = BTreeSet::new();
        if is_source {
            outbound.extend(&destinations);
            if policy.bidirectional {
                inbound.extend(&destinations);
            }
        }
        if is_destination {
            inbound.extend(&sources);
            if policy.bidirectional {
                outbound.extend(&sources);
            }
        }
        for (others, direction) in [(inbound, RuleDirection::In), (outbound, RuleDirection::Out)] {
            let others = others.into_iter().filter(|key| *key != own.key);
            for other in others.filter_map(|key| account.peers.get(key)).filter(|peer| !peer.login_expired) {
                add_rules(&mut rules, policy, own, other, direction, shape);
            }
        }
        if is_source {
            reachable.extend(destinations);
        }
        if is_destination {
            reachable.extend(sources);
        }
    }
    if !shape.has_rules() {
        rules.clear();
    }
    rules
}

/// Protocol and ports of a policy, one entry for each rule on the wire.
pub(crate) fn ports_of(policy: &Policy) -> Vec<Ports> {
    if policy.protocol == Protocol::NetbirdSsh {
        return vec![Ports::One(22), Ports::One(22022)];
    }
    let single = policy.ports.iter().map(|&port| Ports::One(port));
    let ranges = policy.ranges.iter().map(|&(first, last)| Ports::Range(first, last));
    match (policy.protocol.has_ports(), policy.ports.is_empty(), policy.ranges.is_empty()) {
        (true, false, _) => single.collect(),
        (true, true, false) => ranges.collect(),
        _ => vec![Ports::All],
    }
}

impl Ports {
    /// As route rules have it: always there, empty for all ports.
    pub(crate) fn as_info(self) -> PortInfo {
        let range = |(start, end): (u16, u16)| port_info::Range { start: start.into(), end: end.into() };
        let selection = match self {
            Self::All => None,
            Self::One(port) => Some(port_info::PortSelection::Port(port.into())),
            Self::Range(first, last) => Some(port_info::PortSelection::Range(range((first, last)))),
        };
        PortInfo { port_selection: selection }
    }
}

fn add_rules(
    rules: &mut Vec<FirewallRule>,
    policy: &Policy,
    own: &Peer,
    other: &Peer,
    direction: RuleDirection,
    shape: Shape,
) {
    let address6 = other.address6.filter(|_| speaks_ipv6(own, shape));
    let addresses = [Some(IpAddr::from(other.address)), address6.map(IpAddr::from)];
    for (address, ports) in
        addresses.into_iter().flatten().flat_map(|address| ports_of(policy).into_iter().map(move |it| (address, it)))
    {
        let full = if address.is_ipv4() { 32 } else { 128 };
        rules.push(FirewallRule {
            peer_ip: address.to_string(),
            direction: direction.into(),
            action: policy.action.as_proto(),
            protocol: match policy.protocol {
                Protocol::NetbirdSsh => RuleProtocol::Tcp,
                other => other.as_proto(),
            }
            .into(),
            port: if let Ports::One(port) = ports { port.to_string() } else { String::new() },
            port_info: port_info(policy, ports),
            policy_id: policy.id.clone().into_bytes(),
            custom_protocol: 0,
            source_prefixes: if shape.has_ipv6() { vec![compact(address, full)] } else { Vec::new() },
        });
    }
}

/// Beside a single port nothing; without ports a range of zeros, where there could be ports: it means all of them.
fn port_info(policy: &Policy, ports: Ports) -> Option<PortInfo> {
    let ports = match ports {
        Ports::One(_) => return None,
        Ports::All => Ports::Range(0, 0),
        range @ Ports::Range(..) => range,
    };
    policy.protocol.has_ports().then(|| ports.as_info())
}
