//! Small numbers of peers, by which the dataplane knows them.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::{HashMap, HashSet, HashSetExt as _};
use peer_common::route::MAX_PEERS;
use peer_core::desired::Peer;
use peer_core::key::PublicKey;

/// Keys by number. One list, which is copied in no time: a large mesh changes often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerKeys(Vec<Option<PublicKey>>);

impl PeerKeys {
    /// The key of the peer with this number.
    pub(crate) fn get(&self, id: u32) -> Option<&PublicKey> {
        self.0.get(id as usize)?.as_ref()
    }

    /// All of them, in order of numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &PublicKey)> {
        (0..).zip(&self.0).filter_map(|(id, key)| Some((id, key.as_ref()?)))
    }

    fn set(&mut self, id: u32, key: Option<PublicKey>) {
        let place = id as usize;
        if place >= self.0.len() {
            self.0.resize(place + 1, None);
        }
        self.0[place] = key;
    }
}

impl<const N: usize> From<[(u32, PublicKey); N]> for PeerKeys {
    fn from(keys: [(u32, PublicKey); N]) -> Self {
        let mut all = Self::default();
        keys.into_iter().for_each(|(id, key)| all.set(id, Some(key)));
        all
    }
}

/// Who has which number. A peer keeps its own as long as it is wanted; one that is gone leaves its number unused until all
/// others have been given away, because the dataplane may still hold flows of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerIds {
    ids: HashMap<PublicKey, u32>,
    keys: Arc<PeerKeys>,
    /// Numbers in the order of the peers.
    of: Vec<u32>,
    /// Numbers given away so far; they begin at 1.
    given: u32,
    /// Numbers of peers that are gone, the first to go first.
    free: VecDeque<u32>,
}

impl PeerIds {
    /// As it is when these are the peers, each once.
    pub(crate) fn with(&self, peers: &[Peer]) -> Self {
        let known: Vec<Option<u32>> = peers.iter().map(|peer| self.ids.get(&peer.public_key).copied()).collect();
        let mut next = self.clone();
        if known.iter().flatten().count() < self.ids.len() {
            let mut wanted: HashSet<u32> = HashSet::with_capacity(peers.len());
            wanted.extend(known.iter().flatten().copied());
            for (id, key) in self.keys.iter().filter(|(id, _)| !wanted.contains(id)) {
                next.ids.remove(key);
                Arc::make_mut(&mut next.keys).set(id, None);
                next.free.push_back(id);
            }
        }
        next.of.clear();
        for (peer, known) in peers.iter().zip(known) {
            let id = known.unwrap_or_else(|| next.add(peer.public_key));
            next.of.push(id);
        }
        next
    }

    /// Numbers of the peers, in their order.
    pub(crate) fn in_order(&self) -> &[u32] {
        &self.of
    }

    /// All of them.
    pub(crate) fn keys(&self) -> &Arc<PeerKeys> {
        &self.keys
    }

    fn add(&mut self, key: PublicKey) -> u32 {
        let id = self.take();
        self.ids.insert(key, id);
        Arc::make_mut(&mut self.keys).set(id, Some(key));
        id
    }

    fn take(&mut self) -> u32 {
        // Beyond what the flow counts have room for a number still names a peer.
        if self.given + 1 >= MAX_PEERS
            && let Some(id) = self.free.pop_front()
        {
            return id;
        }
        self.given += 1;
        self.given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(keys: impl IntoIterator<Item = u32>) -> Vec<Peer> {
        let key = |number: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            PublicKey(key)
        };
        let peer = |number| Peer {
            public_key: key(number),
            preshared_key: None,
            endpoint: None,
            allowed_ips: Arc::default(),
            persistent_keepalive: None,
        };
        keys.into_iter().map(peer).collect()
    }

    fn ids(ids: &PeerIds, peers: &[Peer]) -> Vec<Option<u32>> {
        let id = |peer: &Peer| ids.ids.get(&peer.public_key).copied();
        for (number, key) in ids.keys.iter() {
            assert_eq!(ids.ids.get(key), Some(&number));
        }
        peers.iter().map(id).collect()
    }

    #[test]
    fn a_peer_keeps_its_number_and_one_that_is_gone_leaves_a_gap() {
        let first = PeerIds::default().with(&peers([7, 8, 9]));
        assert_eq!(ids(&first, &peers([7, 8, 9])), [Some(1), Some(2), Some(3)]);
        let second = first.with(&peers([10, 9, 7]));
        assert_eq!(ids(&second, &peers([7, 8, 9, 10])), [Some(1), None, Some(3), Some(4)]);
        assert_eq!((second.keys().iter().count(), second.in_order()), (3, &[4, 3, 1][..]));
        let third = second.with(&peers([8]));
        assert_eq!(ids(&third, &peers([8])), [Some(5)], "one that comes back is as good as new");
    }

    #[test]
    fn numbers_are_given_again_when_none_is_left() {
        let all = PeerIds::default().with(&peers(1..MAX_PEERS));
        let next = all.with(&peers(2..MAX_PEERS + 1));
        assert_eq!(ids(&next, &peers([MAX_PEERS])), [Some(1)]);
    }
}
