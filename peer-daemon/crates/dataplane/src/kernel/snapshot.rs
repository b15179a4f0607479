//! The node at one moment, free of any netlink type.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Links, addresses and route lookups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By interface index.
    pub links: BTreeMap<u32, Link>,
    /// Interface index that the FIB names for an address that was asked for.
    pub ways: BTreeMap<IpAddr, u32>,
}

/// A link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Name.
    pub name: String,
    /// MTU, bytes of layer 3.
    pub mtu: u32,
    /// Frames have an Ethernet header.
    pub ethernet: bool,
    /// The loopback device.
    pub loopback: bool,
    /// It can carry packets: set up, and with a carrier.
    pub running: bool,
    /// Its Ethernet address.
    pub hardware: Option<[u8; 6]>,
    /// Interface index of the bond or bridge that it belongs to.
    pub controller: Option<u32>,
    /// All addresses, in the kernel's order: the primary ones come first.
    pub addresses: Vec<Address>,
}

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// With its prefix.
    pub net: IpNet,
    /// May be a source: global, and neither tentative, nor deprecated, nor a second one of its network.
    pub usable: bool,
}

impl Link {
    /// The address to masquerade with.
    #[must_use]
    pub fn source(&self, v4: bool) -> Option<IpAddr> {
        self.addresses.iter().find(|address| address.usable && address.net.addr().is_ipv4() == v4).map(|a| a.net.addr())
    }
}

impl Snapshot {
    /// The link of a name.
    #[must_use]
    pub fn link_named(&self, name: &str) -> Option<(u32, &Link)> {
        self.links.iter().find(|(_, link)| link.name == name).map(|(index, link)| (*index, link))
    }
}
