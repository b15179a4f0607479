//! Which addresses may be checked or heard.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// Instance metadata of clouds. The IPv4 one is link-local, too.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// NAT64's well-known prefix (RFC 6052): an IPv4 address is in the last 32 bits.
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Whether `address` can be a remote candidate or a STUN source: unicast, not of this host or this link, not metadata, not in
/// `forbidden`.
pub(crate) fn is_remote(address: SocketAddr, forbidden: &[IpNet]) -> bool {
    let ip = address.ip().to_canonical();
    address.port() != 0 && is_unicast(ip) && !forbidden.iter().any(|net| net.contains(&ip))
}

fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_unicast_v4(ip),
        IpAddr::V6(ip) => {
            let parts = ip.segments();
            let site_local = parts[0] & 0xffc0 == 0xfec0;
            // Zero above 32 bits: unspecified, loopback, and IPv4-compatible.
            let low = parts[..6] == [0; 6];
            let embedded = Ipv4Addr::from_bits(u32::from(parts[6]) << 16 | u32::from(parts[7]));
            !(ip.is_multicast() || ip.is_unicast_link_local() || site_local || low || ip == METADATA_V6)
                && (parts[..6] != NAT64 || is_unicast_v4(embedded))
        }
    }
}

fn is_unicast_v4(ip: Ipv4Addr) -> bool {
    // From 224.0.0.0: multicast, reserved, broadcast. 0.0.0.0/8: "this network" (RFC 1122).
    !(ip.octets()[0] >= 224 || ip.octets()[0] == 0 || ip.is_loopback() || ip.is_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(ip: &str, forbidden: &[&str]) -> bool {
        let forbidden: Vec<IpNet> = forbidden.iter().map(|net| net.parse().expect("a prefix")).collect();
        is_remote(SocketAddr::new(ip.parse().expect("an address"), 51820), &forbidden)
    }

    #[test]
    fn only_unicast_beyond_this_link() {
        for ip in
            ["192.0.2.1", "10.0.0.1", "100.64.0.1", "2001:db8::1", "fd00::1", "64:ff9b::c000:201", "::ffff:10.0.0.1"]
        {
            assert!(remote(ip, &[]), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "169.254.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert!(!remote(ip, &[]), "{ip}");
        }
    }

    #[test]
    fn forbidden_prefixes_hold_for_mapped_addresses() {
        let overlay = ["100.64.0.0/10", "fd00::/64"];
        for ip in ["100.65.1.2", "::ffff:100.65.1.2", "fd00::5"] {
            assert!(!remote(ip, &overlay), "{ip}");
        }
        assert!(remote("192.0.2.1", &overlay));
    }

    #[test]
    fn port_zero_is_none() {
        assert!(!is_remote("192.0.2.1:0".parse().expect("an address"), &[]));
    }
}
