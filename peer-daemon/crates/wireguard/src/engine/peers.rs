//! The set of peers and how it changes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashSet, HashSetExt as _};
use ipnet::IpNet;
use peer_core::desired;
use peer_core::key::PublicKey;
use peer_core::path::Path;

use super::Engine;
use crate::allowed::AllowedIps;
use crate::context::Context;
use crate::limits::{HANDSHAKE_SPREAD, MAX_PEERS};
use crate::peer::{Peer, PeerStatus};
use crate::traffic::PeerFigures;

/// What a new set of peers changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeersChanged {
    /// Peers that are new.
    pub added: Vec<PublicKey>,
    /// Peers that are gone, with their sessions.
    pub removed: Vec<PublicKey>,
    /// Peers that are configured differently.
    pub updated: Vec<PublicKey>,
    /// Peers that were not taken.
    pub refused: Vec<(PublicKey, PeerError)>,
    /// Prefixes claimed by a second peer; the first one in the list keeps them.
    pub contested: Vec<IpNet>,
}

/// Why a peer was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Its key is our own.
    #[error("the peer's public key is our own")]
    Ourselves,
    /// It is in the list already.
    #[error("the public key is in the list twice")]
    Duplicate,
    /// There are too many.
    #[error("more than {MAX_PEERS} peers")]
    TooMany,
}

/// Peers by small number, by key, and by inner address.
#[derive(Default)]
pub(super) struct Peers {
    slots: Vec<Option<Peer>>,
    free: Vec<u32>,
    ids: HashMap<PublicKey, u32>,
    allowed: AllowedIps,
    /// Prefixes that two peers claim: then the order of the list decides, and the table is made of all of it.
    contested: usize,
    /// The last list, if it was in the order of keys and all of it was taken.
    last: Option<Arc<[desired::Peer]>>,
    /// Memory of the last lookup.
    pub(super) last_destination: Option<(IpAddr, u32)>,
}

impl Peers {
    pub(super) fn get(&self, id: u32) -> Option<&Peer> {
        self.slots.get(id as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Peer> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    pub(super) fn get_with_allowed(&mut self, id: u32) -> Option<(&mut Peer, &AllowedIps)> {
        Some((self.slots.get_mut(id as usize)?.as_mut()?, &self.allowed))
    }

    pub(super) fn id(&self, key: &PublicKey) -> Option<u32> {
        self.ids.get(key).copied()
    }

    pub(super) fn allowed(&self) -> &AllowedIps {
        &self.allowed
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &Peer)> {
        (0..).zip(&self.slots).filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }

    fn insert(&mut self, config: &desired::Peer, now: Instant) -> u32 {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("at most MAX_PEERS slots")
        });
        self.slots[id as usize] = Some(Peer::new(id, config.clone(), now));
        self.ids.insert(config.public_key, id);
        id
    }

    fn take(&mut self, key: &PublicKey) -> Option<(u32, Peer)> {
        let id = self.ids.remove(key)?;
        self.free.push(id);
        Some((id, self.slots[id as usize].take()?))
    }

    /// Builds the table of inner addresses anew, in the order of `wanted`.
    fn rebuild_allowed(&mut self, wanted: &[&desired::Peer]) -> Vec<IpNet> {
        let prefixes = wanted.iter().filter_map(|peer| Some((self.id(&peer.public_key)?, &*peer.allowed_ips)));
        let (allowed, contested) = AllowedIps::build(prefixes);
        self.allowed = allowed;
        self.contested = contested.len();
        contested
    }

    /// Gives their inner addresses to peers that are new. Returns whether nobody else claims them.
    fn allow(&mut self, added: &[PublicKey]) -> bool {
        added.iter().all(|key| {
            let Some(id) = self.ids.get(key).copied() else { return true };
            let Some(peer) = self.slots.get(id as usize).and_then(Option::as_ref) else { return true };
            peer.config().allowed_ips.iter().all(|prefix| self.allowed.insert(id, prefix))
        })
    }

    /// What was remembered of whose an address is.
    fn forget_owners(&mut self) {
        self.last_destination = None;
        for peer in self.slots.iter_mut().flatten() {
            peer.forget_source();
        }
    }
}

