//! Prepared answers: what the tables say of the traffic that the rules of one destination speak of most.

use std::collections::BTreeMap;

use peer_common::{Addr, Answer};
use peer_core::policy::compile::{Cell, CellScope, Compiled, Outcome};

use super::{kind, scope, value};

/// Ports of an identity and a class under one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    identity: u32,
    class: u32,
    scope: CellScope,
    port_min: u16,
    port_max: u16,
    outcome: Outcome,
    /// Bit `1 << kind` of each kind of traffic.
    kinds: u8,
}

/// An answer for each destination of one address whose place is free.
pub(super) fn of(compiled: &Compiled) -> BTreeMap<u32, Answer> {
    let best = best(&compiled.cells);
    let mut answers = BTreeMap::new();
    for (net, class) in compiled.destinations.iter().filter(|(net, _)| net.prefix_len() == 128) {
        let destination = Addr::from(net.network());
        if let Some(answer) = best.get(class).and_then(|range| answer(destination, range)) {
            answers.entry(Answer::place(&destination)).or_insert(answer);
        }
    }
    answers
}

/// `None`: a number does not fit.
fn answer(destination: Addr, range: &Range) -> Option<Answer> {
    let value = value(range.outcome);
    Some(Answer {
        destination,
        rule: value.rule,
        identity: range.identity.try_into().ok()?,
        class: range.class.try_into().ok()?,
        port_min: range.port_min,
        port_max: range.port_max,
        scope: scope(range.scope),
        kinds: range.kinds,
        action: u8::try_from(value.action).ok()?,
        pad: 0,
    })
}

/// Of each class, the range that most kinds of traffic share.
fn best(cells: &BTreeMap<Cell, Outcome>) -> BTreeMap<u32, Range> {
    let mut best: BTreeMap<u32, Range> = BTreeMap::new();
    let cells: Vec<(&Cell, &Outcome)> = cells.iter().collect();
    // Cells of one identity, class and scope stand together.
    for together in cells.chunk_by(|(one, _), (other, _)| pair(one) == pair(other)) {
        let mut shared: Vec<Range> = Vec::new();
        for range in ranges(together) {
            let ports = |range: &Range| (range.port_min, range.port_max, range.outcome);
            match shared.iter_mut().find(|other| ports(other) == ports(&range)) {
                Some(other) => other.kinds |= range.kinds,
                None => shared.push(range),
            }
        }
        for range in shared {
            let known = best.entry(range.class).or_insert(range);
            if range.kinds.count_ones() > known.kinds.count_ones() {
                *known = range;
            }
        }
    }
    best
}

/// Joins cells whose ports follow one another.
fn ranges(cells: &[(&Cell, &Outcome)]) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for &(cell, &outcome) in cells {
        let &Cell { identity, class, scope, port: port_min, .. } = cell;
        let port_max = port_min | u16::MAX.checked_shr(cell.port_bits.into()).unwrap_or(0);
        let kinds = 1 << kind(cell.kind);
        match ranges.last_mut() {
            Some(last)
                if (last.kinds, last.outcome) == (kinds, outcome) && last.port_max.checked_add(1) == Some(port_min) =>
            {
                last.port_max = port_max;
            }
            _ => ranges.push(Range { identity, class, scope, port_min, port_max, outcome, kinds }),
        }
    }
    ranges
}

fn pair(cell: &Cell) -> (u32, u32, CellScope) {
    (cell.identity, cell.class, cell.scope)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use peer_common::{CellKind, RuleAction, RuleScope};
    use peer_core::desired::{Action, PortRange, Protocol, Rule, Scope};

    use super::super::Policy;
    use super::*;

    fn rule(destination: &str, protocol: Protocol, ports: &[(u16, u16)]) -> Rule {
        Rule {
            id: 4,
            sources: vec!["100.64.0.0/10".parse().expect("a prefix")],
            destinations: vec![destination.parse().expect("a prefix")],
            protocol,
            ports: ports.iter().map(|&(min, max)| PortRange { min, max }).collect(),
            action: Action::Accept,
            scope: Scope::Route,
        }
    }

    fn only(rules: &[Rule]) -> Answer {
        let answers = Policy::of(rules).expect("it fits").answers;
        assert_eq!(answers.len(), 1);
        *answers.values().next().expect("one")
    }

    #[test]
    fn a_host_has_the_answer_of_its_rule() {
        let answer = only(&[rule("192.0.2.1/32", Protocol::Tcp, &[(80, 89)])]);
        let destination: Addr = "192.0.2.1".parse::<IpAddr>().expect("an address").into();
        let ports = (answer.port_min, answer.port_max);
        assert_eq!((answer.destination, answer.rule, ports), (destination, 4, (80, 89)));
        assert_eq!((answer.identity, answer.class, answer.scope), (1, 1, RuleScope::ROUTE));
        assert_eq!((answer.kinds, answer.action), (1 << CellKind::TCP, RuleAction::Accept as u8));
    }

    #[test]
    fn a_rule_for_all_traffic_is_one_answer() {
        let answer = only(&[rule("192.0.2.1/32", Protocol::Any, &[])]);
        assert_eq!((answer.port_min, answer.port_max, answer.kinds), (0, u16::MAX, 0b111_1110));
    }

    #[test]
    fn an_answer_ends_where_another_rule_begins() {
        let deny = Rule { id: 5, action: Action::Drop, ..rule("192.0.2.0/24", Protocol::Tcp, &[(100, u16::MAX)]) };
        let answer = only(&[rule("192.0.2.1/32", Protocol::Any, &[]), deny]);
        assert_eq!(answer.kinds & 1 << CellKind::TCP, 0, "TCP has two outcomes, the others one: {answer:?}");
        assert_eq!(answer.kinds & 1 << CellKind::UDP, 1 << CellKind::UDP);
    }

    #[test]
    fn networks_have_none_and_of_two_hosts_in_one_place_one_has() {
        assert!(Policy::of(&[rule("192.0.2.0/24", Protocol::Any, &[])]).expect("it fits").answers.is_empty());
        // The places of 10.0.0.1 and 10.0.128.1 are the same.
        only(&[rule("10.0.0.1/32", Protocol::Any, &[]), rule("10.0.128.1/32", Protocol::Any, &[])]);
    }
}
