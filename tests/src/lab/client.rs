//! A mesh member: a WireGuard that is not ours, with plain `wg` configuration.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};

use super::addresses::{
    BEHIND_NETWORK, BEHIND_NETWORK6, LAN, LAN6, client_overlay, client_overlay6, underlay, underlay6,
};
use super::config::PeerEntry;
use super::link::{End, add_address, wire};
use super::namespace::Namespace;
use super::process::Process;
use super::tunnel::{Tunnel, set_configuration};
use super::wireguard::{KeyPair, preshared_key};

/// Family of the outer packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outer {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

/// The member and its tunnel `wg0`.
pub struct Client {
    /// Where it is.
    pub namespace: Namespace,
    /// Its identity.
    pub keys: KeyPair,
    /// Its preshared key with the node.
    pub preshared_key: String,
    index: u8,
    node_endpoint: SocketAddr,
    node_key: String,
    wireguard: Option<Process>,
}

impl Client {
    /// Wires a new member to the node and prepares its tunnel, which stays down until [`Self::connect`].
    ///
    /// # Errors
    /// A command fails.
    pub(crate) fn start(
        index: u8,
        outer: Outer,
        node: &Namespace,
        node_key: &str,
        node_port: u16,
        tunnel: &Tunnel,
    ) -> Result<Self> {
        let namespace = Namespace::new(&format!("remote{index}"))?;
        let ([near, far], [near6, far6]) = (underlay(index), underlay6(index));
        wire(
            &End { namespace: node, device: &format!("under{index}"), addresses: &[(near, 30), (near6, 64)] },
            &End { namespace: &namespace, device: "up0", addresses: &[(far, 30), (far6, 64)] },
        )?;
        let wireguard = tunnel.start(&namespace, "wg0")?;
        let endpoint = SocketAddr::new(if outer == Outer::V4 { near } else { near6 }, node_port);
        let this = Self {
            namespace,
            keys: KeyPair::generate()?,
            preshared_key: preshared_key()?,
            index,
            node_endpoint: endpoint,
            node_key: node_key.to_owned(),
            wireguard,
        };
        this.configure(endpoint)?;
        add_address(&this.namespace, "wg0", this.overlay(), 24)?;
        add_address(&this.namespace, "wg0", this.overlay6(), 64)?;
        // As the kernel's own WireGuard devices: without a link-local address from which the stack solicits routers.
        this.namespace.exec("ip", &["link", "set", "wg0", "addrgenmode", "none"])?;
        Ok(this)
    }

    /// Lets its tunnel come up. The first packet starts a handshake, and the next is due five seconds later: the node
    /// should run.
    ///
    /// # Errors
    /// A command fails.
    pub fn connect(&self) -> Result<()> {
        self.namespace.exec("ip", &["link", "set", "wg0", "up"])?;
        for network in [LAN, LAN6, BEHIND_NETWORK, BEHIND_NETWORK6] {
            self.namespace.exec("ip", &["route", "add", network, "dev", "wg0"])?;
        }
        Ok(())
    }

    /// Lets it lose its session and nothing else, as after another private key. Its next packet starts a handshake, with the
    /// cookie that it may have.
    ///
    /// # Errors
    /// `wg` fails.
    pub fn lose_session(&self) -> Result<()> {
        const FILE: &str = "/run/lab/key";
        for key in [&KeyPair::generate()?.private, &self.keys.private] {
            self.namespace.write(FILE.as_ref(), key)?;
            self.namespace.exec("wg", &["set", "wg0", "private-key", FILE])?;
        }
        Ok(())
    }

    /// Where its WireGuard messages come from, as the node sees it.
    ///
    /// # Errors
    /// `wg` fails.
    pub fn outer(&self) -> Result<SocketAddr> {
        let [_, far] = if self.node_endpoint.is_ipv4() { underlay(self.index) } else { underlay6(self.index) };
        let port = self.namespace.exec("wg", &["show", "wg0", "listen-port"])?;
        Ok(SocketAddr::new(far, port.trim().parse().context("wg show: listen-port")?))
    }

    /// The node's public key, base64.
    #[must_use]
    pub fn node_key(&self) -> &str {
        &self.node_key
    }

    /// Its wireguard-go.
    ///
    /// # Errors
    /// It uses the kernel's.
    pub fn process(&self) -> Result<&Process> {
        self.wireguard.as_ref().context("the kernel's WireGuard has no process")
    }

    /// Its address on the overlay.
    #[must_use]
    pub fn overlay(&self) -> IpAddr {
        client_overlay(self.index)
    }

    /// Its address on the overlay, IPv6.
    #[must_use]
    pub fn overlay6(&self) -> IpAddr {
        client_overlay6(self.index)
    }

    /// Where the node is, as it believes at first.
    #[must_use]
    pub fn node_endpoint(&self) -> SocketAddr {
        self.node_endpoint
    }

    /// What the node must know of it.
    #[must_use]
    pub fn as_peer(&self) -> PeerEntry {
        PeerEntry {
            public_key: self.keys.public.clone(),
            preshared_key: Some(self.preshared_key.clone()),
            allowed_ips: vec![format!("{}/32", self.overlay()), format!("{}/128", self.overlay6())],
            ..PeerEntry::default()
        }
    }

    /// Writes its whole configuration by `wg setconf`; sessions end.
    ///
    /// # Errors
    /// `wg` fails.
    pub fn configure(&self, endpoint: SocketAddr) -> Result<()> {
        let text = format!(
            "[Interface]\nPrivateKey = {}\n\n[Peer]\nPublicKey = {}\nPresharedKey = {}\nEndpoint = {endpoint}\n\
             AllowedIPs = 0.0.0.0/0, ::/0\n",
            self.keys.private, self.node_key, self.preshared_key,
        );
        set_configuration(&self.namespace, "wg0", &text)
    }

    /// Moves to another UDP port, as behind a NAT that forgot.
    ///
    /// # Errors
    /// `wg` fails.
    pub fn roam(&self, port: u16) -> Result<()> {
        self.namespace.exec("wg", &["set", "wg0", "listen-port", &port.to_string()])?;
        Ok(())
    }

    /// Seconds since 1970 of its latest handshake; 0: none.
    ///
    /// # Errors
    /// `wg` fails.
    pub fn latest_handshake(&self) -> Result<u64> {
        let text = self.namespace.exec("wg", &["show", "wg0", "latest-handshakes"])?;
        Ok(text.split_whitespace().nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or_default())
    }
}
