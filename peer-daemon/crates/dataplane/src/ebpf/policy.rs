//! From rules to the policy tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::Ipv6Net;
use peer_common::policy::{MAX_CELLS, MAX_DESTINATIONS, MAX_SOURCES};
use peer_common::{Answer, CellKey, CellKind, CellValue, RuleAction, RuleScope};
use peer_core::desired::Rule;
use peer_core::policy::compile::{Cell, CellScope, Compiled, Compiler, Kind, Limits, Outcome, Work};

use crate::Error;

mod answers;

/// What one half of the policy tables holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Identities.
    pub sources: Arc<BTreeMap<Ipv6Net, u32>>,
    /// Classes.
    pub destinations: Arc<BTreeMap<Ipv6Net, u32>>,
    /// What becomes of traffic, by prefix length and key.
    pub cells: Arc<BTreeMap<(u32, CellKey), CellValue>>,
    /// What all three say together of traffic to single addresses, by place.
    pub answers: Arc<BTreeMap<u32, Answer>>,
}

impl Policy {
    /// Compiles `rules`.
    ///
    /// # Errors
    /// When they make more than the tables can hold.
    pub fn of(rules: &[Rule]) -> Result<Self, Error> {
        Policies::default().next(&Rule::list(rules.iter().cloned())).map(|policy| (*policy).clone())
    }
}

/// One policy after the other: parts that stay are the very same.
#[derive(Debug, Default)]
pub(super) struct Policies {
    compiler: Compiler,
    last: Option<Last>,
}

/// Rules, what they were compiled to, and the tables for that.
#[derive(Debug)]
struct Last {
    rules: Arc<[Arc<Rule>]>,
    compiled: Compiled,
    policy: Arc<Policy>,
}

impl Policies {
    /// That of `rules`.
    pub(super) fn next(&mut self, rules: &Arc<[Arc<Rule>]>) -> Result<Arc<Policy>, Error> {
        if let Some(last) = self.last.as_ref().filter(|last| last.rules == *rules) {
            return Ok(Arc::clone(&last.policy));
        }
        let prefixes = MAX_SOURCES.min(MAX_DESTINATIONS) as usize;
        let compiled = self.compiler.compile(rules, &Limits { prefixes, cells: MAX_CELLS as usize })?;
        let same = self.last.as_ref().filter(|last| Arc::ptr_eq(&last.compiled.cells, &compiled.cells));
        let cells = match same {
            Some(last) => Arc::clone(&last.policy.cells),
            None => Arc::new(compiled.cells.iter().map(|(cell, outcome)| (key(cell), value(*outcome))).collect()),
        };
        let answers = match same.filter(|last| last.compiled.destinations == compiled.destinations) {
            Some(last) => Arc::clone(&last.policy.answers),
            None => Arc::new(answers::of(&compiled)),
        };
        let (sources, destinations) = (Arc::clone(&compiled.sources), Arc::clone(&compiled.destinations));
        let policy = Arc::new(Policy { sources, destinations, cells, answers });
        self.last = Some(Last { rules: Arc::clone(rules), compiled, policy: Arc::clone(&policy) });
        Ok(policy)
    }

    /// How many rules the last one has.
    pub(super) fn rules(&self) -> usize {
        self.last.as_ref().map_or(0, |last| last.rules.len())
    }

    /// What compiling took so far.
    pub(super) fn work(&self) -> Work {
        self.compiler.work()
    }
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
        assert_eq!(*policy.cells, [((CellKey::ALL_BITS, key), value)].into());
        let lens: Vec<u32> = policy.sources.keys().map(|net| net.prefix_len().into()).collect();
        assert_eq!(lens, [96, 106], "IPv4 lies in the mapped addresses, whose rest is nobody's");
    }
}
