//! Addresses from which members have made sessions lately.
//!
//! Handshake messages that bear one of them have budgets of their own, so that a flood from invented addresses does not keep
//! out members who come back from where they were. It is no proof: whoever knows a member's address can write it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use foldhash::{HashSet, HashSetExt as _};
use peer_core::path::Path;

use crate::limits::KNOWN_ADDRESSES;

/// An address is forgotten after one to two such times without a new session; active ones have one every two minutes.
const GENERATION: Duration = Duration::from_secs(3600);

/// At most [`KNOWN_ADDRESSES`] addresses. Two generations: the older one is forgotten as a whole when the younger is full or
/// [`GENERATION`] old.
#[derive(Debug)]
pub(crate) struct KnownAddresses {
    young: HashSet<IpAddr>,
    old: HashSet<IpAddr>,
    since: Instant,
    /// Addresses that came to both.
    changes: u64,
}

impl KnownAddresses {
    pub(crate) fn new(now: Instant) -> Self {
        Self { young: HashSet::new(), old: HashSet::new(), since: now, changes: 0 }
    }

    /// A member has made a session by this path. Relays are no addresses.
    pub(crate) fn note(&mut self, now: Instant, path: Path) {
        let Path::Udp { remote, .. } = path else { return };
        if now.saturating_duration_since(self.since) >= GENERATION || self.young.len() >= KNOWN_ADDRESSES / 2 {
            self.old = std::mem::take(&mut self.young);
            self.since = now;
        }
        let address = remote.ip().to_canonical();
        let was_old = self.old.remove(&address);
        if self.young.insert(address) && !was_old {
            self.changes += 1;
        }
    }

    pub(crate) fn contains(&self, path: Path) -> bool {
        let Path::Udp { remote, .. } = path else { return false };
        let address = remote.ip().to_canonical();
        self.young.contains(&address) || self.old.contains(&address)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.young.iter().chain(&self.old).copied()
    }

    /// Another number: there are addresses that were not there before.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn from(number: u32) -> Path {
        let [.., b, c] = number.to_be_bytes();
        let port = 1 + (number & 1) as u16;
        Path::Udp { remote: SocketAddr::new([10, (number >> 16) as u8, b, c].into(), port), local: None }
    }

    #[test]
    fn an_address_is_known_for_a_generation_and_forgotten_after_two() {
        let t0 = Instant::now();
        let mut known = KnownAddresses::new(t0);
        known.note(t0, from(7));
        let Path::Udp { remote, .. } = from(7) else { unreachable!() };
        let other_port = Path::Udp { remote: SocketAddr::new(remote.ip(), 999), local: None };
        assert!(known.contains(other_port) && !known.contains(from(8)));
        known.note(t0 + GENERATION, from(8));
        assert!(known.contains(from(7)));
        known.note(t0 + GENERATION * 2, from(9));
        assert!(!known.contains(from(7)) && known.contains(from(8)));
    }

    #[test]
    fn the_table_is_bounded_and_the_latest_stay() {
        let t0 = Instant::now();
        let mut known = KnownAddresses::new(t0);
        for number in 0..3 * KNOWN_ADDRESSES as u32 {
            known.note(t0, from(number));
            assert!(known.len() <= KNOWN_ADDRESSES);
        }
        let latest = 3 * KNOWN_ADDRESSES as u32 - KNOWN_ADDRESSES as u32 / 2;
        assert!((latest..3 * KNOWN_ADDRESSES as u32).all(|number| known.contains(from(number))));
    }
}
