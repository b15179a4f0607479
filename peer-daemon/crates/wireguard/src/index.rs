//! Session indexes that this shard hands out.
//!
//! The 32-bit index on the wire (WireGuard paper §5.4.2, `sender`/`receiver`) is made of
//!
//! | bits | 31 … 8+s | 8+s−1 … 8 | 7 … 0 |
//! |---|---|---|---|
//! | content | random | shard number, s = [`ShardId::bits`] | the peer's session counter |
//!
//! Bits 31 … 8 are fixed for the life of a tunnel and unique in the shard; the low byte goes up with each handshake.
//! A steering program finds the shard as `(index >> 8) & (2^s − 1)`.

use std::collections::HashMap;

use peer_core::shard::ShardId;
use rand::{Rng, RngExt as _};

use crate::limits::MAX_PEERS;

/// Bits of the part that stays.
const BITS: u32 = 24;

// A free index can always be found, even with 256 shards.
const _: () = assert!(MAX_PEERS <= 1 << (BITS - 8));

/// From index to the peer that has it. One entry per tunnel, so at most [`MAX_PEERS`]; removed with the tunnel.
#[derive(Debug)]
pub(crate) struct IndexTable {
    shard: ShardId,
    owners: HashMap<u32, u32>,
}

impl IndexTable {
    pub(crate) fn new(shard: ShardId) -> Self {
        Self { shard, owners: HashMap::new() }
    }

    /// Gives `owner` a random index that nobody has; returns its 24 bits.
    pub(crate) fn insert(&mut self, owner: u32, rng: &mut impl Rng) -> u32 {
        assert!(self.owners.len() < MAX_PEERS, "one index per tunnel, one tunnel per peer");
        let free = BITS - self.shard.bits();
        let mut random = rng.random_range(0..1_u32 << free);
        loop {
            let index = random << self.shard.bits() | self.shard.number();
            if let std::collections::hash_map::Entry::Vacant(entry) = self.owners.entry(index) {
                entry.insert(owner);
                return index;
            }
            random = (random + 1) % (1 << free);
        }
    }

    /// Takes an index back.
    pub(crate) fn remove(&mut self, index: u32) {
        self.owners.remove(&index);
    }

    /// Owner of an index as it stands on the wire.
    pub(crate) fn owner(&self, wire: u32) -> Option<u32> {
        self.owners.get(&(wire >> 8)).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.owners.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn even_a_full_table_of_the_last_of_256_shards_has_no_collision() {
        let shard = ShardId::new(255, 256).expect("valid");
        let mut table = IndexTable::new(shard);
        let mut rng = StdRng::seed_from_u64(1);
        let indexes: HashSet<_> = (0..MAX_PEERS as u32).map(|owner| table.insert(owner, &mut rng)).collect();
        assert_eq!(indexes.len(), MAX_PEERS);
        for index in indexes {
            assert_eq!(index & 0xff, 255, "shard in the low bits");
            assert!(index < 1 << BITS);
        }
    }

    #[test]
    fn the_session_counter_does_not_matter_and_removal_frees() {
        let mut table = IndexTable::new(ShardId::new(2, 4).expect("valid"));
        let index = table.insert(7, &mut StdRng::seed_from_u64(2));
        for counter in [0, 1, 255] {
            let wire = index << 8 | counter;
            assert_eq!(table.owner(wire), Some(7));
            assert_eq!(wire >> 8 & 3, 2);
        }
        assert_eq!(table.owner((index ^ 4) << 8), None);
        table.remove(index);
        assert_eq!((table.owner(index << 8), table.len()), (None, 0));
    }
}
