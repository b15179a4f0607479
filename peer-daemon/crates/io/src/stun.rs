//! STUN on the WireGuard port (RFC 8489 §5, RFC 7983): told apart from WireGuard by its header, and handed to the control
//! side through a bounded queue.
//!
//! A flood of STUN must not keep the answers of known peers from the control side. So datagrams from known addresses have a
//! queue of their own, and of strangers only [`STRANGERS_PER_SECOND`] pass.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::HashSet;
use peer_core::batch::DatagramBatch;
use peer_core::path::Path;
use tokio::sync::mpsc;

use crate::clock;
use crate::stats::{IoDrop, ShardStats};

/// Datagrams of known addresses that may wait: one check of every peer of a large mesh, all at once.
const KNOWN: usize = 4096;
/// Datagrams of strangers that may wait.
const STRANGERS: usize = 512;
/// Datagrams of strangers that pass in a second: a thousand peers that try ten candidates each within ten seconds.
pub const STRANGERS_PER_SECOND: u32 = 1000;
/// The longest datagram taken: STUN messages fit into one packet (RFC 8489 §6.1), and those of ICE have about 200 bytes.
const LONGEST: usize = 1280;

/// A STUN datagram that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StunDatagram {
    /// When, by [`clock::now`].
    pub at: Instant,
    /// Its source.
    pub remote: SocketAddr,
    /// Our address that it was sent to, where the kernel says.
    pub local: Option<IpAddr>,
    /// UDP payload.
    pub bytes: Box<[u8]>,
}

/// The control side's end of the queue.
#[derive(Debug)]
pub struct StunReceiver {
    known: mpsc::Receiver<StunDatagram>,
    strangers: mpsc::Receiver<StunDatagram>,
    addresses: KnownSources,
}

/// Sources whose datagrams go before those of strangers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct KnownSources(Arc<Mutex<HashSet<SocketAddr>>>);

/// A socket's end of the queue.
#[derive(Debug)]
pub(crate) struct StunTap {
    known: mpsc::Sender<StunDatagram>,
    strangers: mpsc::Sender<StunDatagram>,
    addresses: KnownSources,
    /// Strangers that may still pass, and when that was counted.
    budget: (u32, Instant),
}

/// Whether a datagram is STUN and not WireGuard. A WireGuard message may contain STUN's cookie by chance, so it is looked
/// for first.
#[must_use]
pub fn is_stun(datagram: &[u8]) -> bool {
    let Some((header, _)) = datagram.split_first_chunk::<STUN_HEADER>() else { return false };
    let [a, b, c, d, rest @ ..] = header;
    let is_wireguard = datagram.len() >= SHORTEST_WIREGUARD && matches!(u32::from_le_bytes([*a, *b, *c, *d]), 1..=4);
    !is_wireguard && a & 0b1100_0000 == 0 && rest.starts_with(&COOKIE)
}

pub(crate) fn tap() -> (StunTap, StunReceiver) {
    let (known_sender, known) = mpsc::channel(KNOWN);
    let (strangers_sender, strangers) = mpsc::channel(STRANGERS);
    let addresses = KnownSources::default();
    let receiver = StunReceiver { known, strangers, addresses: addresses.clone() };
    let budget = (STRANGERS_PER_SECOND, clock::now());
    (StunTap { known: known_sender, strangers: strangers_sender, addresses, budget }, receiver)
}

impl StunReceiver {
    /// The next datagram, those of known sources first; `None`: the shard has stopped. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<StunDatagram> {
        tokio::select! {
            biased;
            datagram = self.known.recv() => datagram,
            datagram = self.strangers.recv() => datagram,
        }
    }

    /// The next datagram, if one waits.
    pub fn try_recv(&mut self) -> Option<StunDatagram> {
        self.known.try_recv().or_else(|_| self.strangers.try_recv()).ok()
    }

    /// The sources that go first.
    #[must_use]
    pub fn known_sources(&self) -> KnownSources {
        self.addresses.clone()
    }
}

impl KnownSources {
    /// Replaces them all.
    pub fn set(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let addresses = addresses.into_iter().collect();
        *self.lock() = addresses;
    }

    /// Adds one.
    pub fn insert(&self, address: SocketAddr) {
        self.lock().insert(address);
    }

    /// Removes one.
    pub fn remove(&self, address: &SocketAddr) {
        self.lock().remove(address);
    }

    fn contains(&self, address: &SocketAddr) -> bool {
        self.lock().contains(address)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<SocketAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StunTap {
    /// Takes the STUN datagrams out of `batch`.
    pub(crate) fn part(&mut self, batch: &mut DatagramBatch, stats: &ShardStats) {
        batch.retain(|datagram, path| {
            let Path::Udp { remote, local } = *path else { return true };
            if !is_stun(datagram) {
                return true;
            }
            stats.stun_in.packets.add(1);
            stats.stun_in.bytes.add(datagram.len() as u64);
            if !self.take(datagram, remote, local) {
                stats.dropped(IoDrop::StunFull, 1);
            }
            false
        });
    }

    fn take(&mut self, datagram: &[u8], remote: SocketAddr, local: Option<IpAddr>) -> bool {
        if datagram.len() > LONGEST {
            return false;
        }
        let is_known = self.addresses.contains(&remote);
        let at = clock::now();
        if !is_known && !self.may_pass(at) {
            return false;
        }
        let queue = if is_known { &self.known } else { &self.strangers };
        // Nothing is allocated for what does not fit.
        let Ok(permit) = queue.try_reserve() else { return false };
        permit.send(StunDatagram { at, remote, local, bytes: datagram.into() });
        true
    }

    fn may_pass(&mut self, now: Instant) -> bool {
        let (left, since) = &mut self.budget;
        if now.saturating_duration_since(*since) >= Duration::from_secs(1) {
            (*left, *since) = (STRANGERS_PER_SECOND, now);
        }
        let passes = *left > 0;
        *left = left.saturating_sub(1);
        passes
    }
}

/// Type, length, cookie, transaction id.
const STUN_HEADER: usize = 20;
/// RFC 8489 §5.
const COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();
/// A keepalive.
const SHORTEST_WIREGUARD: usize = 32;
