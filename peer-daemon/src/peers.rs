//! Small numbers of peers, by which the dataplane knows them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use peer_common::route::MAX_PEERS;
use peer_core::desired::Peer;
use peer_core::key::PublicKey;

/// Keys by id.
pub(crate) type PeerKeys = BTreeMap<u32, PublicKey>;

/// Who has which number. A peer keeps its own as long as it is wanted; one that is gone leaves its number unused until all
/// others have been given away, because the dataplane may still hold flows of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerIds {
    ids: HashMap<PublicKey, u32>,
    keys: Arc<PeerKeys>,
    /// Numbers given away so far; they begin at 1.
    given: u32,
    /// Numbers of peers that are gone, the first to go first.
    free: VecDeque<u32>,
}

impl PeerIds {
    /// As it is when these are the peers, each once.
    pub(crate) fn with(&self, peers: &[Peer]) -> Self {
        let mut next = self.clone();
        let known = peers.iter().filter(|peer| self.ids.contains_key(&peer.public_key)).count();
        let gone: Vec<u32> = if known < self.ids.len() { self.gone(peers) } else { Vec::new() };
        for id in gone {
            if let Some(key) = Arc::make_mut(&mut next.keys).remove(&id) {
                next.ids.remove(&key);
            }
            next.free.push_back(id);
        }
        for peer in peers {
            if !next.ids.contains_key(&peer.public_key) {
                let id = next.take();
                next.ids.insert(peer.public_key, id);
                Arc::make_mut(&mut next.keys).insert(id, peer.public_key);
            }
        }
        next
    }

    /// The numbers of those that are not wanted any more.
    fn gone(&self, peers: &[Peer]) -> Vec<u32> {
        let wanted: HashSet<_> = peers.iter().map(|peer| peer.public_key).collect();
        self.keys.iter().filter(|(_, key)| !wanted.contains(key)).map(|(id, _)| *id).collect()
    }

    /// The number of a peer.
    pub(crate) fn of(&self, key: &PublicKey) -> Option<u32> {
        self.ids.get(key).copied()
    }

    /// All of them.
    pub(crate) fn keys(&self) -> &Arc<PeerKeys> {
        &self.keys
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
        peers.iter().map(|peer| ids.of(&peer.public_key)).collect()
    }

    #[test]
    fn a_peer_keeps_its_number_and_one_that_is_gone_leaves_a_gap() {
        let first = PeerIds::default().with(&peers([7, 8, 9]));
        assert_eq!(ids(&first, &peers([7, 8, 9])), [Some(1), Some(2), Some(3)]);
        let second = first.with(&peers([10, 9, 7]));
        assert_eq!(ids(&second, &peers([7, 8, 9, 10])), [Some(1), None, Some(3), Some(4)]);
        assert_eq!(second.keys().len(), 3);
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
