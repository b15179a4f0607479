//! Reference evaluator of rules: naive on purpose, the oracle of every dataplane. [`compile`] makes of them what a dataplane
//! looks up.
//!
//! Drop beats accept whatever the order of rules; what no rule accepts is [`Verdict::Default`], which a dataplane drops.

pub mod compile;

use std::borrow::Borrow;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::desired::{Action, PortRange, Protocol, Rule, Scope};

/// What wants to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// Source address. An IPv4 address may be mapped.
    pub source: IpAddr,
    /// Destination address. An IPv4 address may be mapped.
    pub destination: IpAddr,
    /// IP protocol number. 58 (ICMPv6) counts as 1 (ICMP).
    pub protocol: u8,
    /// Destination port, host byte order. `None` for protocols without ports, and where the ports cannot be seen (a
    /// later fragment, an IP option). Ignored unless the protocol is TCP or UDP.
    pub destination_port: Option<u16>,
    /// Which traffic it is. [`Scope::Both`] for an own address that a served route covers: rules of either scope speak
    /// of it.
    pub scope: Scope,
}

/// The answer. The rule in it is the first that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// At least one rule accepts and none drops.
    Accept {
        /// Id of the first accepting rule.
        rule: u32,
    },
    /// At least one rule drops.
    Drop {
        /// Id of the first dropping rule.
        rule: u32,
    },
    /// No rule speaks of it.
    Default,
}

/// Judges `query` under `rules`.
#[must_use]
pub fn evaluate<R: Borrow<Rule>>(rules: &[R], query: &Query) -> Verdict {
    let rules = rules.iter().map(Borrow::borrow);
    let first = |action| rules.clone().find(|rule| rule.action == action && matches(rule, query));
    if let Some(rule) = first(Action::Drop) {
        return Verdict::Drop { rule: rule.id };
    }
    first(Action::Accept).map_or(Verdict::Default, |rule| Verdict::Accept { rule: rule.id })
}

fn matches(rule: &Rule, query: &Query) -> bool {
    scope_matches(rule.scope, query.scope)
        && protocol_matches(rule.protocol, query.protocol)
        && ports_match(&rule.ports, visible_port(query))
        && addresses_match(rule, query)
}

fn scope_matches(rule: Scope, query: Scope) -> bool {
    rule == query || rule == Scope::Both || query == Scope::Both
}

fn protocol_matches(rule: Protocol, number: u8) -> bool {
    match rule {
        Protocol::Any => true,
        Protocol::Icmp => matches!(number, ICMP | ICMPV6),
        Protocol::Tcp => number == TCP,
        Protocol::Udp => number == UDP,
    }
}

fn visible_port(query: &Query) -> Option<u16> {
    query.destination_port.filter(|_| matches!(query.protocol, TCP | UDP))
}

/// What shows no port needs a rule for all ports: a narrower one cannot be told to hold.
fn ports_match(ranges: &[PortRange], port: Option<u16>) -> bool {
    let all = |range: &PortRange| range.min == 0 && range.max == u16::MAX;
    match port {
        Some(port) => ranges.is_empty() || ranges.iter().any(|range| (range.min..=range.max).contains(&port)),
        None => ranges.is_empty() || ranges.iter().any(all),
    }
}

/// A source and a destination of the rule, both of one family, cover the query's.
fn addresses_match(rule: &Rule, query: &Query) -> bool {
    rule.sources.iter().filter(|prefix| covers(prefix, query.source)).any(|source| {
        let same_family = |prefix: &IpNet| prefix.addr().is_ipv4() == source.addr().is_ipv4();
        rule.destinations.iter().any(|prefix| same_family(prefix) && covers(prefix, query.destination))
    })
}

/// Whether `prefix` covers `addr`. `::/0` covers no IPv4 address, mapped or not.
fn covers(prefix: &IpNet, addr: IpAddr) -> bool {
    match (prefix, addr.to_canonical()) {
        (IpNet::V4(prefix), IpAddr::V4(addr)) => prefix.contains(&addr),
        (IpNet::V6(prefix), IpAddr::V6(addr)) => prefix.contains(&addr),
        (IpNet::V6(prefix), IpAddr::V4(addr)) => {
            let mapped = prefix.network().to_ipv4_mapped().is_some();
            mapped && prefix.contains(&addr.to_ipv6_mapped())
        }
        (IpNet::V4(_), IpAddr::V6(_)) => false,
    }
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

#[cfg(test)]
mod tests;
