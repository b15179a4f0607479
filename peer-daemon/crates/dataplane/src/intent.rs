//! What a dataplane is told.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use peer_core::desired::{Route, Rule, Unsupported};

/// Everything that a dataplane forwards by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The mesh device.
    pub wt0: Wt0,
    /// Overlay addresses of this node.
    pub addresses: Vec<IpAddr>,
    /// Whose overlay sources are whose.
    pub peers: Arc<[PeerPrefixes]>,
    /// Routes served.
    pub routes: Vec<Route>,
    /// Rules; what none accepts is dropped.
    pub rules: Arc<[Arc<Rule>]>,
    /// What is wanted besides and cannot be done: it is a finding.
    pub unsupported: Vec<Unsupported>,
    /// Ports that source NAT may take.
    pub nat_ports: RangeInclusive<u16>,
    /// Addresses that source NAT uses in place of an uplink's first one, as far as an uplink has them.
    pub nat_addresses: Vec<IpAddr>,
    /// Ports of the daemon itself: no packet of the mesh reaches them.
    pub listeners: Vec<Listener>,
    /// Flows that one peer may have; `None`: a quarter of what fits.
    pub peer_quota: Option<u32>,
    /// Rules of routes do not open addresses of the node itself.
    pub protect_node: bool,
    /// What the policy refuses is answered: a reset, or ICMP "administratively prohibited". Else it is dropped in silence.
    pub reject: bool,
}

/// A port of the daemon itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listener {
    /// TCP.
    Tcp(u16),
    /// UDP.
    Udp(u16),
}

/// The mesh device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wt0 {
    /// Name.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// MTU, bytes of layer 3.
    pub mtu: u32,
}

/// The overlay prefixes of one peer.
#[derive(Clone, Debug, Eq)]
pub struct PeerPrefixes {
    /// Small number, stable while the daemon runs.
    pub id: u32,
    /// Prefixes that may be sources.
    pub prefixes: Arc<[IpNet]>,
}

/// Prefixes are shared with the peer itself, and `Arc` compares what a slice holds.
impl PartialEq for PeerPrefixes {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && (Arc::ptr_eq(&self.prefixes, &other.prefixes) || self.prefixes == other.prefixes)
    }
}

/// Where no wider range can be found, see [`crate::nat_ports`]: below NodePorts, below what Cilium tracks and below the ephemeral
/// ports of Linux.
pub const DEFAULT_NAT_PORTS: RangeInclusive<u16> = 20480..=29999;