impl Engine {
    /// Makes `peers` the set of peers. What did not change keeps its sessions; an endpoint that was learnt stays until
    /// the configured one changes; a changed pre-shared key ends the sessions. Peers with a keepalive and an endpoint
    /// start a handshake.
    ///
    /// A list in the order of keys is compared with the one before, and costs little where both are the same.
    pub fn set_peers(&mut self, now: Instant, peers: impl Into<Arc<[desired::Peer]>>) -> PeersChanged {
        let peers = peers.into();
        let ourselves = self.public_key();
        let mut changed = PeersChanged::default();
        let last = self.peers.last.take();
        let (wanted, all) = match last.and_then(|last| step(&last, &peers, &ourselves)) {
            Some(Step { removed, wanted }) => {
                changed.removed = removed;
                (wanted, peers.iter().collect())
            }
            None => {
                let (wanted, keys) = self.acceptable(&peers, &mut changed);
                changed.removed = self.peers.ids.keys().filter(|key| !keys.contains(*key)).copied().collect();
                (wanted.clone(), wanted)
            }
        };
        for key in &changed.removed {
            if let Some((id, mut peer)) = self.peers.take(key) {
                for prefix in &*peer.config().allowed_ips {
                    self.peers.allowed.remove(id, prefix);
                }
                peer.remove(&mut self.cx);
                self.deadlines.set(id, None);
            }
        }
        let mut reconfigured = false;
        for config in &wanted {
            let id = match self.peers.id(&config.public_key) {
                Some(id) => {
                    let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.config() != *config) else { continue };
                    reconfigured |= peer.reconfigure(&mut self.cx, now, config);
                    changed.updated.push(config.public_key);
                    id
                }
                None => {
                    let id = self.peers.insert(config, now);
                    let nth = u32::try_from(changed.added.len()).unwrap_or(u32::MAX);
                    if let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.wants_session()) {
                        peer.order_handshake(now + HANDSHAKE_SPREAD * nth);
                    }
                    changed.added.push(config.public_key);
                    id
                }
            };
            self.reschedule(id);
        }
        if reconfigured || !(changed.added.is_empty() && changed.removed.is_empty()) {
            if reconfigured || self.peers.contested > 0 || !self.peers.allow(&changed.added) {
                changed.contested = self.peers.rebuild_allowed(&all);
                self.cx.stats.contested_prefixes.set(changed.contested.len());
            }
            self.peers.forget_owners();
        }
        self.cx.stats.peers.set(self.peers.ids.len());
        let taken = changed.refused.is_empty() && peers.is_sorted_by(|one, other| one.public_key < other.public_key);
        self.peers.last = taken.then_some(peers);
        changed
    }

    /// Starts a handshake with every peer whose endpoint is known, a millisecond apart: after a restart, so that the
    /// peers need not find out by themselves that our sessions are gone.
    pub fn start_handshakes(&mut self, now: Instant) {
        let ids: Vec<_> = self.peers.iter().filter(|(_, peer)| peer.path().is_some()).map(|(id, _)| id).collect();
        for (nth, id) in (0..).zip(ids) {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.order_handshake(now + HANDSHAKE_SPREAD * nth);
            }
            self.reschedule(id);
        }
    }

    /// Tells where a peer was seen in an earlier life. Ignored if an endpoint is known, or the peer is not.
    pub fn set_endpoint(&mut self, now: Instant, peer: &PublicKey, endpoint: SocketAddr) {
        self.with_peer(peer, |peer, _| peer.suggest_endpoint(now, endpoint));
    }

    /// Sends to a peer by this path from now on; by none, with `None`, until it is heard of. The peer may still move itself
    /// to another path by an authentic message. Ignored if the peer is unknown.
    pub fn set_path(&mut self, now: Instant, peer: &PublicKey, path: Option<Path>) {
        self.with_peer(peer, |peer, cx| peer.set_path(cx, now, path));
    }

    /// A path has broken: the peer has none if it used this one. A path that it moved to meanwhile stays.
    pub fn drop_path(&mut self, now: Instant, peer: &PublicKey, path: Path) {
        self.with_peer(peer, |peer, cx| {
            if peer.path() == Some(path) {
                peer.set_path(cx, now, None);
            }
        });
    }

    /// Begins a handshake with a peer at once, even if it has a session or another handshake is under way.
    pub fn start_handshake(&mut self, now: Instant, peer: &PublicKey) {
        self.with_peer(peer, |peer, cx| peer.initiate(cx, now, true));
    }

    /// All peers, in no particular order.
    #[must_use]
    pub fn peers(&self, now: Instant) -> Vec<PeerStatus> {
        self.peers.iter().map(|(_, peer)| peer.status(now)).collect()
    }

    /// Peers to which packets have been going for `time`, and still go, without anything coming back: their paths may be dead,
    /// or their traffic needs no answer.
    #[must_use]
    pub fn silent_peers(&self, time: Duration, now: Instant) -> Vec<PublicKey> {
        let silent = self.peers.iter().filter(|(_, peer)| peer.is_silent(time, now));
        silent.map(|(_, peer)| peer.config().public_key).collect()
    }

    /// What metrics tell of the peers.
    #[must_use]
    pub fn figures(&self, now: Instant) -> PeerFigures {
        let mut figures = PeerFigures::default();
        self.peers.iter().for_each(|(_, peer)| figures.add(peer, now));
        figures
    }

    fn with_peer(&mut self, peer: &PublicKey, f: impl FnOnce(&mut Peer, &mut Context)) {
        let Some(id) = self.peers.id(peer) else { return };
        if let Some(peer) = self.peers.get_mut(id) {
            f(peer, &mut self.cx);
        }
        self.reschedule(id);
    }

    /// Those that can be taken, and their keys.
    fn acceptable<'a>(
        &self,
        peers: &'a [desired::Peer],
        changed: &mut PeersChanged,
    ) -> (Vec<&'a desired::Peer>, HashSet<PublicKey>) {
        let ourselves = self.public_key();
        let mut seen = HashSet::with_capacity(peers.len().min(MAX_PEERS));
        let mut wanted = Vec::with_capacity(peers.len().min(MAX_PEERS));
        for peer in peers {
            let key = peer.public_key;
            let refusal = if key == ourselves {
                PeerError::Ourselves
            } else if wanted.len() == MAX_PEERS {
                PeerError::TooMany
            } else if !seen.insert(key) {
                PeerError::Duplicate
            } else {
                wanted.push(peer);
                continue;
            };
            changed.refused.push((key, refusal));
        }
        (wanted, seen)
    }
}

