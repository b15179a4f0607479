//! What a control plane wants of this node: one value, whoever says it.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnet::IpNet;

use crate::key::{PresharedKey, PrivateKey, PublicKey};

/// The whole desired state. Long lists are shared: who keeps one, or compares it with the one before, need not copy it.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Our own interface.
    pub interface: Interface,
    /// Peers of the mesh.
    pub peers: Arc<[Peer]>,
    /// Routes this node serves.
    pub routes: Vec<Route>,
    /// Rules; what none accepts is dropped.
    pub rules: Arc<[Arc<Rule>]>,
    /// What is wanted of this node besides, and it cannot do.
    pub unsupported: Vec<Unsupported>,
}

/// Something that is wanted of this node and that it cannot do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unsupported {
    /// What it is.
    pub kind: UnsupportedKind,
    /// Name of the network; empty: it has none.
    pub name: String,
    /// The prefix, the domains, or how many there are.
    pub detail: String,
}

/// Kinds of what may be wanted and this node cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnsupportedKind {
    /// A route to what names resolve to.
    DomainRoute,
    /// A default route, whole or in halves.
    ExitNode,
    /// Ingress forwarding.
    Forwarding,
}

impl UnsupportedKind {
    /// Its name, for metrics and people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DomainRoute => "domain route",
            Self::ExitNode => "exit node",
            Self::Forwarding => "forwarding rules",
        }
    }
}

/// Our own interface.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Device name.
    pub name: String,
    /// Identity.
    pub private_key: PrivateKey,
    /// UDP port; 0 lets the kernel choose.
    pub listen_port: u16,
    /// Own overlay addresses with the prefix of the overlay network.
    pub addresses: Vec<IpNet>,
    /// MTU of wt0, bytes of layer 3.
    pub mtu: u16,
}

/// A peer of the mesh.
#[derive(Clone, Debug, Eq)]
pub struct Peer {
    /// Identity.
    pub public_key: PublicKey,
    /// Optional symmetric key mixed into the handshake.
    pub preshared_key: Option<PresharedKey>,
    /// Where it is believed to be.
    pub endpoint: Option<SocketAddr>,
    /// Inner addresses that are its own, in both directions. Each prefix belongs to one peer exactly.
    pub allowed_ips: Arc<[IpNet]>,
    /// Seconds between keepalives.
    pub persistent_keepalive: Option<NonZeroU16>,
}

/// Addresses are shared between one list of a large mesh and the next, and `Arc` itself compares what a slice holds.
impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        let rest = |peer: &Self| (peer.public_key, peer.endpoint, peer.persistent_keepalive);
        rest(self) == rest(other)
            && self.preshared_key == other.preshared_key
            && (Arc::ptr_eq(&self.allowed_ips, &other.allowed_ips) || self.allowed_ips == other.allowed_ips)
    }
}

/// A destination this node forwards to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination prefix.
    pub destination: IpNet,
    /// Whether sources are replaced by the uplink's address.
    pub masquerade: bool,
    /// Which uplink.
    pub uplink: UplinkChoice,
}

/// Which uplink a route uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UplinkChoice {
    /// Whichever the kernel's FIB names.
    #[default]
    Auto,
    /// This device only.
    Named(String),
    /// Whichever of these the kernel's FIB names.
    Among(Vec<String>),
}

/// A rule. Empty `sources` permit nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Id in flow logs and metrics.
    pub id: u32,
    /// Source prefixes.
    pub sources: Vec<IpNet>,
    /// Destination prefixes.
    pub destinations: Vec<IpNet>,
    /// Protocol.
    pub protocol: Protocol,
    /// Destination ports; empty: any. Only with TCP and UDP.
    pub ports: Vec<PortRange>,
    /// What to do.
    pub action: Action,
    /// Which traffic it speaks of.
    pub scope: Scope,
}

impl Rule {
    /// A list as [`Desired`] has it.
    #[must_use]
    pub fn list(rules: impl IntoIterator<Item = Self>) -> Arc<[Arc<Self>]> {
        rules.into_iter().map(Arc::new).collect()
    }
}

/// Protocol of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Every protocol.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
}

/// Inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// First.
    pub min: u16,
    /// Last; not below `min`.
    pub max: u16,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Permits, unless another rule drops.
    Accept,
    /// Forbids.
    Drop,
}

/// Which traffic a rule speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Traffic to the node itself.
    Node,
    /// Traffic through the node.
    Route,
    /// Both.
    Both,
}
