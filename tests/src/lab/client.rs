//! A mesh member: wireguard-go with plain `wg` configuration.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::addresses::{
    BEHIND_NETWORK, BEHIND_NETWORK6, LAN, LAN6, client_overlay, client_overlay6, underlay, underlay6,
};
use super::config::PeerEntry;
use super::link::{End, add_address, wire};
use super::namespace::Namespace;
use super::process::Process;
use super::traffic::wait_for;
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
    /// Its wireguard-go.
    pub wireguard: Process,
    /// Its identity.
    pub keys: KeyPair,
    /// Its preshared key with the node.
    pub preshared_key: String,
    index: u8,
    node_endpoint: SocketAddr,
    node_key: String,
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
        wireguard_go: &Path,
    ) -> Result<Self> {
        let namespace = Namespace::new(&format!("remote{index}"))?;
        let ([near, far], [near6, far6]) = (underlay(index), underlay6(index));
        wire(
            &End { namespace: node, device: &format!("under{index}"), addresses: &[(near, 30), (near6, 64)] },
            &End { namespace: &namespace, device: "up0", addresses: &[(far, 30), (far6, 64)] },
        )?;
        let wireguard = start_wireguard(&namespace, "wg0", wireguard_go)?;
        let endpoint = SocketAddr::new(if outer == Outer::V4 { near } else { near6 }, node_port);
        let this = Self {
            namespace,
            wireguard,
            keys: KeyPair::generate()?,
            preshared_key: preshared_key()?,
            index,
            node_endpoint: endpoint,
            node_key: node_key.to_owned(),
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

/// Starts a wireguard-go and waits until it takes configuration.
pub(crate) fn start_wireguard(namespace: &Namespace, device: &str, program: &Path) -> Result<Process> {
    let name = format!("wireguard-go in {}", namespace.name());
    let mut process = Process::start(&name, namespace.command(program).args(["-f", device]))?;
    let socket = format!("/run/wireguard/{device}.sock");
    let ready = wait_for(Duration::from_secs(5), || namespace.enter(|| Path::new(&socket).exists()));
    ensure!(ready && process.ended()?.is_none(), "{name} does not start: {}", process.log());
    Ok(process)
}

/// Configures a wireguard-go.
pub(crate) fn set_configuration(namespace: &Namespace, device: &str, text: &str) -> Result<()> {
    let path = format!("/run/lab/{device}.conf");
    namespace.write(path.as_ref(), text)?;
    namespace.exec("wg", &["setconf", device, &path])?;
    Ok(())
}
