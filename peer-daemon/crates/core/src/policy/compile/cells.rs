//! Which rules speak of each pair of atoms, and what they say together.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

use super::atoms::{Atom, Atoms};
use super::{Cell, CellScope, Kind, Outcome, TooLarge, port_prefixes};
use crate::desired::{Action, PortRange, Protocol, Rule, Scope};

const ALL_PORTS: PortRange = PortRange { min: 0, max: u16::MAX };

/// How many times more rules than cells may meet: what meets in vain costs time only.
const MEETINGS: usize = 8;

/// What becomes of each kind of traffic between two atoms.
type Lines = Rc<[(CellScope, Kind, u16, u8, Outcome)]>;

pub(super) fn of(
    rules: &[Arc<Rule>],
    sources: &Atoms,
    destinations: &Atoms,
    limit: usize,
) -> Result<BTreeMap<Cell, Outcome>, TooLarge> {
    let meetings = meetings(sources, destinations, limit)?;
    // Many pairs are met by the same rules.
    let mut known: HashMap<Vec<u32>, Lines> = HashMap::new();
    let mut cells = Vec::new();
    for pair in meetings.chunk_by(|one, other| (one.identity, one.class) == (other.identity, other.class)) {
        let Meeting { identity, class, .. } = pair[0];
        let positions = pair.iter().map(|meeting| meeting.rule).collect();
        let lines = known.entry(positions).or_insert_with_key(|positions| lines(rules, positions));
        if cells.len() + lines.len() > limit {
            return Err(TooLarge { what: "cells", needed: cells.len() + lines.len(), limit });
        }
        cells.extend(lines.iter().map(|&(scope, kind, port, port_bits, outcome)| {
            (Cell { identity, class, scope, kind, port, port_bits }, outcome)
        }));
    }
    Ok(cells.into_iter().collect())
}

/// A rule that speaks of a pair of atoms.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Meeting {
    identity: Atom,
    class: Atom,
    /// Its position.
    rule: u32,
}

/// All of them, in order.
fn meetings(sources: &Atoms, destinations: &Atoms, limit: usize) -> Result<Vec<Meeting>, TooLarge> {
    let limit = limit.saturating_mul(MEETINGS);
    let mut meetings = Vec::new();
    for half in sources.halves() {
        let (identities, classes) = (sources.with(half), destinations.with(half));
        let needed = identities.len().saturating_mul(classes.len()).saturating_add(meetings.len());
        if needed > limit {
            return Err(TooLarge { what: "meetings of overlapping prefixes", needed, limit });
        }
        let rule = half.rule;
        meetings.extend(
            identities.iter().flat_map(|&identity| classes.iter().map(move |&class| Meeting { identity, class, rule })),
        );
    }
    meetings.sort_unstable();
    // The two halves of a rule may meet in one pair.
    meetings.dedup();
    Ok(meetings)
}

/// What the rules at these positions say together.
fn lines(rules: &[Arc<Rule>], positions: &[u32]) -> Lines {
    let mut lines = Vec::new();
    for scope in [CellScope::Node, CellScope::Route] {
        let speaking: Vec<u32> =
            positions.iter().copied().filter(|&position| speaks(&rules[position as usize], scope)).collect();
        for kind in Kind::ALL {
            for (range, outcome) in outcomes(rules, &speaking, kind) {
                lines.extend(port_prefixes(range).map(|(port, bits)| (scope, kind, port, bits, outcome)));
            }
        }
    }
    lines.into()
}

fn speaks(rule: &Rule, scope: CellScope) -> bool {
    match scope {
        CellScope::Node => rule.scope != Scope::Route,
        CellScope::Route => rule.scope != Scope::Node,
    }
}

/// Disjoint ranges of ports and what becomes of each; of kinds without ports, all ports stand for the whole.
fn outcomes(rules: &[Arc<Rule>], speaking: &[u32], kind: Kind) -> Vec<(PortRange, Outcome)> {
    let mut starts: BTreeMap<u32, Vec<(u32, bool)>> = BTreeMap::new();
    for &position in speaking {
        for range in ranges(&rules[position as usize], kind) {
            starts.entry(range.min.into()).or_default().push((position, true));
            starts.entry(u32::from(range.max) + 1).or_default().push((position, false));
        }
    }
    let mut open = Open::default();
    let mut outcomes: Vec<(PortRange, Outcome)> = Vec::new();
    let mut starts = starts.into_iter().peekable();
    while let Some((start, changes)) = starts.next() {
        for (position, begins) in changes {
            open.change(rules, position, begins);
        }
        let (Some(outcome), Some((next, _))) = (open.outcome(rules), starts.peek()) else { continue };
        let (Ok(min), Ok(max)) = (u16::try_from(start), u16::try_from(next - 1)) else { continue };
        match outcomes.last_mut() {
            Some((last, same)) if *same == outcome && u32::from(last.max) + 1 == start => last.max = max,
            _ => outcomes.push((PortRange { min, max }, outcome)),
        }
    }
    outcomes
}

/// Ranges of ports of `kind` that the rule speaks of.
fn ranges(rule: &Rule, kind: Kind) -> Vec<PortRange> {
    let of_kind = match rule.protocol {
        Protocol::Any => true,
        Protocol::Icmp => kind == Kind::Icmp,
        Protocol::Tcp => matches!(kind, Kind::Tcp | Kind::TcpBlind),
        Protocol::Udp => matches!(kind, Kind::Udp | Kind::UdpBlind),
    };
    if !of_kind {
        return Vec::new();
    }
    if rule.ports.is_empty() || rule.ports.contains(&ALL_PORTS) {
        return vec![ALL_PORTS];
    }
    // What shows no port needs a rule for all ports: a narrower one cannot be told to hold.
    if kind.has_ports() { rule.ports.clone() } else { Vec::new() }
}

/// Rules in force at one port, with how many of their ranges cover it.
#[derive(Default)]
struct Open {
    accepting: BTreeMap<u32, u32>,
    dropping: BTreeMap<u32, u32>,
}

impl Open {
    fn change(&mut self, rules: &[Arc<Rule>], position: u32, begins: bool) {
        let side = match rules[position as usize].action {
            Action::Accept => &mut self.accepting,
            Action::Drop => &mut self.dropping,
        };
        let count = side.entry(position).or_default();
        // A range may end where the next one begins, whichever is seen first.
        *count = if begins { count.wrapping_add(1) } else { count.wrapping_sub(1) };
        if *count == 0 {
            side.remove(&position);
        }
    }

    fn outcome(&self, rules: &[Arc<Rule>]) -> Option<Outcome> {
        let id = |position: &u32| rules[*position as usize].id;
        let dropping = self.dropping.keys().next().map(|position| Outcome::Drop { rule: id(position) });
        dropping.or_else(|| self.accepting.keys().next().map(|position| Outcome::Accept { rule: id(position) }))
    }
}
