//! Peers, and who of them has an address that several claim.

use std::num::NonZeroU16;
use std::sync::Arc;

use foldhash::{HashSet, HashSetExt as _};
use ipnet::IpNet;
use peer_core::desired::Peer;
use peer_core::diff;
use peer_core::key::{PresharedKey, PublicKey};

use super::Options;
use crate::model::RemotePeer;

/// Peers of one map after the other.
#[derive(Debug, Default)]
pub(super) struct Claims {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    given: Given,
    remote: Arc<[Arc<RemotePeer>]>,
    peers: Arc<[Peer]>,
    /// What this node and the peers have, each by one of them.
    taken: HashSet<Numbers>,
}

/// What the result depends on beside the peers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    own_key: PublicKey,
    addresses: Vec<IpNet>,
    keepalive: Option<NonZeroU16>,
    preshared_key: Option<PresharedKey>,
}

impl Claims {
    /// Peers in the order of their keys, and how many prefixes two of them claim: the first keeps them.
    pub(super) fn next(&mut self, remote: &Arc<[Arc<RemotePeer>]>, options: &Options) -> (Arc<[Peer]>, u32) {
        let given = Given {
            own_key: options.own_key,
            addresses: options.addresses.iter().collect(),
            keepalive: options.keepalive,
            preshared_key: options.preshared_key.clone(),
        };
        let last = self.last.take().filter(|last| last.given == given);
        if let Some(last) = last.and_then(|last| last.moved(remote)) {
            let peers = Arc::clone(&last.peers);
            self.last = Some(last);
            return (peers, 0);
        }
        let (last, contested) = Last::of(given, remote);
        let peers = Arc::clone(&last.peers);
        // Who has what others claim depends on all of them.
        let plain = contested == 0 && peers.windows(2).all(|pair| pair[0].public_key != pair[1].public_key);
        self.last = plain.then_some(last);
        (peers, contested)
    }
}

impl Last {
    fn of(given: Given, remote: &Arc<[Arc<RemotePeer>]>) -> (Self, u32) {
        let mut sorted: Vec<_> = remote.iter().filter(|peer| peer.key != given.own_key).collect();
        sorted.sort_by_key(|peer| peer.key);
        let mut taken = HashSet::with_capacity(sorted.iter().map(|peer| peer.allowed_ips.len()).sum());
        taken.extend(given.addresses.iter().map(|net| numbers(&IpNet::from(net.addr()))));
        let mut contested = 0;
        let mut peer = |peer: &Arc<RemotePeer>| {
            // Most peers keep what they claim.
            let mut kept: Option<Vec<IpNet>> = None;
            for (at, net) in peer.allowed_ips.iter().enumerate() {
                if !taken.insert(numbers(net)) {
                    kept.get_or_insert_with(|| peer.allowed_ips[..at].to_vec());
                    contested += 1;
                } else if let Some(kept) = &mut kept {
                    kept.push(*net);
                }
            }
            given.peer(peer, kept.map_or_else(|| Arc::clone(&peer.allowed_ips), Arc::from))
        };
        let peers = sorted.into_iter().map(&mut peer).collect();
        (Self { given, remote: Arc::clone(remote), peers, taken }, contested)
    }

    /// The same for another list that differs in few places, where nobody claims what another one has.
    fn moved(mut self, remote: &Arc<[Arc<RemotePeer>]>) -> Option<Self> {
        let (gone, mut new) = diff::lists(&self.remote, remote, Arc::ptr_eq);
        if gone.is_empty() && new.is_empty() {
            return Some(self);
        }
        let gone = gone.into_iter().filter(|peer| peer.key != self.given.own_key);
        new.retain(|peer| peer.key != self.given.own_key);
        new.sort_by_key(|peer| peer.key);
        if new.windows(2).any(|pair| pair[0].key == pair[1].key) {
            return None;
        }
        let mut keys: Vec<_> = gone.clone().map(|peer| peer.key).collect();
        keys.sort_unstable();
        for net in gone.flat_map(|peer| &*peer.allowed_ips) {
            self.taken.remove(&numbers(net));
        }
        if !new.iter().flat_map(|peer| &*peer.allowed_ips).all(|net| self.taken.insert(numbers(net))) {
            return None;
        }
        let mut peers = Vec::with_capacity(self.peers.len() + new.len());
        let mut new = new.into_iter().peekable();
        for peer in self.peers.iter().filter(|peer| keys.binary_search(&peer.public_key).is_err()) {
            while let Some(before) = new.next_if(|new| new.key <= peer.public_key) {
                // Whoever is in the list twice is looked at with all others.
                if before.key == peer.public_key {
                    return None;
                }
                peers.push(self.given.peer(before, Arc::clone(&before.allowed_ips)));
            }
            peers.push(peer.clone());
        }
        peers.extend(new.map(|peer| self.given.peer(peer, Arc::clone(&peer.allowed_ips))));
        self.peers = peers.into();
        self.remote = Arc::clone(remote);
        Some(self)
    }
}

impl Given {
    /// Nothing is known of endpoints.
    fn peer(&self, remote: &RemotePeer, allowed_ips: Arc<[IpNet]>) -> Peer {
        Peer {
            public_key: remote.key,
            preshared_key: self.preshared_key.clone(),
            endpoint: None,
            allowed_ips,
            persistent_keepalive: self.keepalive,
        }
    }
}

/// A prefix as numbers, which are hashed in no time: those of IPv4 lie beyond all of IPv6.
type Numbers = (u128, u16);

fn numbers(net: &IpNet) -> Numbers {
    match net {
        IpNet::V4(net) => (u32::from(net.addr()).into(), 0x100 | u16::from(net.prefix_len())),
        IpNet::V6(net) => (net.addr().into(), net.prefix_len().into()),
    }
}
