//! What prefixes mean.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};

/// All that IPv6 gives out on the Internet (RFC 4291, section 2.4).
const GLOBAL_UNICAST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Whether a prefix is the Internet, or a half of it: who writes a default route as `0.0.0.0/1` and `128.0.0.0/1`, so that it
/// goes before the node's own, means the same by it.
#[must_use]
pub fn is_whole_internet(net: &IpNet) -> bool {
    net.prefix_len() <= 1 || matches!(net, IpNet::V6(net) if net.contains(&GLOBAL_UNICAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_the_whole_and_quarters_are_not() {
        let is = |text: &str| is_whole_internet(&text.parse().expect("a prefix"));
        for whole in ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0", "::/1", "8000::/1", "::/2", "2000::/3"] {
            assert!(is(whole), "{whole}");
        }
        for part in ["0.0.0.0/2", "10.0.0.0/8", "192.0.2.1/32", "4000::/2", "fc00::/7", "2000::/4", "2001:db8::/32"] {
            assert!(!is(part), "{part}");
        }
    }
}
