//! From rules to the policy tables.

use std::collections::BTreeMap;

use ipnet::Ipv6Net;
use peer_common::policy::{MAX_CELLS, MAX_DESTINATIONS, MAX_SOURCES};
use peer_common::{Addr, Answer, CellKey, CellKind, CellValue, RuleAction, RuleScope};
use peer_core::desired::Rule;
use peer_core::policy::compile::{Cell, CellScope, Compiled, Kind, Limits, Outcome, compile};

use crate::Error;

mod answers;

/// What one half of the policy tables holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Identities, by prefix length and address.
    pub sources: BTreeMap<(u32, Addr), u32>,
    /// Classes, by prefix length and address.
    pub destinations: BTreeMap<(u32, Addr), u32>,
    /// What becomes of traffic, by prefix length and key.
    pub cells: BTreeMap<(u32, CellKey), CellValue>,
    /// What all three say together of traffic to single addresses, by place.
    pub answers: BTreeMap<u32, Answer>,
}

impl Policy {
    /// Compiles `rules`.
    ///
    /// # Errors
    /// When they make more than the tables can hold.
    pub fn of(rules: &[Rule]) -> Result<Self, Error> {
        let prefixes = MAX_SOURCES.min(MAX_DESTINATIONS) as usize;
        let compiled: Compiled = compile(rules, &Limits { prefixes, cells: MAX_CELLS as usize })?;
        let table = |table: &BTreeMap<Ipv6Net, u32>| table.iter().map(|(net, atom)| (prefix(net), *atom)).collect();
        Ok(Self {
            sources: table(&compiled.sources),
            destinations: table(&compiled.destinations),
            cells: compiled.cells.iter().map(|(cell, outcome)| (key(cell), value(*outcome))).collect(),
            answers: answers::of(&compiled),
        })
    }
}

fn prefix(net: &Ipv6Net) -> (u32, Addr) {
    (net.prefix_len().into(), net.network().into())
}

fn key(cell: &Cell) -> (u32, CellKey) {
    let Cell { identity, class, .. } = *cell;
    let key = CellKey { identity, class, scope: scope(cell.scope), kind: kind(cell.kind), port: cell.port.to_be() };
    (CellKey::BITS + u32::from(cell.port_bits), key)
}

fn scope(scope: CellScope) -> u8 {
    match scope {
        CellScope::Node => RuleScope::NODE,
        CellScope::Route => RuleScope::ROUTE,
    }
}

fn kind(kind: Kind) -> u8 {
    match kind {
        Kind::Icmp => CellKind::ICMP,
        Kind::Tcp => CellKind::TCP,
        Kind::Udp => CellKind::UDP,
        Kind::TcpBlind => CellKind::TCP_BLIND,
        Kind::UdpBlind => CellKind::UDP_BLIND,
        Kind::Other => CellKind::OTHER,
    }
}

fn value(outcome: Outcome) -> CellValue {
    match outcome {
        Outcome::Accept { rule } => CellValue { action: RuleAction::Accept as u32, rule },
        Outcome::Drop { rule } => CellValue { action: RuleAction::Drop as u32, rule },
    }
}

#[cfg(test)]
mod tests {
    use peer_core::desired::{Action, PortRange, Protocol, Scope};

    use super::*;

    #[test]
    fn keys_have_the_form_that_the_kernel_looks_up() {
        let rule = Rule {
            id: 4,
            sources: vec!["100.64.0.0/10".parse().expect("a prefix")],
            destinations: vec!["10.0.0.0/8".parse().expect("a prefix")],
            protocol: Protocol::Tcp,
            ports: vec![PortRange { min: 80, max: 80 }],
            action: Action::Accept,
            scope: Scope::Route,
        };
        let policy = Policy::of(&[rule]).expect("it fits");
        let key = CellKey { identity: 1, class: 1, scope: RuleScope::ROUTE, kind: CellKind::TCP, port: 80_u16.to_be() };
        let value = CellValue { action: RuleAction::Accept as u32, rule: 4 };
        assert_eq!(policy.cells, [((CellKey::ALL_BITS, key), value)].into());
        let lens: Vec<u32> = policy.sources.keys().map(|(len, _)| *len).collect();
        assert_eq!(lens, [96, 106], "IPv4 lies in the mapped addresses, whose rest is nobody's");
    }
}
