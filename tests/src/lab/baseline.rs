//! The twin that the node is compared with: wireguard-go, kernel forwarding, iptables MASQUERADE.

use std::path::Path;

use anyhow::Result;

use super::addresses::{NODE_OVERLAY, NODE_OVERLAY6};
use super::client::{Client, Outer};
use super::gateway::Gateway;
use super::link::add_address;
use super::namespace::Namespace;
use super::process::Process;
use super::topology::{NODE_PORT, lan};
use super::tunnel::{Tunnel, set_configuration, start_wireguard_go};
use super::wireguard::KeyPair;

/// One member, the twin of the node, and the service.
pub struct Baseline {
    /// The member.
    pub client: Client,
    /// `node-baseline`.
    pub node: Namespace,
    /// Its wireguard-go.
    pub wireguard: Process,
    /// The service.
    pub gateway: Gateway,
}

impl Baseline {
    /// Builds it and lets it run.
    ///
    /// # Errors
    /// A program is missing or fails.
    pub fn start(wireguard_go: &Path) -> Result<Self> {
        let masquerade = |node: &Namespace| {
            for tables in ["iptables", "ip6tables"] {
                node.exec(tables, &["-t", "nat", "-A", "POSTROUTING", "-o", "eth0", "-j", "MASQUERADE"])?;
            }
            Ok(())
        };
        Self::start_with(wireguard_go, masquerade)
    }

    /// As [`Self::start`], with a rule of nft in place of those of iptables.
    ///
    /// # Errors
    /// As there.
    pub fn start_with_nft(wireguard_go: &Path) -> Result<Self> {
        const RULES: &str =
            "table inet twin { chain out { type nat hook postrouting priority srcnat; oif eth0 masquerade; }; }";
        Self::start_with(wireguard_go, |node| node.exec("nft", &["add", RULES]).map(drop))
    }

    fn start_with(wireguard_go: &Path, masquerade: impl Fn(&Namespace) -> Result<()>) -> Result<Self> {
        let (node, gateway) = lan("node-baseline")?;
        let keys = KeyPair::generate()?;
        let tunnel = Tunnel::WireguardGo(wireguard_go.to_owned());
        let client = Client::start(0, Outer::V4, &node, &keys.public, NODE_PORT, &tunnel)?;
        let wireguard = start_wireguard_go(&node, "wt0", wireguard_go)?;
        let text = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {NODE_PORT}\n\n[Peer]\nPublicKey = {}\nPresharedKey = {}\n\
             AllowedIPs = {}/32, {}/128\n",
            keys.private,
            client.keys.public,
            client.preshared_key,
            client.overlay(),
            client.overlay6(),
        );
        set_configuration(&node, "wt0", &text)?;
        add_address(&node, "wt0", NODE_OVERLAY, 24)?;
        add_address(&node, "wt0", NODE_OVERLAY6, 64)?;
        node.exec("ip", &["link", "set", "wt0", "up"])?;
        masquerade(&node)?;
        client.connect()?;
        Ok(Self { client, node, wireguard, gateway })
    }
}
