//! Addresses by the set of rules that speak of them.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};
use ipnet::Ipv6Net;

use super::named::{Half, Named};

/// Number of an atom; 0 is the one that no rule speaks of.
pub(super) type Atom = u32;

/// All atoms of one end.
#[derive(Debug)]
pub(super) struct Atoms {
    prefixes: Arc<BTreeMap<Ipv6Net, Atom>>,
    /// Of each atom, by number. Some numbers may be unused.
    nodes: Vec<Node>,
    known: HashMap<(Atom, Arc<[Half]>), Atom>,
    /// Atoms that name a half first; all their descendants are in its set, too.
    named: HashMap<Half, Vec<Atom>>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    parent: Atom,
    children: Vec<Atom>,
    /// What it adds to the set of its parent, sorted.
    halves: Arc<[Half]>,
}

impl Atoms {
    /// Those of `last` that are still there keep their numbers.
    pub(super) fn of(named: &Named, last: Option<&Self>) -> Self {
        // Numbers that are not used any more take memory, too.
        let last = last.filter(|last| last.nodes.len() <= last.known.len() * 2 + SPARE);
        Self::build(named, last)
    }

    /// Whether both have the same sets under the same numbers. Their prefixes may differ.
    pub(super) fn same_sets(&self, other: &Self) -> bool {
        self.known == other.known
    }

    /// Walks the prefixes from wide to narrow: their order puts each one behind all that contain it.
    fn build(named: &Named, last: Option<&Self>) -> Self {
        let mut atoms = Self {
            prefixes: Arc::default(),
            nodes: vec![Node::default(); last.map_or(1, |last| last.nodes.len())],
            known: HashMap::new(),
            named: HashMap::new(),
        };
        let mut prefixes = Vec::with_capacity(named.len());
        // The prefixes that contain the current one, with the atom of each.
        let mut around: Vec<(Ipv6Net, Atom)> = Vec::new();
        for (net, halves) in named.iter() {
            while around.last().is_some_and(|(outer, _)| !outer.contains(&net)) {
                around.pop();
            }
            // Everything wider than the mapped addresses says nothing of IPv4.
            let inherits = if net == MAPPED { 0 } else { around.last().map_or(0, |(_, atom)| *atom) };
            let adds: Arc<[Half]> = if halves.iter().any(|half| atoms.covers(inherits, *half)) {
                halves.iter().copied().filter(|half| !atoms.covers(inherits, *half)).collect()
            } else {
                Arc::clone(halves)
            };
            let atom = if adds.is_empty() { inherits } else { atoms.number(inherits, adds, last) };
            prefixes.push((net, atom));
            around.push((net, atom));
        }
        atoms.prefixes = Arc::new(prefixes.into_iter().collect());
        atoms
    }

    /// Whether the set of `atom` has `half`.
    fn covers(&self, atom: Atom, half: Half) -> bool {
        let mut ancestors = std::iter::successors(Some(atom), |&atom| Some(self.nodes[atom as usize].parent));
        let mut ancestors = ancestors.by_ref().take_while(|&atom| atom != 0);
        ancestors.any(|atom| self.nodes[atom as usize].halves.binary_search(&half).is_ok())
    }

    /// Number of the atom that adds `halves` to the set of `parent`.
    fn number(&mut self, parent: Atom, halves: Arc<[Half]>, last: Option<&Self>) -> Atom {
        let set = (parent, halves);
        if let Some(atom) = self.known.get(&set) {
            return *atom;
        }
        let atom = match last.and_then(|last| last.known.get(&set)) {
            Some(atom) => *atom,
            None => {
                self.nodes.push(Node::default());
                Atom::try_from(self.nodes.len() - 1).unwrap_or(Atom::MAX)
            }
        };
        let halves = Arc::clone(&set.1);
        for &half in &*halves {
            self.named.entry(half).or_default().push(atom);
        }
        self.nodes[atom as usize] = Node { parent, children: Vec::new(), halves };
        if parent != 0 {
            self.nodes[parent as usize].children.push(atom);
        }
        self.known.insert(set, atom);
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

    pub(super) fn prefixes(&self) -> &Arc<BTreeMap<Ipv6Net, Atom>> {
        &self.prefixes
    }
}

/// So many numbers may be unused, besides as many as are used.
const SPARE: usize = 1024;
/// `::ffff:0:0/96`.
pub(super) const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
