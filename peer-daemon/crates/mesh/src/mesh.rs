//! All connections together.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt as _, HashSet};
use peer_core::key::PublicKey;
use rand::rngs::StdRng;
use rand::{CryptoRng, RngExt as _, SeedableRng as _};

use crate::conn::Conn;
use crate::message::RelayServer;
use crate::metrics::MeshStats;
use crate::types::{Action, Input, Status};

/// What stays the same.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Own identity.
    pub own_key: PublicKey,
    /// UDP port of the own WireGuard, for offers.
    pub wireguard_port: u16,
    /// Own version, for offers.
    pub version: String,
    /// How many peers that appear together are greeted although they may be lazy: an offer wakes the other side, so that
    /// its first packet need not wait. More are left alone.
    pub greetings: usize,
    /// After how long without data a peer that may be lazy is left alone.
    pub inactivity: Duration,
    /// Whether direct paths are sought; without, relays carry everything.
    pub ice: bool,
}

/// A peer as the map knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Identity.
    pub key: PublicKey,
    /// Whether it may be left unconnected while nobody wants it; see [`crate::version::can_be_lazy`].
    pub can_be_lazy: bool,
}

/// The connections to all peers of the map.
#[derive(Debug)]
pub struct Mesh {
    conns: HashMap<PublicKey, Conn>,
    /// Of each connection that waits for one, the time, as [`Conn`] last said it.
    timers: BTreeSet<(Instant, PublicKey)>,
    due: HashMap<PublicKey, Instant>,
    shared: Shared,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    /// Whether peers may be left unconnected while nobody wants them.
    pub(crate) lazy: bool,
    pub(crate) signal: bool,
    pub(crate) home: Option<RelayServer>,
    pub(crate) rng: StdRng,
    pub(crate) actions: VecDeque<(PublicKey, Action)>,
    pub(crate) stats: Arc<MeshStats>,
}

impl Mesh {
    /// No peer, no server.
    #[must_use]
    pub fn new(settings: Settings, mut rng: impl CryptoRng) -> Self {
        let rng = StdRng::from_rng(&mut rng);
        let (actions, stats) = (VecDeque::new(), Arc::default());
        let shared = Shared { settings, lazy: false, signal: false, home: None, rng, actions, stats };
        Self { conns: HashMap::new(), timers: BTreeSet::new(), due: HashMap::new(), shared }
    }

    /// Takes the peers of a map, each once, and whether it wants idle peers to stay unconnected.
    pub fn set_peers(&mut self, remotes: impl IntoIterator<Item = Remote>, lazy: bool, now: Instant) {
        let same = std::mem::replace(&mut self.shared.lazy, lazy) == lazy;
        let remotes: Vec<(PublicKey, bool)> =
            remotes.into_iter().map(|remote| (remote.key, remote.can_be_lazy)).collect();
        // Of what stays as it was nothing is to be told: in a large mesh that is nearly everybody.
        let (mut told, mut new) = (Vec::new(), 0);
        for (key, can_be_lazy) in &remotes {
            let known = self.conns.get(key);
            new += usize::from(known.is_none());
            if !same || known.is_none_or(|conn| conn.can_be_lazy() != *can_be_lazy) {
                told.push((*key, *can_be_lazy));
            }
        }
        if remotes.len() - new < self.conns.len() {
            let wanted: HashSet<PublicKey> = remotes.iter().map(|(key, _)| *key).collect();
            let gone: Vec<PublicKey> = self.conns.keys().filter(|key| !wanted.contains(*key)).copied().collect();
            for key in gone {
                self.with(key, Conn::close);
                self.conns.remove(&key);
                self.schedule(key);
            }
        }
        told.sort_unstable();
        let greet = new <= self.shared.settings.greetings;
        let spread = spread(new);
        let own = self.shared.settings.own_key;
        for (key, can_be_lazy) in told {
            let first = now + self.shared.rng.random_range(Duration::ZERO..spread);
            let greet = greet && !self.conns.contains_key(&key);
            self.conns.entry(key).or_insert_with(|| Conn::new(own, key, now));
            self.with(key, |conn, shared| {
                conn.configure(shared, can_be_lazy, first, now);
                if greet {
                    conn.greet(shared, first, now);
                }
            });
        }
    }

    /// The signal server was reached, or lost.
    pub fn set_signal(&mut self, reachable: bool, now: Instant) {
        if std::mem::replace(&mut self.shared.signal, reachable) != reachable {
            self.servers_changed(now);
        }
    }

    /// The home relay was reached, or lost.
    pub fn set_home_relay(&mut self, home: Option<RelayServer>, now: Instant) {
        if self.shared.home != home {
            self.shared.home = home;
            self.servers_changed(now);
        }
    }

    /// Our own addresses, as peers may reach them, are others now.
    pub fn candidates_changed(&mut self, now: Instant) {
        self.with_all(now, Conn::candidates_changed);
    }

    /// Something happened to the peer `key`. Of peers that are not in the map nothing is heard.
    pub fn handle(&mut self, key: PublicKey, input: Input, now: Instant) {
        self.with(key, |conn, shared| conn.handle(shared, input, now));
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            self.with(key, |conn, shared| conn.handle_timeout(shared, now));
        }
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// What to do next, and for which peer.
    pub fn poll_action(&mut self) -> Option<(PublicKey, Action)> {
        self.shared.actions.pop_front()
    }

    /// How it stands with the peer `key`.
    #[must_use]
    pub fn status(&self, key: &PublicKey) -> Option<Status> {
        self.conns.get(key).map(Conn::status)
    }

    /// How it stands with every peer.
    pub fn statuses(&self) -> impl Iterator<Item = (PublicKey, Status)> {
        self.conns.iter().map(|(key, conn)| (*key, conn.status()))
    }

    /// Figures of all connections.
    #[must_use]
    pub fn stats(&self) -> Arc<MeshStats> {
        Arc::clone(&self.shared.stats)
    }

    fn servers_changed(&mut self, now: Instant) {
        self.with_all(now, Conn::servers_changed);
    }

    /// Changes all connections; each gets a time for its first offer after that.
    fn with_all(&mut self, now: Instant, change: impl Fn(&mut Conn, &mut Shared, Instant, Instant)) {
        let keys: Vec<PublicKey> = self.conns.keys().copied().collect();
        let spread = spread(keys.len());
        for key in keys {
            let first = now + self.shared.rng.random_range(Duration::ZERO..spread);
            self.with(key, |conn, shared| change(conn, shared, first, now));
        }
    }

    fn with(&mut self, key: PublicKey, change: impl FnOnce(&mut Conn, &mut Shared)) {
        if let Some(conn) = self.conns.get_mut(&key) {
            change(conn, &mut self.shared);
            self.schedule(key);
        }
    }

    fn schedule(&mut self, key: PublicKey) {
        let next = self.conns.get(&key).and_then(|conn| conn.poll_timeout(&self.shared));
        let last = self.due.get(&key).copied();
        if next == last {
            return;
        }
        if let Some(last) = last {
            self.timers.remove(&(last, key));
            self.due.remove(&key);
        }
        if let Some(next) = next {
            self.timers.insert((next, key));
            self.due.insert(key, next);
        }
    }
}

/// Over how long the first offers to so many peers are spread.
fn spread(peers: usize) -> Duration {
    let peers = u32::try_from(peers).unwrap_or(u32::MAX);
    PER_PEER.saturating_mul(peers).clamp(PER_PEER, LONGEST_SPREAD)
}

const PER_PEER: Duration = Duration::from_millis(1);
const LONGEST_SPREAD: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
