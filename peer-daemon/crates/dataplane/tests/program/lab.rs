//! The network that all tests speak of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 0, 2));
pub(crate) const PEER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 2));
pub(crate) const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 0, 1));
pub(crate) const NODE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 1));
pub(crate) const UPLINK: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
pub(crate) const UPLINK6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1));
pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 80));
pub(crate) const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x80));
/// Behind a route that keeps sources.
pub(crate) const ROUTED: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 80));

pub(crate) const WT0: u32 = 77;
pub(crate) const ETH0: u32 = 78;
/// Where test runs say that a packet has arrived.
pub(crate) const LO: u32 = 1;

/// Another peer, once a test has told the programs of it.
pub(crate) const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 0, 3));
pub(crate) const OTHER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 3));
/// A router somewhere behind the uplink.
pub(crate) const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
pub(crate) const ROUTER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9));

/// The same places in one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) peer: IpAddr,
    pub(crate) other: IpAddr,
    pub(crate) node: IpAddr,
    pub(crate) uplink: IpAddr,
    pub(crate) server: IpAddr,
    pub(crate) router: IpAddr,
}

pub(crate) const FAMILIES: [Family; 2] = [
    Family { peer: PEER, other: OTHER, node: NODE, uplink: UPLINK, server: SERVER, router: ROUTER },
    Family { peer: PEER6, other: OTHER6, node: NODE6, uplink: UPLINK6, server: SERVER6, router: ROUTER6 },
];
