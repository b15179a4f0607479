//! Order among fragments from the mesh: what comes before the first fragment of its packet waits for that.
//!
//! Only the first fragment has ports. The eBPF program at the device judges by them and drops what it has no ports for yet, so
//! that packets whose fragments were swapped on the way would be lost. Nothing is put together here, and nothing is dropped:
//! what has waited too long, or has to make room, goes on as it is, and the program decides.

mod firsts;
mod part;
mod waiting;

use std::time::Instant;

use peer_core::batch::PacketBatch;

use self::firsts::Firsts;
pub(crate) use self::part::Part;
use self::waiting::Waiting;
use crate::stats::EngineStats;

/// Fragments of all peers.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    firsts: Firsts,
    waiting: Waiting,
}

impl Fragments {
    /// Bytes of the longest fragment that can wait: the inner MTU. Before there is traffic: what waits is lost.
    pub(crate) fn set_longest(&mut self, bytes: usize) {
        self.waiting.set_longest(bytes);
    }

    /// Takes a fragment from a peer. `true`: it is kept, and comes back by [`Self::poll`].
    pub(crate) fn take(&mut self, now: Instant, peer: u32, part: &Part, packet: &[u8], stats: &EngineStats) -> bool {
        if part.is_first() {
            self.firsts.insert(now, peer, &part.packet);
            stats.first_fragments.set(self.firsts.len());
            stats.fragments_followed.add(self.waiting.release(peer, &part.packet));
            return false;
        }
        if self.firsts.contains(now, peer, &part.packet) {
            return false;
        }
        let taken = self.waiting.insert(now, peer, part, packet);
        stats.fragments_evicted.add(taken.evicted);
        stats.fragments_held.add(taken.held.into());
        stats.fragments_waiting.set(self.waiting.len());
        taken.held
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waiting.deadline()
    }

    /// Lets go what has waited too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant, stats: &EngineStats) {
        stats.fragments_expired.add(self.waiting.expire(now));
    }

    /// Appends what is to go on, in order, as long as there is room. Returns whether there is more.
    pub(crate) fn poll(&mut self, packets: &mut PacketBatch, stats: &EngineStats) -> bool {
        if !self.waiting.has_ready() {
            return false;
        }
        let more = self.waiting.drain_into(packets);
        stats.fragments_waiting.set(self.waiting.len());
        more
    }
}

#[cfg(test)]
mod tests;
