//! How ports of source NAT are shared: counters of those in use towards a remote, and of those that one peer has there.
//!
//! A counter stands at a place that a keyed hash names, so that nobody can choose remotes that meet another's. What meets by
//! chance counts together, which can only make ports look scarcer than they are. One hash serves both arrays: a second one would
//! cost each new flow as much again.

use crate::hash::siphash13;
use crate::route::PORT_COUNTS;
use crate::{Addr, FlowKey};

/// From this part of the range on, ports towards a remote are scarce: numerator and denominator.
pub const SCARCE: (u32, u32) = (3, 4);
/// A peer's share is the range divided by this: what is left when ports become scarce serves two more peers as busy as that.
pub const SHARES: u32 = 8;

/// The hash of a remote end, as one source address of the node sees it: each source has all ports of the range.
#[inline(always)]
#[must_use]
pub fn remote_hash(hash_key: [u64; 2], key: &FlowKey, nat_addr: &Addr) -> u64 {
    siphash13(
        hash_key,
        [
            pair(&key.dst, 0),
            pair(&key.dst, 2),
            pair(nat_addr, 0),
            pair(nat_addr, 2),
            (key.dst_port as u64) << 16 | key.protocol as u64,
        ],
    )
}

/// Two words of an address, as hashes take them.
#[inline(always)]
#[must_use]
pub const fn pair(addr: &Addr, at: usize) -> u64 {
    (addr.words[at] as u64) << 32 | addr.words[at + 1] as u64
}

/// Where the ports in use towards a remote are counted.
#[inline(always)]
#[must_use]
pub const fn remote_place(remote: u64) -> u32 {
    remote as u32 % PORT_COUNTS
}

/// Where the ports that a peer has towards a remote are counted. An odd factor keeps peers of one remote apart.
#[inline(always)]
#[must_use]
pub const fn member_place(remote: u64, peer_id: u32) -> u32 {
    ((remote >> 32) as u32).wrapping_add(peer_id.wrapping_mul(0x9e37_79b1)) % PORT_COUNTS
}

/// Whether ports towards a remote are scarce when `used` of `range` are in use.
#[inline(always)]
#[must_use]
pub const fn scarce(used: u32, range: u32) -> bool {
    used as u64 * SCARCE.1 as u64 >= range as u64 * SCARCE.0 as u64
}

/// The ports that each peer may have towards a remote where they are scarce; one at least.
#[inline(always)]
#[must_use]
pub const fn share(range: u32) -> u32 {
    if range < SHARES { 1 } else { range / SHARES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_quarters_are_scarce_and_an_eighth_is_a_share() {
        assert!(!scarce(7133, 9511) && scarce(7134, 9511) && scarce(9511, 9511));
        assert!(!scarce(2, 3) && scarce(3, 3) && scarce(0, 0));
        assert_eq!([3, 7, 8, 9511].map(share), [1, 1, 1, 1188]);
    }

    #[test]
    fn peers_and_sources_are_counted_apart() {
        let key = FlowKey { dst_port: 443, protocol: 6, ..FlowKey::default() };
        let hash = |source: u32, key: &FlowKey| remote_hash([1, 2], key, &Addr::from_v4_be(source));
        let remote = hash(1, &key);
        assert_ne!(remote_place(remote), remote_place(hash(2, &key)), "each source has ports of its own");
        assert_ne!(remote_place(remote), remote_place(hash(1, &FlowKey { protocol: 17, ..key })));
        let mut places: [u32; 1000] = core::array::from_fn(|id| member_place(remote, id as u32));
        places.sort_unstable();
        assert!(
            places.windows(2).all(|pair| pair[0] != pair[1]),
            "a thousand peers of one remote have places of their own"
        );
        assert!(places.iter().all(|&place| place < PORT_COUNTS) && remote_place(remote) < PORT_COUNTS);
    }
}
