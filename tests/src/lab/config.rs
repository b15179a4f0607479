//! The node's configuration file.

use std::fmt::{self, Display, Formatter};

use super::addresses::{BEHIND_NETWORK, BEHIND_NETWORK6, LAN, LAN6, NODE_OVERLAY, NODE_OVERLAY6, OVERLAY, OVERLAY6};

/// All of it; [`Display`] writes the TOML that `peer-daemon up --config` reads.
#[derive(Clone)]
pub struct NodeConfig {
    /// Own private key.
    pub private_key: String,
    /// UDP port.
    pub listen_port: u16,
    /// Of wt0, bytes.
    pub mtu: u16,
    /// Own addresses on the overlay, each with its network.
    pub addresses: Vec<String>,
    /// Peers.
    pub peers: Vec<PeerEntry>,
    /// Routes.
    pub routes: Vec<RouteEntry>,
    /// Rules.
    pub rules: Vec<RuleEntry>,
}

/// `[[peer]]`.
#[derive(Clone, Debug, Default)]
pub struct PeerEntry {
    /// Public key.
    pub public_key: String,
    /// Preshared key.
    pub preshared_key: Option<String>,
    /// Address and port.
    pub endpoint: Option<String>,
    /// Inner addresses.
    pub allowed_ips: Vec<String>,
    /// Seconds.
    pub persistent_keepalive: Option<u16>,
}

/// `[[route]]`.
#[derive(Clone, Debug)]
pub struct RouteEntry {
    /// Destination prefix.
    pub destination: String,
    /// Whether the LAN sees the node's address.
    pub masquerade: bool,
    /// `auto`, or a device.
    pub uplink: String,
}

/// `[[rule]]`.
#[derive(Clone, Debug)]
pub struct RuleEntry {
    /// Source prefixes.
    pub sources: Vec<String>,
    /// Destination prefixes.
    pub destinations: Vec<String>,
    /// `any`, `tcp`, `udp`, `icmp`.
    pub protocol: &'static str,
    /// Ports; empty: all.
    pub ports: Vec<u16>,
    /// `accept` or `drop`.
    pub action: &'static str,
}

impl NodeConfig {
    /// A node that serves all of the lab's LAN to everybody on the overlay, and nothing of itself.
    #[must_use]
    pub fn serving_lan(private_key: String, listen_port: u16) -> Self {
        let networks = [LAN, LAN6, BEHIND_NETWORK, BEHIND_NETWORK6];
        let routes = networks.map(RouteEntry::masqueraded).to_vec();
        let rules = vec![RuleEntry::new("accept", "any", &networks, &[])];
        let addresses = vec![format!("{NODE_OVERLAY}/24"), format!("{NODE_OVERLAY6}/64")];
        Self { private_key, listen_port, mtu: 1420, addresses, peers: Vec::new(), routes, rules }
    }
}

impl RouteEntry {
    /// A route by whatever uplink leads there, behind the node's address.
    #[must_use]
    pub fn masqueraded(destination: &str) -> Self {
        Self { destination: destination.to_owned(), masquerade: true, uplink: "auto".to_owned() }
    }
}

impl RuleEntry {
    /// A rule for everybody on the overlay.
    #[must_use]
    pub fn new(action: &'static str, protocol: &'static str, destinations: &[&str], ports: &[u16]) -> Self {
        Self {
            sources: [OVERLAY, OVERLAY6].map(str::to_owned).to_vec(),
            destinations: destinations.iter().map(|&text| text.to_owned()).collect(),
            protocol,
            ports: ports.to_vec(),
            action,
        }
    }
}

impl Display for NodeConfig {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "[interface]\nname = \"wt0\"\nmtu = {}\nprivate_key = \"{}\"", self.mtu, self.private_key)?;
        writeln!(out, "listen_port = {}", self.listen_port)?;
        writeln!(out, "addresses = {:?}", self.addresses)?;
        for peer in &self.peers {
            write!(out, "{peer}")?;
        }
        for route in &self.routes {
            writeln!(
                out,
                "\n[[route]]\ndestination = \"{}\"\nmasquerade = {}\nuplink = \"{}\"",
                route.destination, route.masquerade, route.uplink
            )?;
        }
        for rule in &self.rules {
            write!(out, "{rule}")?;
        }
        Ok(())
    }
}

impl Display for PeerEntry {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "\n[[peer]]\npublic_key = \"{}\"", self.public_key)?;
        writeln!(out, "allowed_ips = {:?}", self.allowed_ips)?;
        if let Some(key) = &self.preshared_key {
            writeln!(out, "preshared_key = \"{key}\"")?;
        }
        if let Some(endpoint) = &self.endpoint {
            writeln!(out, "endpoint = \"{endpoint}\"")?;
        }
        if let Some(seconds) = self.persistent_keepalive {
            writeln!(out, "persistent_keepalive = {seconds}")?;
        }
        Ok(())
    }
}

impl Display for RuleEntry {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "\n[[rule]]\naction = \"{}\"\nprotocol = \"{}\"", self.action, self.protocol)?;
        writeln!(out, "sources = {:?}\ndestinations = {:?}", self.sources, self.destinations)?;
        if !self.ports.is_empty() {
            writeln!(out, "ports = {:?}", self.ports)?;
        }
        Ok(())
    }
}
