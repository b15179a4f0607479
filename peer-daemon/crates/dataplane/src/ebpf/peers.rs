//! Whose an inner address is: the table that grows with the mesh, changed where peers differ only.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};
use peer_common::Peer;
use peer_core::diff;

use super::difference::{Difference, difference};
use super::plan::{Prefix, prefix};
use crate::PeerPrefixes;

/// What the table holds.
#[derive(Debug, Default)]
pub(super) struct PeerTable {
    entries: BTreeMap<Prefix, Peer>,
    /// Whose they are; `None`: not known, or two of them have the same prefix.
    of: Option<Arc<[PeerPrefixes]>>,
}

/// What makes it another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Some entries. Keys that are in both lists are written, not removed.
    Some { gone: Vec<Prefix>, new: BTreeMap<Prefix, Peer> },
    /// The whole table, and how that differs.
    Whole { entries: BTreeMap<Prefix, Peer>, gone: Vec<Prefix>, new: BTreeMap<Prefix, Peer> },
}

impl PeerTable {
    /// As the kernel has it.
    pub(super) fn new(entries: BTreeMap<Prefix, Peer>) -> Self {
        Self { entries, of: None }
    }

    /// What has to be done for it to hold `peers`. Of two with the same prefix the last one has it.
    pub(super) fn change(&self, peers: &[PeerPrefixes]) -> Change {
        self.of.as_ref().and_then(|of| self.between(of, peers)).unwrap_or_else(|| self.whole(peers))
    }

    /// `change` has been done, for `peers`.
    pub(super) fn apply(&mut self, change: Change, peers: &Arc<[PeerPrefixes]>) {
        match change {
            Change::Whole { entries, .. } => self.entries = entries,
            Change::Some { gone, new } => {
                for prefix in gone {
                    self.entries.remove(&prefix);
                }
                self.entries.extend(new);
            }
        }
        let prefixes: usize = peers.iter().map(|peer| peer.prefixes.len()).sum();
        self.of = (prefixes == self.entries.len()).then(|| Arc::clone(peers));
    }

    fn whole(&self, peers: &[PeerPrefixes]) -> Change {
        let entries: BTreeMap<_, _> = peers.iter().flat_map(entries).collect();
        let Difference { gone, new } = difference(&self.entries, &entries);
        let gone = gone.into_iter().copied().collect();
        let new = new.into_iter().map(|(prefix, peer)| (*prefix, *peer)).collect();
        Change::Whole { entries, gone, new }
    }

    /// Only where peers differ. `None`: a prefix goes from one to another or is in two of them, which the whole list tells apart.
    fn between(&self, last: &[PeerPrefixes], peers: &[PeerPrefixes]) -> Option<Change> {
        let (gone, fresh) = diff::lists(last, peers, PeerPrefixes::eq);
        // What is the same in both but stands elsewhere, and whoever has other prefixes than before.
        let mut known: HashMap<u32, &PeerPrefixes> = HashMap::with_capacity(gone.len());
        for peer in gone {
            if known.insert(peer.id, peer).is_some() {
                return None;
            }
        }
        let mut new = BTreeMap::new();
        for peer in fresh {
            match known.remove(&peer.id) {
                Some(same) if same.prefixes == peer.prefixes => {}
                // Its prefixes are written or removed one by one.
                Some(_) => return None,
                None => new.extend(entries(peer)),
            }
        }
        let gone: Vec<Prefix> = known.into_values().flat_map(entries).map(|(prefix, _)| prefix).collect();
        let moved = new.keys().any(|prefix| self.entries.contains_key(prefix));
        (!moved).then_some(Change::Some { gone, new })
    }
}

impl Change {
    /// As it is done to the kernel's table.
    pub(super) fn difference(&self) -> Difference<'_, Prefix, Peer> {
        let (Self::Some { gone, new } | Self::Whole { gone, new, .. }) = self;
        Difference { gone: gone.iter().collect(), new: new.iter().collect() }
    }

    /// How many entries are written or removed.
    pub(super) fn len(&self) -> usize {
        let (Self::Some { gone, new } | Self::Whole { gone, new, .. }) = self;
        gone.len() + new.len()
    }
}

fn entries(peer: &PeerPrefixes) -> impl Iterator<Item = (Prefix, Peer)> {
    peer.prefixes.iter().map(|net| {
        let (prefix_len, addr) = prefix(net);
        ((prefix_len, addr), Peer { id: peer.id, prefix_len })
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ipnet::{IpNet, Ipv4Net};
    use proptest::prelude::*;

    use super::*;

    fn peer(id: u32, hosts: &[u8]) -> PeerPrefixes {
        let net = |host: &u8| IpNet::V4(Ipv4Net::from(Ipv4Addr::new(100, 64, 0, *host)));
        PeerPrefixes { id, prefixes: hosts.iter().map(net).collect() }
    }

    #[test]
    fn one_peer_more_is_one_entry() {
        let mut table = PeerTable::default();
        let first: Arc<[_]> = (1..=9).map(|id| peer(id.into(), &[id])).collect();
        table.apply(table.change(&first), &first);
        let second: Arc<[_]> = (1..=10).map(|id| peer(id.into(), &[id])).collect();
        let change = table.change(&second);
        assert!(matches!(&change, Change::Some { gone, new } if gone.is_empty() && new.len() == 1), "{change:?}");
    }

    proptest! {
        /// Whatever peers do, the table ends as one that is made at once.
        #[test]
        fn step_by_step_it_becomes_what_it_is_at_once(
            steps in prop::collection::vec(
                prop::collection::btree_map(1_u32..8, prop::collection::vec(0_u8..12, 0..3), 0..6),
                1..8,
            ),
        ) {
            let mut table = PeerTable::default();
            let mut kernel = BTreeMap::new();
            for step in steps {
                let peers: Arc<[_]> = step.iter().map(|(id, hosts)| peer(*id, hosts)).collect();
                let change = table.change(&peers);
                for (prefix, peer) in change.difference().new {
                    kernel.insert(*prefix, *peer);
                }
                for prefix in change.difference().gone {
                    kernel.remove(prefix);
                }
                table.apply(change, &peers);
                let expected: BTreeMap<_, _> = peers.iter().flat_map(entries).collect();
                prop_assert_eq!(&kernel, &expected);
                prop_assert_eq!(&table.entries, &expected);
            }
        }
    }
}
