//! Allowed IPs of all peers: which peer owns an inner address (WireGuard paper §2, cryptokey routing).

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Longest-prefix tables; their size follows the configuration.
#[derive(Default)]
pub(crate) struct AllowedIps {
    v4: PrefixMap<Ipv4Net, u32>,
    v6: PrefixMap<Ipv6Net, u32>,
}

impl AllowedIps {
    /// From peers and their prefixes. Host bits are cut off. Where two peers claim the same prefix, the first keeps it;
    /// such prefixes are returned.
    pub(crate) fn build<'a>(peers: impl Iterator<Item = (u32, &'a [IpNet])>) -> (Self, Vec<IpNet>) {
        let mut table = Self::default();
        let mut contested = Vec::new();
        for (peer, prefixes) in peers {
            contested.extend(prefixes.iter().copied().filter(|prefix| !table.insert(peer, prefix)));
        }
        (table, contested)
    }

    /// Gives a prefix to a peer, unless another one has it; whether the peer has it now.
    pub(crate) fn insert(&mut self, peer: u32, prefix: &IpNet) -> bool {
        let owner = match prefix.trunc() {
            IpNet::V4(net) => *self.v4.entry(net).or_insert(peer),
            IpNet::V6(net) => *self.v6.entry(net).or_insert(peer),
        };
        owner == peer
    }

    /// Takes a prefix from a peer, if it is the peer's.
    pub(crate) fn remove(&mut self, peer: u32, prefix: &IpNet) {
        match prefix.trunc() {
            IpNet::V4(net) if self.v4.get(&net) == Some(&peer) => _ = self.v4.remove(&net),
            IpNet::V6(net) if self.v6.get(&net) == Some(&peer) => _ = self.v6.remove(&net),
            _ => {}
        }
    }

    /// The peer with the longest prefix that contains `addr`.
    pub(crate) fn owner(&self, addr: IpAddr) -> Option<u32> {
        match addr {
            IpAddr::V4(addr) => self.v4.get_lpm(&Ipv4Net::from(addr)).map(|(_, peer)| *peer),
            IpAddr::V6(addr) => self.v6.get_lpm(&Ipv6Net::from(addr)).map(|(_, peer)| *peer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().expect("prefix")).collect()
    }

    #[test]
    fn the_longest_prefix_owns_and_the_first_claim_stands() {
        let (a, b) =
            (nets(&["10.0.0.0/8", "fd00::/8", "0.0.0.0/0"]), nets(&["10.1.0.9/16", "fd00::5/128", "10.0.0.0/8"]));
        let (table, contested) = AllowedIps::build([(1, a.as_slice()), (2, b.as_slice())].into_iter());
        let owner = |addr: &str| table.owner(addr.parse().expect("address"));
        assert_eq!(owner("10.2.0.1"), Some(1));
        assert_eq!(owner("10.1.255.255"), Some(2));
        assert_eq!(owner("192.0.2.1"), Some(1));
        assert_eq!(owner("fd00::5"), Some(2));
        assert_eq!(owner("fd00::6"), Some(1));
        assert_eq!(owner("2001:db8::1"), None);
        assert_eq!(contested, nets(&["10.0.0.0/8"]));
    }
}
