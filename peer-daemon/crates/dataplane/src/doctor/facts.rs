//! What is known about the node: what the checks go by.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use peer_core::desired::Unsupported;

use crate::chain::Neighbour;
use crate::netfilter::ForwardChain;
use crate::sys::Features;
use crate::tc::Filter;
use crate::{Capabilities, Configuration};

/// What could be learned. `Err` says why it could not.
pub(super) type Learned<T> = Result<T, String>;

/// Everything.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) capabilities: Capabilities,
    pub(super) nat_ports: RangeInclusive<u16>,
    /// What is in the way of a wider range.
    pub(super) nat_bounds: Vec<String>,
    /// Further sources of NAT that no uplink has.
    pub(super) absent_sources: Vec<std::net::IpAddr>,
    /// Addresses that the mesh device should have and does not.
    pub(super) absent_addresses: Vec<std::net::IpAddr>,
    /// Whether the mesh device may have IPv6 addresses.
    pub(super) ipv6: Ipv6,
    /// Features of the kernel with the version that brought them; `None`: not asked.
    pub(super) kernel: Option<Vec<(Feature, Learned<bool>)>>,
    pub(super) bpffs: Bpffs,
    /// What is wanted of the node and it cannot do.
    pub(super) unsupported: Vec<Unsupported>,
    /// What the TUN driver can do, as `IFF_…`; `None`: not asked.
    pub(super) tun: Option<Learned<i32>>,
    pub(super) sysctls: Sysctls,
    pub(super) devices: Vec<Device>,
    /// Devices that were named and are not there.
    pub(super) absent: Vec<String>,
    /// Chains of others that drop what the kernel forwards; asked only where a route keeps sources.
    pub(super) closed_chains: Learned<Vec<ForwardChain>>,
    /// Routes that no uplink serves, and why.
    pub(super) unserved: Vec<(String, String)>,
    /// A port that the peer wants and somebody has, and who; `None`: free, or not asked.
    pub(super) busy_port: Option<(u16, Option<String>)>,
    /// Some route or address of the mesh is IPv6.
    pub(super) wants_v6: bool,
    /// What remedies may name.
    pub(super) configuration: Configuration,
}

/// Something that the programs need of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Feature {
    pub(super) name: &'static str,
    pub(super) since: &'static str,
    /// What happens without it; `None`: nothing works.
    pub(super) instead: Option<&'static str>,
}

/// What the kernel lets the mesh device have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ipv6 {
    /// IPv6.
    #[default]
    On,
    /// None, by the device's sysctl.
    Off,
    /// None at all.
    Absent,
}

/// The BPF file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bpffs {
    pub(super) path: PathBuf,
    pub(super) is_bpffs: Learned<bool>,
    pub(super) writable: Learned<bool>,
    /// Whether the mount is shared with another mount namespace; `None`: unknown.
    pub(super) propagated: Option<bool>,
}

/// Settings of the network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sysctls {
    pub(super) writable: bool,
    pub(super) local_ports: Option<RangeInclusive<u16>>,
    pub(super) reserved_ports: Vec<RangeInclusive<u16>>,
    pub(super) src_valid_mark: Option<bool>,
    pub(super) rp_filter: Option<u8>,
    /// IPv6 forwarding of the whole namespace.
    pub(super) forwarding6: Option<bool>,
}

/// What a device is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Mesh,
    Uplink,
}

/// A device.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) mtu: u32,
    pub(super) features: Learned<Features>,
    pub(super) rp_filter: Option<u8>,
    pub(super) src_valid_mark: Option<bool>,
    pub(super) forwarding4: Option<bool>,
    pub(super) forwarding6: Option<bool>,
    /// Forwards IPv6 whatever the rest of the namespace does (Linux 6.17).
    pub(super) force_forwarding6: Option<bool>,
    /// Families of the routes by it that keep sources: IPv4, IPv6.
    pub(super) keeps_sources: [bool; 2],
    /// Cilium keeps a directory of links for it.
    pub(super) has_cilium_directory: bool,
    pub(super) hooks: Vec<Hook>,
}

/// One direction of a device.
#[derive(Clone, Debug)]
pub(super) struct Hook {
    pub(super) egress: bool,
    pub(super) chain: Learned<Vec<Neighbour>>,
    pub(super) filters: Learned<Vec<Filter>>,
    /// Place of our filter among them.
    pub(super) own_filter: Option<usize>,
    /// A program of ours is pinned for this place.
    pub(super) pinned: bool,
}

#[cfg(test)]
impl Default for Facts {
    /// A node on which nothing is wrong.
    fn default() -> Self {
        Self {
            unsupported: Vec::new(),
            capabilities: Capabilities { net_admin: true, bpf: true, perfmon: true, sys_admin: false, withheld: false },
            nat_ports: crate::DEFAULT_NAT_PORTS,
            nat_bounds: Vec::new(),
            absent_sources: Vec::new(),
            absent_addresses: Vec::new(),
            ipv6: Ipv6::On,
            kernel: None,
            bpffs: Bpffs { path: "/sys/fs/bpf".into(), is_bpffs: Ok(true), writable: Ok(true), propagated: Some(true) },
            tun: None,
            sysctls: Sysctls {
                writable: true,
                local_ports: Some(32768..=60999),
                src_valid_mark: Some(false),
                rp_filter: Some(0),
                ..Sysctls::default()
            },
            devices: Vec::new(),
            absent: Vec::new(),
            closed_chains: Ok(Vec::new()),
            unserved: Vec::new(),
            busy_port: None,
            wants_v6: false,
            configuration: Configuration::File,
        }
    }
}

impl Hook {
    pub(super) fn direction(&self) -> &'static str {
        if self.egress { "egress" } else { "ingress" }
    }
}
