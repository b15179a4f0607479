//! How much memory the maps of the programs take, from their layouts: what a pod must be allowed.

use peer_common::fragment::MAX_FRAGMENTS;
use peer_common::next_hop::MAX_NEXT_HOPS;
use peer_common::policy::{ANSWERS, MAX_CELLS, MAX_DESTINATIONS, MAX_SOURCES};
use peer_common::route::{MAX_PEER_PREFIXES, MAX_PEERS, MAX_ROUTES, PORT_COUNTS};
use peer_common::{
    Addr, Answer, CellKey, CellValue, Counter, DropReason, Flow, FlowKey, Fragment, FragmentKey, Mapping, NextHop,
    NextHopKey, PacketCount, Peer, Route,
};

/// What the kernel adds to an entry of a hash map (`struct htab_elem`), and a bucket's size.
const HASH_ENTRY: u64 = 48;
const BUCKET: u64 = 16;
/// What the kernel adds to an entry of a trie (`struct lpm_trie_node`; before Linux 6.14, 16 bytes more than after).
const TRIE_NODE: u64 = 40;

/// Maps of one ABI, on a machine with so many CPUs.
#[derive(Clone, Copy, Debug)]
pub struct MapMemory {
    /// CPUs that may come to be.
    pub cpus: u64,
    /// Flows that fit.
    pub flows: u64,
}

impl MapMemory {
    /// Bytes that are taken before the first packet: hash maps and arrays.
    #[must_use]
    pub fn at_start(&self) -> u64 {
        let hashes = hash::<FlowKey, Flow>(self.flows)
            + hash::<FlowKey, Mapping>(self.flows)
            + hash::<FragmentKey, Fragment>(MAX_FRAGMENTS.into())
            + hash::<NextHopKey, u64>(MAX_NEXT_HOPS.into());
        let arrays = 2 * array::<Answer>(ANSWERS.into())
            + array::<u32>(MAX_PEERS.into())
            + array::<[u64; 2]>(MAX_PEERS.into())
            + 2 * array::<u32>(PORT_COUNTS.into())
            // The entries, and a queue of their numbers.
            + array::<NextHop>(MAX_NEXT_HOPS.into())
            + array::<u64>(MAX_NEXT_HOPS.into());
        let per_cpu = array::<PacketCount>(2 * u64::from(MAX_ROUTES))
            + array::<PacketCount>(u64::from(DropReason::COUNT))
            + array::<u64>(u64::from(Counter::COUNT));
        hashes + arrays + per_cpu * self.cpus
    }

    /// Bytes with every table full. Tries have up to as many inner nodes as entries.
    #[must_use]
    pub fn full(&self) -> u64 {
        let halves = trie::<Addr, u32>(MAX_SOURCES)
            + trie::<Addr, u32>(MAX_DESTINATIONS)
            + trie::<CellKey, CellValue>(MAX_CELLS);
        self.at_start() + 2 * halves + trie::<Addr, Route>(MAX_ROUTES) + trie::<Addr, Peer>(MAX_PEER_PREFIXES)
    }
}

fn hash<K, V>(entries: u64) -> u64 {
    let entry = HASH_ENTRY + size::<K>().next_multiple_of(8) + size::<V>().next_multiple_of(8);
    entries * entry + entries.next_power_of_two() * BUCKET
}

fn array<V>(entries: u64) -> u64 {
    entries * size::<V>().next_multiple_of(8)
}

fn trie<K, V>(entries: u32) -> u64 {
    let node = TRIE_NODE + size::<K>() + size::<V>();
    // The allocator has classes of 64, 96 and 128 bytes.
    let class = [64, 96, 128].into_iter().find(|&class| node <= class).unwrap_or(node);
    2 * u64::from(entries) * class
}

fn size<T>() -> u64 {
    size_of::<T>() as u64
}
