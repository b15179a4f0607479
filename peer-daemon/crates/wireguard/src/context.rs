//! What all peers of an engine share.

use std::sync::Arc;
use std::time::Instant;

use peer_core::path::Path;
use rand::rngs::StdRng;

use crate::core_clock::CoreClock;
use crate::engine::Roaming;
use crate::error::PacketError;
use crate::event::{Event, Events};
use crate::index::IndexTable;
use crate::known::KnownAddresses;
use crate::limits::STAGED_BYTES;
use crate::outbox::Outbox;
use crate::stats::EngineStats;
use crate::tunnel::Identity;

/// Longest inner packet, bytes.
const LONGEST_PACKET: usize = 65_535;

/// Lent to a peer while it works.
pub(crate) struct Context {
    pub(crate) identity: Identity,
    pub(crate) clock: CoreClock,
    pub(crate) indexes: IndexTable,
    pub(crate) known: KnownAddresses,
    pub(crate) outbox: Outbox,
    pub(crate) events: Events,
    pub(crate) stats: Arc<EngineStats>,
    pub(crate) rng: StdRng,
    /// Messages that go to the outbox are made here. Room for the longest packet with all overhead.
    pub(crate) scratch: Box<[u8]>,
    /// Packets are padded here.
    pub(crate) padding: Box<[u8]>,
    /// Inner MTU: padding ends there.
    pub(crate) mtu: usize,
    pub(crate) roaming: Roaming,
}

impl Context {
    pub(crate) fn new(
        identity: Identity,
        clock: CoreClock,
        indexes: IndexTable,
        rng: StdRng,
        mtu: usize,
        now: Instant,
    ) -> Self {
        let room = || vec![0; LONGEST_PACKET + 64].into_boxed_slice();
        Self {
            identity,
            clock,
            indexes,
            known: KnownAddresses::new(now),
            outbox: Outbox::default(),
            events: Events::default(),
            stats: Arc::default(),
            rng,
            scratch: room(),
            padding: room(),
            mtu,
            roaming: Roaming::default(),
        }
    }

    /// Queues the first `len` bytes of the scratch buffer. `false`: the queue is full.
    pub(crate) fn transmit(&mut self, path: Path, len: usize) -> bool {
        let queued = self.outbox.push(path, &self.scratch[..len]);
        if queued {
            self.stats.sent.datagram(len);
            self.stats.transmit_queue.set(self.outbox.len());
        } else {
            self.stats.drop_packets(PacketError::TransmitQueueFull, 1);
        }
        queued
    }

    pub(crate) fn report(&mut self, event: Event) {
        if !self.events.push(event) {
            self.stats.events_lost.add(1);
        }
        self.stats.events.set(self.events.len());
    }

    /// Whether so many bytes more may wait for sessions.
    pub(crate) fn may_stage(&self, len: usize) -> bool {
        self.stats.staged_bytes.get() + len as u64 <= STAGED_BYTES as u64
    }
}
