//! The whole lab.

use std::net::IpAddr;

use anyhow::Result;

use super::addresses::{BEHIND_NETWORK, BEHIND_NETWORK6, GATEWAY, GATEWAY6, NODE_LAN, NODE_LAN6};
use super::binaries::Binaries;
use super::client::{Client, Outer};
use super::config::NodeConfig;
use super::gateway::Gateway;
use super::link::{End, sysctl, wire};
use super::namespace::Namespace;
use super::node::{Capabilities, Node};
use super::wireguard::KeyPair;

/// `WireGuard` port of the node.
pub(crate) const NODE_PORT: u16 = 51820;

/// What a lab should be like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Members.
    pub clients: u8,
    /// Family of their outer packets.
    pub outer: Outer,
    /// What the daemon may do.
    pub capabilities: Capabilities,
}

impl Default for Plan {
    fn default() -> Self {
        Self { clients: 1, outer: Outer::V4, capabilities: Capabilities::Minimal }
    }
}

/// Members, node and service. Nothing of it is left when it is dropped.
pub struct Lab {
    /// Members.
    pub clients: Vec<Client>,
    /// The node.
    pub node: Node,
    /// The service.
    pub gateway: Gateway,
}

impl Lab {
    /// Builds it; neither the daemon runs yet nor a tunnel.
    ///
    /// # Errors
    /// A program is missing or fails.
    pub fn prepare(plan: &Plan, binaries: &Binaries) -> Result<Self> {
        let (namespace, gateway) = lan("node")?;
        let keys = KeyPair::generate()?;
        let mut config = NodeConfig::serving_lan(keys.private, NODE_PORT);
        let member = |index| Client::start(index, plan.outer, &namespace, &keys.public, NODE_PORT, &binaries.tunnel);
        let clients = (0..plan.clients).map(member).collect::<Result<Vec<_>>>()?;
        config.peers = clients.iter().map(Client::as_peer).collect();
        let node = Node::new(namespace, config, plan.capabilities, &binaries.daemon)?;
        Ok(Self { clients, node, gateway })
    }

    /// Builds it and starts the daemon.
    ///
    /// # Errors
    /// As [`Self::prepare`] and [`Node::start`].
    pub fn start(plan: &Plan) -> Result<Self> {
        let mut lab = Self::prepare(plan, &Binaries::find()?)?;
        lab.up()?;
        Ok(lab)
    }

    /// Starts the daemon, then lets the members' tunnels come up.
    ///
    /// # Errors
    /// As [`Node::start`] and [`Client::connect`].
    pub fn up(&mut self) -> Result<()> {
        self.node.start()?;
        self.clients.iter().try_for_each(Client::connect)
    }

    /// The only member, or the first.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.clients[0]
    }

    /// Inodes of all network namespaces.
    ///
    /// # Errors
    /// As [`Namespace::id`].
    pub fn namespace_ids(&self) -> Result<Vec<u64>> {
        let members = self.clients.iter().map(|client| &client.namespace);
        members.chain([&self.node.namespace, &self.gateway.namespace]).map(Namespace::id).collect()
    }
}

/// A node's namespace with forwarding on, as nodes have it, and the service on its LAN.
///
/// # Errors
/// A program is missing or fails.
pub fn lan(name: &str) -> Result<(Namespace, Gateway)> {
    let (node, gateway) = (Namespace::new(name)?, Namespace::new("gateway")?);
    wire(
        &End { namespace: &node, device: "eth0", addresses: &[(NODE_LAN, 24), (NODE_LAN6, 64)] },
        &End { namespace: &gateway, device: "eth0", addresses: &[(GATEWAY, 24), (GATEWAY6, 64)] },
    )?;
    for (network, next_hop) in [(BEHIND_NETWORK, GATEWAY), (BEHIND_NETWORK6, GATEWAY6)] {
        route(&node, network, next_hop)?;
    }
    sysctl(&node, "net/ipv4/ip_forward", "1")?;
    sysctl(&node, "net/ipv6/conf/all/forwarding", "1")?;
    Ok((node, Gateway::start(gateway)?))
}

fn route(namespace: &Namespace, network: &str, next_hop: IpAddr) -> Result<()> {
    namespace.exec("ip", &["route", "add", network, "via", &next_hop.to_string()])?;
    Ok(())
}
