//! Who is where. Documentation ranges outside, the ranges of NetBird inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Overlay network.
pub const OVERLAY: &str = "100.64.0.0/24";
/// Overlay network, IPv6.
pub const OVERLAY6: &str = "fd00:64::/64";
/// The node on the overlay.
pub const NODE_OVERLAY: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 0, 1));
/// The node on the overlay, IPv6.
pub const NODE_OVERLAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 1));

/// LAN behind the node.
pub const LAN: &str = "198.51.100.0/24";
/// LAN behind the node, IPv6.
pub const LAN6: &str = "2001:db8:2::/64";
/// eth0 of the node.
pub const NODE_LAN: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// eth0 of the node, IPv6.
pub const NODE_LAN6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1));
/// The service on the LAN.
pub const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 80));
/// The service on the LAN, IPv6.
pub const GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x80));

/// Network that the node reaches through the gateway as next hop.
pub(crate) const BEHIND_NETWORK: &str = "203.0.113.0/24";
/// As above, IPv6.
pub(crate) const BEHIND_NETWORK6: &str = "2001:db8:3::/64";
/// The service behind a next hop.
pub const BEHIND: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 80));
/// The service behind a next hop, IPv6.
pub const BEHIND6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 0x80));

/// A client on the overlay; the first has index 0.
#[must_use]
pub fn client_overlay(index: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(100, 64, 0, 10 + index))
}

/// A client on the overlay, IPv6.
#[must_use]
pub fn client_overlay6(index: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 10 + u16::from(index)))
}

/// The two ends of the wire between a client and the node: node, client.
pub(crate) fn underlay(index: u8) -> [IpAddr; 2] {
    [1, 2].map(|end| IpAddr::V4(Ipv4Addr::new(192, 0, 2, 4 * index + end)))
}

/// As above, IPv6.
pub(crate) fn underlay6(index: u8) -> [IpAddr; 2] {
    [1, 2].map(|end| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, u16::from(index), 0, 0, 0, end)))
}

/// Where the servers of a mesh are.
pub const SERVERS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254));

/// A party at the wire that leads to the servers, by its number from 1 on.
pub(crate) fn at_servers(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, number))
}

/// As above, IPv6.
pub const SERVERS6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0xfe));
/// A second address of the servers: a NAT may treat it differently.
pub const OTHER_SERVERS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 253));
/// A second address of the servers, IPv6.
pub const OTHER_SERVERS6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0xfd));

/// The network at the wire that leads to the servers, IPv6.
pub(crate) const INTERNET6: &str = "2001:db8:5::/64";

/// A party at the wire that leads to the servers, by its number from 1 on, IPv6.
pub(crate) fn at_servers6(number: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, number.into()))
}
