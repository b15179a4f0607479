//! The node at one moment, free of any netlink type.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Links, addresses and route lookups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By interface index.
    pub links: BTreeMap<u32, Link>,
    /// Ways to the addresses that were asked for; without one there is none.
    pub ways: BTreeMap<IpAddr, Vec<Way>>,
    /// Routes of the node's within the prefixes that were asked for and around them, but for default routes.
    pub routes: Vec<FibRoute>,
    /// Sources for an address by a link that was asked for by name.
    pub sources: BTreeMap<(IpAddr, u32), IpAddr>,
}

/// What a snapshot asks the kernel about ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// Addresses to which ways are wanted.
    pub destinations: Vec<IpAddr>,
    /// Prefixes within and around which routes are wanted.
    pub within: Vec<IpNet>,
    /// Addresses for which the source by a device of this name is wanted.
    pub by_device: Vec<(IpAddr, String)>,
    /// Whose packets take those ways; `None`: the node's own.
    pub origin: Option<Origin>,
}

/// Packets that the node forwards: where they come in, and a source of each family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Interface index.
    pub link: u32,
    /// Addresses, one per family at most.
    pub sources: Vec<IpAddr>,
}

/// A way out of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Interface index; the loopback device: the node itself has the address.
    pub link: u32,
    /// The next hop, if it is not the destination itself.
    pub gateway: Option<IpAddr>,
    /// The source that the kernel would choose.
    pub source: Option<IpAddr>,
}

/// A route of the node's, with all next hops that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibRoute {
    /// Where it leads.
    pub destination: IpNet,
    /// Its next hops.
    pub ways: Vec<Way>,
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
    /// It is set up.
    pub up: bool,
    /// It can carry packets: set up, and with a carrier.
    pub running: bool,
    /// Its Ethernet address.
    pub hardware: Option<[u8; 6]>,
    /// Interface index of the bond or bridge that it belongs to.
    pub controller: Option<u32>,
    /// All addresses, in the kernel's order: the primary ones come first.
    pub addresses: Vec<Address>,
}

/// What a device has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCount {
    /// Packets that it took in; a run of segments handed over as one is one.
    pub rx_packets: u64,
    /// Bytes that it sent.
    pub tx_bytes: u64,
    /// Packets that it was to send and dropped itself.
    pub tx_dropped: u64,
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
    /// Why it carries nothing now, if so.
    #[must_use]
    pub fn idle(&self) -> Option<String> {
        match (self.running, self.up) {
            (true, _) => None,
            (false, true) => Some(format!("{} has no carrier", self.name)),
            (false, false) => Some(format!("{} is down", self.name)),
        }
    }

    /// An address of its own to speak for the node: of a network rather than one alone, which may be another node's tomorrow.
    #[must_use]
    pub fn source(&self, v4: bool) -> Option<IpAddr> {
        let usable = || self.addresses.iter().filter(|address| address.usable && address.net.addr().is_ipv4() == v4);
        let alone = |address: &&Address| address.net.prefix_len() == address.net.max_prefix_len();
        usable().find(|address| !alone(address)).or_else(|| usable().next()).map(|address| address.net.addr())
    }
}

impl Snapshot {
    /// The link of a name.
    #[must_use]
    pub fn link_named(&self, name: &str) -> Option<(u32, &Link)> {
        self.links.iter().find(|(_, link)| link.name == name).map(|(index, link)| (*index, link))
    }
}
