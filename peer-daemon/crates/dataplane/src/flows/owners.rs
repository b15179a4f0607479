//! Whose an overlay address is: the longest prefix decides, as in the kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;

use foldhash::{HashMap, HashMapExt as _};
use ipnet::IpNet;

use crate::PeerPrefixes;

/// Owners of prefixes.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    prefixes: HashMap<IpNet, u32>,
    /// Lengths that occur, longest last.
    lengths: BTreeSet<u8>,
}

impl Owners {
    pub(crate) fn new(peers: &[PeerPrefixes]) -> Self {
        let mut prefixes = HashMap::with_capacity(peers.iter().map(|peer| peer.prefixes.len()).sum());
        prefixes.extend(peers.iter().flat_map(|peer| peer.prefixes.iter().map(|net| (net.trunc(), peer.id))));
        let lengths = prefixes.keys().map(IpNet::prefix_len).collect();
        Self { prefixes, lengths }
    }

    /// The id of the owner.
    pub(crate) fn of(&self, addr: IpAddr) -> Option<u32> {
        let owner = |&length: &u8| self.prefixes.get(&IpNet::new(addr, length).ok()?.trunc()).copied();
        self.lengths.iter().rev().find_map(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_of_the_family_decides() {
        let peer = |(id, prefixes): (u32, &[&str])| PeerPrefixes {
            id,
            prefixes: prefixes.iter().map(|text| text.parse().expect("a prefix")).collect(),
        };
        let peers: [(u32, &[&str]); 3] = [(1, &["10.9.0.0/16", "fd00::/64"]), (2, &["10.9.1.5/24"]), (3, &["::/0"])];
        let owners = Owners::new(&peers.map(peer));
        let of = |text: &str| owners.of(text.parse().expect("an address"));
        assert_eq!(["10.9.2.1", "10.9.1.1", "fd00::1", "fd01::1"].map(of), [Some(1), Some(2), Some(1), Some(3)]);
        assert_eq!(of("10.8.0.1"), None, "::/0 owns no IPv4");
    }
}
