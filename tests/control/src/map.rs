//! What one peer is told of an account.

mod dns;
mod routes;
mod rules;
mod shape;

use std::collections::BTreeSet;

use crate::account::{Account, Peer};
use crate::proto::management::{
    AutoUpdateSettings, NetworkMap, PeerCapability, PeerConfig, RemotePeerConfig, SshConfig,
};

pub use shape::Shape;

/// A peer's map, as servers of this shape send it. `None`: no such peer.
#[must_use]
pub fn network_map(account: &Account, key: &str, shape: Shape) -> Option<NetworkMap> {
    let own = account.peers.get(key)?;
    let mut reachable = BTreeSet::new();
    let firewall_rules = rules::peer_rules(account, own, shape, &mut reachable);
    let (routes, routes_firewall_rules) = routes::routes(account, own, shape, &mut reachable);
    reachable.remove(key);
    let remotes = reachable.iter().filter_map(|key| account.peers.get(*key));
    let (offline, online): (Vec<_>, Vec<_>) = remotes.partition(|peer| peer.login_expired);
    let config = |peer: &&Peer| remote_peer(account, own, peer);
    let remote_peers: Vec<_> = online.iter().map(config).collect();
    let flags = shape.has_empty_flags();
    Some(NetworkMap {
        serial: account.serial,
        peer_config: Some(peer_config(account, own, shape)),
        remote_peers_is_empty: flags && remote_peers.is_empty(),
        offline_peers: offline.iter().map(config).collect(),
        dns_config: Some(dns::dns_config(account, own, &online)),
        remote_peers,
        routes,
        firewall_rules_is_empty: flags && firewall_rules.is_empty(),
        firewall_rules,
        routes_firewall_rules_is_empty: flags && routes_firewall_rules.is_empty(),
        routes_firewall_rules,
    })
}

/// The map of a peer that is no more.
#[must_use]
pub fn map_of_nobody(serial: u64) -> NetworkMap {
    NetworkMap { serial, remote_peers_is_empty: true, firewall_rules_is_empty: true, ..NetworkMap::default() }
}

/// What a peer is told of itself.
#[must_use]
pub fn peer_config(account: &Account, own: &Peer, shape: Shape) -> PeerConfig {
    let address6 = own.address6.filter(|_| shape.has_ipv6()).zip(account.network6);
    PeerConfig {
        address: format!("{}/{}", own.address, account.network.prefix_len()),
        ssh_config: Some(SshConfig::default()),
        fqdn: fqdn(account, own),
        routing_peer_dns_resolution_enabled: account.dns_resolution,
        lazy_connection_enabled: account.lazy,
        auto_update: Some(AutoUpdateSettings { version: "disabled".to_owned(), always_update: false }),
        address_v6: address6.map(|(own, net)| compact(own.into(), net.prefix_len())).unwrap_or_default(),
        ..PeerConfig::default()
    }
}

/// DNS name of a peer.
pub(crate) fn fqdn(account: &Account, peer: &Peer) -> String {
    format!("{}.{}", peer.label, account.domain)
}

/// Bytes of an address, then the length of its prefix.
pub(crate) fn compact(address: std::net::IpAddr, length: u8) -> Vec<u8> {
    let mut bytes = match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes.push(length);
    bytes
}

/// Whether a peer is told IPv6 addresses of others.
fn speaks_ipv6(own: &Peer, shape: Shape) -> bool {
    shape.has_ipv6() && own.can(PeerCapability::IPv6Overlay) && own.address6.is_some()
}

fn remote_peer(account: &Account, own: &Peer, peer: &Peer) -> RemotePeerConfig {
    let mut allowed_ips = vec![format!("{}/32", peer.address)];
    if own.address6.is_some() {
        allowed_ips.extend(peer.address6.map(|address| format!("{address}/128")));
    }
    RemotePeerConfig {
        wg_pub_key: peer.key.clone(),
        allowed_ips,
        ssh_config: Some(SshConfig { ssh_enabled: false, ssh_pub_key: peer.ssh_key.clone() }),
        fqdn: fqdn(account, peer),
        agent_version: peer.meta.netbird_version.clone(),
    }
}
