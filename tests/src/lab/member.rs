//! A mesh member without official programs: the control plane's member, with a wireguard-go behind it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use peer_test_control::KeyPair;
use peer_test_control::member::{Agent, Device, Habits, Heard, Membership, PeerSettings};
use peer_test_control::proto::management::PeerConfig;
use tokio::runtime::{Builder, Runtime};

use super::link::add_address;
use super::namespace::Namespace;
use super::process::Process;
use super::tunnel::{Tunnel, set_configuration};

const DEVICE: &str = "wg0";
const PORT: u16 = 51820;

/// The member. It leaves when dropped, without a word.
pub struct Member {
    /// Where it is.
    pub namespace: Namespace,
    /// Its identity.
    pub keys: KeyPair,
    heard: Arc<Mutex<Heard>>,
    runtime: Option<Runtime>,
    _wireguard: Option<Process>,
}

/// How it joins.
#[derive(Clone, Debug)]
pub struct Joining {
    /// Management.
    pub url: String,
    /// Lets it in.
    pub setup_key: String,
    /// Its name.
    pub hostname: String,
    /// What it does differently.
    pub habits: Habits,
}

impl Member {
    /// Lets a new one join from a namespace that reaches the servers.
    ///
    /// # Errors
    /// A program is missing or fails.
    pub fn join(namespace: Namespace, tunnel: &Tunnel, joining: Joining) -> Result<Self> {
        Self::join_as(KeyPair::generate(), namespace, tunnel, joining)
    }

    /// As [`Self::join`], with an identity that may be known already.
    ///
    /// # Errors
    /// A program is missing or fails.
    pub fn join_as(keys: KeyPair, namespace: Namespace, tunnel: &Tunnel, joining: Joining) -> Result<Self> {
        let wireguard = tunnel.start(&namespace, DEVICE)?;
        let text = format!("[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n", keys.private_text());
        set_configuration(&namespace, DEVICE, &text)?;
        namespace.exec("ip", &["link", "set", DEVICE, "addrgenmode", "none"])?;
        let Joining { url, setup_key, hostname, habits } = joining;
        let wireguard_at = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);
        let membership = Membership { url, setup_key, hostname, keys: keys.clone(), wireguard: wireguard_at, habits };
        let device = Wg { namespace: namespace.clone(), routes: BTreeSet::new() };
        let (agent, heard) = Agent::new(membership, Box::new(device));
        // Threads are in the namespaces of the thread that makes them.
        let runtime = namespace.enter(|| Builder::new_multi_thread().worker_threads(1).enable_all().build())?;
        runtime.spawn(agent.run());
        Ok(Self { namespace, keys, heard, runtime: Some(runtime), _wireguard: wireguard })
    }

    /// What it has heard and done.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether its path to a peer stands.
    #[must_use]
    pub fn is_connected(&self, key: &str) -> bool {
        self.heard().connected.contains(key)
    }

    /// Its address on the overlay.
    ///
    /// # Errors
    /// It has no map yet.
    pub fn overlay(&self) -> Result<IpAddr> {
        let map = self.heard().map.context("no map yet")?;
        let own = map.peer_config.context("a map without the peer's own address")?;
        Ok(own.address.parse::<IpNet>()?.addr())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The interface, by `wg` and `ip`.
struct Wg {
    namespace: Namespace,
    routes: BTreeSet<IpNet>,
}

impl Device for Wg {
    fn configure(&mut self, own: &PeerConfig) -> Result<()> {
        self.namespace.exec("ip", &["address", "flush", "dev", DEVICE])?;
        let address: IpNet = own.address.parse().with_context(|| format!("own address {}", own.address))?;
        add_address(&self.namespace, DEVICE, address.addr(), address.prefix_len())?;
        if let Some((&length, bytes)) = own.address_v6.split_last() {
            let bytes: [u8; 16] = bytes.try_into().context("own IPv6 address")?;
            add_address(&self.namespace, DEVICE, IpAddr::from(bytes), length)?;
        }
        self.namespace.exec("ip", &["link", "set", DEVICE, "up"])?;
        Ok(())
    }

    fn set_peer(&mut self, peer: &PeerSettings) -> Result<()> {
        let allowed: Vec<_> = peer.allowed_ips.iter().map(ToString::to_string).collect();
        let allowed = allowed.join(",");
        let endpoint = peer.endpoint.map(|endpoint| endpoint.to_string());
        let mut arguments = vec!["set", DEVICE, "peer", &peer.key, "allowed-ips", &allowed];
        if let Some(endpoint) = &endpoint {
            arguments.extend(["endpoint", endpoint]);
        }
        if peer.keepalive {
            arguments.extend(["persistent-keepalive", "25"]);
        }
        self.namespace.exec("wg", &arguments)?;
        Ok(())
    }

    fn remove_peer(&mut self, key: &str) -> Result<()> {
        self.namespace.exec("wg", &["set", DEVICE, "peer", key, "remove"])?;
        Ok(())
    }

    fn set_routes(&mut self, prefixes: &BTreeSet<IpNet>) -> Result<()> {
        for gone in self.routes.difference(prefixes) {
            self.namespace.exec("ip", &["route", "del", &gone.to_string(), "dev", DEVICE])?;
        }
        for new in prefixes.difference(&self.routes) {
            self.namespace.exec("ip", &["route", "add", &new.to_string(), "dev", DEVICE])?;
        }
        self.routes.clone_from(prefixes);
        Ok(())
    }
}