/// What makes one list another one.
struct Step<'a> {
    removed: Vec<PublicKey>,
    /// Those that are new or configured differently.
    wanted: Vec<&'a desired::Peer>,
}

/// Walks both lists side by side. `None`: `peers` are not in the order of keys, or cannot all be taken.
fn step<'a>(last: &[desired::Peer], peers: &'a [desired::Peer], ourselves: &PublicKey) -> Option<Step<'a>> {
    if peers.len() > MAX_PEERS {
        return None;
    }
    let mut step = Step { removed: Vec::new(), wanted: Vec::new() };
    let mut last = last.iter().peekable();
    let mut before: Option<&PublicKey> = None;
    for peer in peers {
        let key = &peer.public_key;
        if key == ourselves || before.replace(key).is_some_and(|before| before >= key) {
            return None;
        }
        step.removed
            .extend(std::iter::from_fn(|| last.next_if(|last| last.public_key < *key)).map(|last| last.public_key));
        match last.next_if(|last| last.public_key == *key) {
            Some(last) if last == peer => {}
            _ => step.wanted.push(peer),
        }
    }
    step.removed.extend(last.map(|last| last.public_key));
    Some(step)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use ipnet::Ipv4Net;
    use peer_core::key::PrivateKey;
    use peer_core::shard::ShardId;
    use proptest::prelude::*;

    use super::*;

    use crate::EngineConfig;

    fn engine() -> Engine {
        let config = EngineConfig {
            private_key: PrivateKey::from_bytes([1; 32]),
            shard: ShardId::ONLY,
            stamps_from: Duration::ZERO,
        };
        Engine::new(config, rand::rng(), Instant::now())
    }

    /// Prefixes of 24 to 32 bits, so that some lie in each other and some are the same.
    fn peer(key: u8, hosts: &[(u8, u8)]) -> desired::Peer {
        let net = |(host, len): &(u8, u8)| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, *host), *len));
        desired::Peer {
            public_key: PublicKey([key; 32]),
            preshared_key: None,
            endpoint: None,
            allowed_ips: hosts.iter().map(net).collect::<Arc<[_]>>(),
            persistent_keepalive: None,
        }
    }

    fn owners(engine: &Engine) -> Vec<Option<PublicKey>> {
        let owner = |host| {
            let id = engine.peers.allowed().owner(Ipv4Addr::new(10, 0, 0, host).into())?;
            Some(engine.peers.get(id)?.config().public_key)
        };
        (0..=u8::MAX).map(owner).collect()
    }

    proptest! {
        /// Whose an address is does not depend on what was before.
        #[test]
        fn step_by_step_it_becomes_what_it_is_at_once(
            steps in prop::collection::vec(
                prop::collection::btree_map(2_u8..9, prop::collection::vec((0_u8..6, 30_u8..33), 0..3), 0..6),
                1..8,
            ),
        ) {
            let mut moving = engine();
            for step in steps {
                let peers: Vec<_> = step.iter().map(|(key, hosts)| peer(*key, hosts)).collect();
                moving.set_peers(Instant::now(), peers.as_slice());
                let mut fresh = engine();
                let changed = fresh.set_peers(Instant::now(), peers.as_slice());
                prop_assert_eq!(owners(&moving), owners(&fresh));
                prop_assert_eq!(moving.peers.contested, changed.contested.len());
            }
        }
    }
}
