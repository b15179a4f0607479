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
    /// Of each prefix in order, the atom that it inherits from and its own.
    steps: Vec<(Ipv6Net, Atom, Atom)>,
    sets: Arc<Sets>,
}

/// The sets of rules that atoms stand for.
#[derive(Debug, Default)]
struct Sets {
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
    /// Those of `named`. Those of the last one that are still there keep their numbers.
    pub(super) fn of(named: &Named, last: Option<(&Named, &Self)>) -> Self {
        if let Some(same) = last.and_then(|(last, atoms)| atoms.moved(last, named)) {
            return same;
        }
        // Numbers that are not used any more take memory, too.
        let last = last.map(|(_, atoms)| &*atoms.sets);
        let last = last.filter(|last| last.nodes.len() <= last.known.len() * 2 + SPARE);
        let mut sets = Sets {
            nodes: vec![Node::default(); last.map_or(1, |last| last.nodes.len())],
            known: HashMap::new(),
            named: HashMap::new(),
        };
        let steps = walk(named, |_, halves, inherits| Some(sets.atom(inherits, halves, last)));
        Self::new(steps.unwrap_or_default(), Arc::new(sets))
    }

    /// The same for prefixes that need neither more sets than there are nor fewer: then few of them are looked at.
    fn moved(&self, last: &Named, named: &Named) -> Option<Self> {
        let mut known = last.iter().zip(&self.steps).peekable();
        let mut used = vec![false; self.sets.nodes.len()];
        let steps = walk(named, |net, halves, inherits| {
            while known.next_if(|((before, _), _)| *before < net).is_some() {}
            let same = known.next_if(|((before, _), _)| *before == net);
            let same = same.filter(|((_, before), step)| Arc::ptr_eq(before, halves) && step.1 == inherits);
            let atom = match same {
                Some((_, step)) => step.2,
                None => match self.sets.adds(inherits, halves) {
                    adds if adds.is_empty() => inherits,
                    adds => *self.sets.known.get(&(inherits, adds))?,
                },
            };
            *used.get_mut(atom as usize)? = true;
            Some(atom)
        })?;
        // All that there are must still be somebody's.
        let used = used.iter().skip(1).filter(|used| **used).count();
        (used == self.sets.known.len()).then(|| Self::new(steps, Arc::clone(&self.sets)))
    }

    fn new(steps: Vec<(Ipv6Net, Atom, Atom)>, sets: Arc<Sets>) -> Self {
        let prefixes = Arc::new(steps.iter().map(|(net, _, atom)| (*net, *atom)).collect());
        Self { prefixes, steps, sets }
    }

    /// Whether both have the same sets under the same numbers. Their prefixes may differ.
    pub(super) fn same_sets(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.sets, &other.sets) || self.sets.known == other.sets.known
    }

    /// All halves that occur, in order.
    pub(super) fn halves(&self) -> Vec<Half> {
        let mut halves: Vec<Half> = self.sets.named.keys().copied().collect();
        halves.sort_unstable();
        halves
    }

    /// All atoms whose set has `half`.
    pub(super) fn with(&self, half: Half) -> Vec<Atom> {
        let mut atoms = self.sets.named.get(&half).cloned().unwrap_or_default();
        let mut next = 0;
        while let Some(&atom) = atoms.get(next) {
            atoms.extend(&self.sets.nodes[atom as usize].children);
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

/// Walks the prefixes from wide to narrow: their order puts each one behind all that contain it. `atom` is told a prefix, who names
/// it and the atom that it inherits from, and says the prefix's own; `None` ends the walk.
fn walk(
    named: &Named,
    mut atom: impl FnMut(Ipv6Net, &Arc<[Half]>, Atom) -> Option<Atom>,
) -> Option<Vec<(Ipv6Net, Atom, Atom)>> {
    let mut steps = Vec::with_capacity(named.len());
    // The prefixes that contain the current one, with the atom of each.
    let mut around: Vec<(Ipv6Net, Atom)> = Vec::new();
    for (net, halves) in named.iter() {
        while around.last().is_some_and(|(outer, _)| !outer.contains(&net)) {
            around.pop();
        }
        // Everything wider than the mapped addresses says nothing of IPv4.
        let inherits = if net == MAPPED { 0 } else { around.last().map_or(0, |(_, atom)| *atom) };
        let own = atom(net, halves, inherits)?;
        steps.push((net, inherits, own));
        around.push((net, own));
    }
    Some(steps)
}

impl Sets {
    /// The atom of a prefix that `halves` name, within the atom `inherits`.
    fn atom(&mut self, inherits: Atom, halves: &Arc<[Half]>, last: Option<&Self>) -> Atom {
        let adds = self.adds(inherits, halves);
        if adds.is_empty() { inherits } else { self.number(inherits, adds, last) }
    }

    /// Those of `halves` that the set of `atom` has not.
    fn adds(&self, atom: Atom, halves: &Arc<[Half]>) -> Arc<[Half]> {
        if halves.iter().any(|half| self.covers(atom, *half)) {
            halves.iter().copied().filter(|half| !self.covers(atom, *half)).collect()
        } else {
            Arc::clone(halves)
        }
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
}

/// So many numbers may be unused, besides as many as are used.
const SPARE: usize = 1024;
/// `::ffff:0:0/96`.
pub(super) const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
