//! The rules of a message, judged straight from the wire: naive on purpose, and on its own.

use std::net::IpAddr;

use ipnet::IpNet;
use peer_core::desired::Scope;
use peer_core::key::PublicKey;
use peer_core::policy::Query;
use peer_netbird::proto::management::{self as wire, NetworkMap, PortInfo, port_info::Selection};

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It passes, by one of these policies.
    Accept(Vec<String>),
    /// It is dropped, by one of these policies.
    Drop(Vec<String>),
    /// Nothing speaks of it.
    Default,
}

/// Judges `query` under the rules of `map` for the peer whose key is `own`.
pub(crate) fn judge(map: &NetworkMap, own: &str, query: &Query) -> Judgement {
    // Before a list is walked at all: is there one?
    let (empty, said) = match query.scope {
        Scope::Node => (map.firewall_rules.is_empty(), map.firewall_rules_is_empty),
        _ => (map.routes_firewall_rules.is_empty(), map.routes_firewall_rules_is_empty),
    };
    let served = served(map, own);
    if query.scope == Scope::Route && served.is_empty() {
        return Judgement::Default;
    }
    if empty && !said {
        let open = match query.scope {
            Scope::Node => query.source.is_ipv4(),
            _ => served.iter().any(|net| net.contains(&query.destination)),
        };
        return if open { Judgement::Accept(vec![String::new()]) } else { Judgement::Default };
    }
    let matching: Vec<(i32, String)> = match query.scope {
        Scope::Node => map.firewall_rules.iter().filter_map(|rule| peer_rule(rule, query)).collect(),
        _ => map.routes_firewall_rules.iter().filter_map(|rule| route_rule(rule, map, own, query)).collect(),
    };
    let by = |action: wire::RuleAction| -> Vec<String> {
        matching.iter().filter(|(this, _)| *this == action as i32).map(|(_, policy)| policy.clone()).collect()
    };
    let (drops, accepts) = (by(wire::RuleAction::Drop), by(wire::RuleAction::Accept));
    if !drops.is_empty() {
        Judgement::Drop(drops)
    } else if !accepts.is_empty() {
        Judgement::Accept(accepts)
    } else {
        Judgement::Default
    }
}

/// Prefixes this peer is the router of.
fn served(map: &NetworkMap, own: &str) -> Vec<IpNet> {
    let mine = understood(map).into_iter().filter(|route| route.peer == own && route.domains.is_empty());
    mine.filter_map(|route| route.network.parse().ok()).filter(|net: &IpNet| net.prefix_len() > 0).collect()
}

/// Routes that lead somewhere and have a router, the first of each id.
fn understood(map: &NetworkMap) -> Vec<&wire::Route> {
    let mut routes: Vec<&wire::Route> = Vec::new();
    for route in &map.routes {
        let prefix = route.network_type != 3 && route.network.parse::<IpNet>().is_ok();
        let router = route.peer.parse::<PublicKey>().is_ok();
        if router && (prefix || !route.domains.is_empty()) && routes.iter().all(|known| known.id != route.id) {
            routes.push(route);
        }
    }
    routes
}

fn peer_rule(rule: &wire::FirewallRule, query: &Query) -> Option<(i32, String)> {
    if rule.direction != 0 {
        return None;
    }
    let address: IpAddr = match rule.source_prefixes.first().map(Vec::as_slice) {
        Some([a, b, c, d, length]) if *length <= 32 => IpAddr::from([*a, *b, *c, *d]),
        Some(bytes) if bytes.len() == 17 && bytes[16] <= 128 => {
            IpAddr::from(<[u8; 16]>::try_from(&bytes[..16]).expect("16 bytes"))
        }
        Some(_) => return None,
        None => rule.peer_ip.parse().ok()?,
    };
    let from = address == query.source || (address.is_unspecified() && address.is_ipv4() == query.source.is_ipv4());
    let port = if rule.port.is_empty() { None } else { Some(&*rule.port) };
    let applies = from
        && protocol(rule.protocol, query)
        && ports(rule.protocol, rule.port_info.as_ref(), port, rule.action, query);
    applies.then(|| (rule.action, String::from_utf8_lossy(&rule.policy_id).into_owned()))
}

fn route_rule(rule: &wire::RouteFirewallRule, map: &NetworkMap, own: &str, query: &Query) -> Option<(i32, String)> {
    let destination: IpNet = rule.destination.parse().ok()?;
    if rule.is_dynamic || !destination.contains(&query.destination) {
        return None;
    }
    // What belongs to a route that is not served yet permits nothing.
    let unserved = understood(map).into_iter().any(|route| {
        let default = route.network.parse::<IpNet>().is_ok_and(exit_node);
        route.id == rule.route_id && route.peer == own && (default || !route.domains.is_empty())
    });
    if rule.action == 0 && (unserved || exit_node(destination)) {
        return None;
    }
    let from =
        rule.source_ranges.iter().filter_map(|text| text.parse::<IpNet>().ok()).any(|net| net.contains(&query.source));
    let applies = from
        && protocol(rule.protocol, query)
        && ports(rule.protocol, rule.port_info.as_ref(), None, rule.action, query);
    applies.then(|| (rule.action, String::from_utf8_lossy(&rule.policy_id).into_owned()))
}

/// The Internet of a family, or the half of it with the lower or the upper addresses.
fn exit_node(net: IpNet) -> bool {
    matches!(net.to_string().as_str(), "0.0.0.0/0" | "0.0.0.0/1" | "128.0.0.0/1" | "::/0" | "::/1" | "8000::/1")
}

fn protocol(number: i32, query: &Query) -> bool {
    match number {
        1 => true,
        2 => query.protocol == 6,
        3 => query.protocol == 17,
        4 => matches!(query.protocol, 1 | 58),
        _ => false,
    }
}

fn ports(protocol: i32, info: Option<&PortInfo>, text: Option<&str>, action: i32, query: &Query) -> bool {
    let range = match info.and_then(|info| info.selection) {
        Some(Selection::Port(port)) if port != 0 => Some((port, port)),
        Some(Selection::Range(range)) if (range.start, range.end) != (0, 0) => Some((range.start, range.end)),
        _ => match text.map(str::parse::<u16>) {
            None => return true,
            Some(Ok(port)) => Some((port.into(), port.into())),
            Some(Err(_)) => None,
        },
    };
    let Some((first, last)) = range.filter(|(first, last)| first <= last && *last <= 0xffff) else {
        // Invalid ports permit nothing, and forbid everything.
        return action == wire::RuleAction::Drop as i32;
    };
    match (query.protocol, query.destination_port) {
        // Ports say nothing of ICMP; "every protocol on a port" is TCP and UDP.
        (6 | 17, Some(port)) => (first..=last).contains(&port.into()),
        (6 | 17, None) => (first, last) == (0, 0xffff),
        _ => protocol == 4,
    }
}
