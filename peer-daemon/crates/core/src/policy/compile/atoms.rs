//! Addresses by the set of rules that speak of them.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};

use super::TooLarge;
use crate::desired::Rule;

/// A rule, as far as prefixes in one notation go: its IPv4 prefixes make pairs with each other, and so do those in IPv6
/// notation, mapped ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Half {
    /// Position of the rule.
    pub(super) rule: u32,
    v4: bool,
}

/// Number of an atom; 0 is the one that no rule speaks of.
pub(super) type Atom = u32;

/// All atoms of one end.
pub(super) struct Atoms {
    prefixes: BTreeMap<Ipv6Net, Atom>,
    /// Of each atom, by number.
    nodes: Vec<Node>,
    /// Atoms that name a half first; all their descendants are in its set, too.
    named: HashMap<Half, Vec<Atom>>,
}

#[derive(Default)]
struct Node {
    parent: Atom,
    children: Vec<Atom>,
    /// What it adds to the set of its parent, sorted.
    halves: Vec<Half>,
}

impl Atoms {
    pub(super) fn of(
        rules: &[Rule],
        prefixes: impl Fn(&Rule) -> &Vec<IpNet>,
        what: &'static str,
        limit: usize,
    ) -> Result<Self, TooLarge> {
        let mut named: BTreeMap<Ipv6Net, Vec<Half>> = BTreeMap::new();
        for (position, rule) in (0..).zip(rules) {
            for net in prefixes(rule) {
                let half = Half { rule: position, v4: net.addr().is_ipv4() };
                let halves = named.entry(widen(net)).or_default();
                if halves.last() != Some(&half) {
                    halves.push(half);
                }
            }
        }
        // Everything wider than the mapped addresses says nothing of IPv4.
        named.entry(MAPPED).or_default();
        if named.len() > limit {
            return Err(TooLarge { what, needed: named.len(), limit });
        }
        Ok(Self::build(named))
    }

    /// Walks the prefixes from wide to narrow: their order puts each one behind all that contain it.
    fn build(named: BTreeMap<Ipv6Net, Vec<Half>>) -> Self {
        let mut atoms = Self { prefixes: BTreeMap::new(), nodes: vec![Node::default()], named: HashMap::new() };
        let mut known: HashMap<(Atom, Vec<Half>), Atom> = HashMap::new();
        // The prefixes that contain the current one, with the atom of each.
        let mut around: Vec<(Ipv6Net, Atom)> = Vec::new();
        for (net, mut halves) in named {
            while around.last().is_some_and(|(outer, _)| !outer.contains(&net)) {
                around.pop();
            }
            let inherits = if net == MAPPED { 0 } else { around.last().map_or(0, |(_, atom)| *atom) };
            halves.sort_unstable();
            halves.retain(|half| !atoms.covers(inherits, *half));
            let atom = if halves.is_empty() {
                inherits
            } else {
                *known.entry((inherits, halves)).or_insert_with_key(|(parent, halves)| atoms.add(*parent, halves))
            };
            atoms.prefixes.insert(net, atom);
            around.push((net, atom));
        }
        atoms
    }

    /// Whether the set of `atom` has `half`.
    fn covers(&self, atom: Atom, half: Half) -> bool {
        let mut ancestors = std::iter::successors(Some(atom), |&atom| Some(self.nodes[atom as usize].parent));
        let mut ancestors = ancestors.by_ref().take_while(|&atom| atom != 0);
        ancestors.any(|atom| self.nodes[atom as usize].halves.binary_search(&half).is_ok())
    }

    fn add(&mut self, parent: Atom, halves: &[Half]) -> Atom {
        let atom = Atom::try_from(self.nodes.len()).unwrap_or(Atom::MAX);
        self.nodes.push(Node { parent, children: Vec::new(), halves: halves.to_vec() });
        if parent != 0 {
            self.nodes[parent as usize].children.push(atom);
        }
        for &half in halves {
            self.named.entry(half).or_default().push(atom);
        }
        atom
    }

    /// All halves that occur, in order.
    pub(super) fn halves(&self) -> Vec<Half> {
        let mut halves: Vec<Half> = self.named.keys().copied().collect();
        halves.sort_unstable();
        halves
    }

    /// All atoms whose set has `half`.
    pub(super) fn with(&self, half: Half) -> Vec<Atom> {
        let mut atoms = self.named.get(&half).cloned().unwrap_or_default();
        let mut next = 0;
        while let Some(&atom) = atoms.get(next) {
            atoms.extend(&self.nodes[atom as usize].children);
            next += 1;
        }
        atoms.sort_unstable();
        atoms.dedup();
        atoms
    }

    pub(super) fn into_prefixes(self) -> BTreeMap<Ipv6Net, Atom> {
        self.prefixes
    }
}

/// `::ffff:0:0/96`.
const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);

fn widen(net: &IpNet) -> Ipv6Net {
    match net {
        IpNet::V4(net) => Ipv6Net::new_assert(net.network().to_ipv6_mapped(), 96 + net.prefix_len()),
        IpNet::V6(net) => net.trunc(),
    }
}
