//! The engine: tables of peers around the peers themselves.

mod peers;
mod receive;
mod transmit;

use std::sync::Arc;
use std::time::{Duration, Instant};

use peer_core::batch::{DatagramBatch, PacketBatch};
use peer_core::filter::FilterChange;
use peer_core::key::{PrivateKey, PublicKey};
use peer_core::shard::{self, ShardId};
use rand::rngs::StdRng;
use rand::{CryptoRng, SeedableRng as _};

use self::peers::Peers;
pub use self::peers::{PeerError, PeersChanged};
use crate::admission::Admission;
use crate::context::Context;
use crate::core_clock::CoreClock;
use crate::deadlines::Deadlines;
use crate::error::PacketError;
use crate::event::Event;
use crate::fragments::Fragments;
use crate::index::IndexTable;
use crate::limits::{DEFAULT_MTU, HOUSEKEEPING, PEERS_PER_TIMEOUT};
use crate::message::DATA_OVERHEAD;
use crate::screen::Screen;
use crate::stats::EngineStats;
use crate::summary::DropSummary;
use crate::tunnel::Identity;

/// What an engine is made with.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Identity. Another key needs another engine.
    pub private_key: PrivateKey,
    /// Which shard the engine serves; goes into its session indexes.
    pub shard: ShardId,
    /// Unix time. No handshake initiation is stamped earlier, whatever the wall clock says: an earlier run has sent such
    /// stamps, and peers refuse what is not later.
    pub stamps_from: Duration,
}

/// What an authentic packet that came by another path than the peer's changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roaming {
    /// The peer is reached by that path from now on (WireGuard paper §2.1).
    #[default]
    Free,
    /// A peer that is reached by UDP may have another address, and one without a path gets this one. Whether a peer is reached
    /// by UDP or through which server, the control side decides: a late packet through a relay must not undo a direct path.
    WithinUdp,
}

/// WireGuard for all peers of one shard. Drive it as [`shard::Engine`] says.
pub struct Engine {
    peers: Peers,
    cx: Context,
    deadlines: Deadlines,
    admission: Admission,
    screen: Screen,
    fragments: Fragments,
    summary: DropSummary,
    housekeeping_at: Option<Instant>,
    housekept_at: Instant,
}

impl Engine {
    /// An engine without peers. `rng` seeds the engine's own generator, for indexes and jitter; keys are drawn by the
    /// Noise core from the operating system.
    #[must_use]
    pub fn new(config: EngineConfig, mut rng: impl CryptoRng, now: Instant) -> Self {
        let EngineConfig { private_key, shard, stamps_from } = config;
        // Before the core looks at a clock.
        let clock = CoreClock::new(stamps_from, now);
        let identity = Identity::new(&private_key);
        let indexes = IndexTable::new(shard);
        let mut rng = StdRng::from_rng(&mut rng);
        let admission = Admission::new(&identity.public_key(), &mut rng, now);
        Self {
            peers: Peers::default(),
            cx: Context::new(identity, clock, indexes, rng, DEFAULT_MTU.into(), now),
            deadlines: Deadlines::default(),
            admission,
            screen: Screen::default(),
            fragments: Fragments::default(),
            summary: DropSummary::default(),
            housekeeping_at: None,
            housekept_at: now,
        }
    }

    /// Tells the inner MTU in bytes (1420 unless told): padding does not go beyond it, nor do fragments that wait.
    pub fn set_mtu(&mut self, mtu: u16) {
        self.cx.mtu = mtu.into();
        self.fragments.set_longest(mtu.into());
    }

    /// Says which paths peers may move to by themselves ([`Roaming::Free`] unless told).
    pub fn set_roaming(&mut self, roaming: Roaming) {
        self.cx.roaming = roaming;
    }

    /// Unix time that no handshake initiation sent until `now` is stamped later than.
    pub fn newest_stamp(&mut self, now: Instant) -> Duration {
        self.cx.clock.set(now);
        self.cx.clock.newest_stamp()
    }

    /// Our own public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.cx.identity.public_key()
    }

    /// Figures that stay up to date.
    #[must_use]
    pub fn stats(&self) -> Arc<EngineStats> {
        Arc::clone(&self.cx.stats)
    }

    /// Puts a peer's deadline where the peer wants it.
    fn reschedule(&mut self, id: u32) {
        self.deadlines.set(id, self.peers.get(id).and_then(crate::peer::Peer::deadline));
    }

    /// Something happened that housekeeping has to look at.
    fn schedule_housekeeping(&mut self) {
        self.housekeeping_at.get_or_insert(self.housekept_at + HOUSEKEEPING);
    }

    fn keep_house(&mut self, now: Instant) {
        self.housekept_at = now;
        self.housekeeping_at = None;
        self.admission.expire(now);
        self.cx.stats.source_buckets.set(self.admission.sources());
        // Once more after news, so that the last drops of a burst are told too.
        if self.summary.log(&self.cx.stats) || self.admission.sources() > 0 {
            self.schedule_housekeeping();
        }
    }
}

impl shard::Engine for Engine {
    type Event = Event;

    /// Header and tag, and up to 15 bytes of padding.
    const OVERHEAD: usize = DATA_OVERHEAD + 16;

    fn handle_datagrams(&mut self, now: Instant, datagrams: &mut DatagramBatch, packets: &mut PacketBatch) {
        for (datagram, path) in datagrams.iter() {
            self.receive(now, *path, datagram, packets);
        }
        self.cx.stats.source_buckets.set(self.admission.sources());
    }

    fn handle_packets(&mut self, now: Instant, packets: &PacketBatch, datagrams: &mut DatagramBatch) {
        for (packet, ()) in packets.iter() {
            if let Err(reason) = self.send(now, packet, datagrams) {
                self.cx.stats.drop_packets(reason, 1);
                self.schedule_housekeeping();
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..PEERS_PER_TIMEOUT {
            let Some(id) = self.deadlines.pop_due(now) else { break };
            if let Some(peer) = self.peers.get_mut(id) {
                peer.handle_timeout(&mut self.cx, now);
            }
            self.reschedule(id);
        }
        if self.screen.deadline().is_some_and(|at| at <= now) {
            let screened = self.screen.handle_timeout(now, &self.cx.known, &mut self.cx.rng);
            self.cx.stats.screened(screened);
        }
        if self.fragments.deadline().is_some_and(|at| at <= now) {
            self.fragments.handle_timeout(now, &self.cx.stats);
        }
        if self.housekeeping_at.is_some_and(|at| at <= now) {
            self.keep_house(now);
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let others = [self.screen.deadline(), self.fragments.deadline(), self.housekeeping_at];
        others.into_iter().chain([self.deadlines.next()]).flatten().min()
    }

    fn poll_transmit(&mut self, datagrams: &mut DatagramBatch) -> bool {
        let dropped = self.cx.outbox.drain_into(datagrams);
        self.cx.stats.drop_packets(PacketError::NoRoom, dropped as u64);
        self.cx.stats.transmit_queue.set(self.cx.outbox.len());
        self.cx.outbox.len() > 0
    }

    fn poll_packets(&mut self, packets: &mut PacketBatch) -> bool {
        self.fragments.poll(packets, &self.cx.stats)
    }

    fn poll_filter(&mut self) -> Option<FilterChange> {
        self.screen.poll_filter()
    }

    fn filter_refused(&mut self) {
        self.screen.give_up();
    }

    fn poll_event(&mut self) -> Option<Event> {
        let event = self.cx.events.pop();
        self.cx.stats.events.set(self.cx.events.len());
        event
    }
}
