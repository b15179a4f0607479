//! From the desired state to what device and dataplane are told. Pure.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use peer_core::desired::Desired;
use peer_core::net::is_whole_internet;
use peer_dataplane::nat_ports::{self, Choice};
use peer_dataplane::{Intent, Listener, PeerPrefixes, ReadyRoutes};
use peer_io::wt0::Wt0Config;

use crate::cli::UpArgs;
use crate::peers::PeerIds;

/// What the command line says, and what the daemon itself occupies.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) nat_ports: RangeInclusive<u16>,
    pub(crate) nat_addresses: Vec<IpAddr>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) peer_quota: Option<u32>,
    pub(crate) protect_node: bool,
    pub(crate) reject: bool,
    pub(crate) ready_routes: ReadyRoutes,
}

impl Limits {
    /// Of the command line, for the mesh device `wt0`; WireGuard has bound `port`, the health endpoints perhaps one of TCP.
    pub(crate) fn of(args: &UpArgs, wt0: &str, port: u16, health: Option<u16>) -> Self {
        let listeners = std::iter::once(Listener::Udp(port)).chain(health.map(Listener::Tcp)).collect();
        let nat_ports = args.nat_ports.clone().unwrap_or_else(|| {
            let Choice { ports, bounds } = nat_ports::look(&args.bpffs, wt0);
            tracing::info!(first = ports.start(), last = ports.end(), ?bounds, "ports of source NAT chosen");
            ports
        });
        Self {
            nat_ports,
            nat_addresses: args.nat_addresses.clone(),
            listeners,
            peer_quota: args.peer_flows,
            protect_node: args.netbird.protect_node == Some(true),
            reject: args.reject == Some(true),
            ready_routes: args.ready_routes,
        }
    }
}

/// What the dataplane is told; `ids` are those of its peers.
pub(crate) fn intent(desired: &Desired, ids: &PeerIds, wt0: peer_dataplane::Wt0, limits: &Limits) -> Intent {
    let prefixes = |(peer, id): (&peer_core::desired::Peer, &u32)| PeerPrefixes {
        id: *id,
        prefixes: Arc::clone(&peer.allowed_ips),
    };
    Intent {
        wt0,
        addresses: desired.interface.addresses.iter().map(IpNet::addr).collect(),
        peers: desired.peers.iter().zip(ids.in_order()).map(prefixes).collect(),
        routes: desired.routes.clone(),
        rules: Arc::clone(&desired.rules),
        unsupported: desired.unsupported.clone(),
        nat_ports: limits.nat_ports.clone(),
        nat_addresses: limits.nat_addresses.clone(),
        listeners: limits.listeners.clone(),
        peer_quota: limits.peer_quota,
        protect_node: limits.protect_node,
        reject: limits.reject,
    }
}

/// Queues of the device: one shard reads them.
pub(super) const QUEUES: usize = 1;

/// How the device shall be. Peers are reached by routes into it, but for what its own networks cover, and but for a
/// default route, whole or in halves: that would take the node's own way out.
pub(super) fn device(desired: &Desired) -> Wt0Config {
    let interface = &desired.interface;
    let covered = |net: &IpNet| interface.addresses.iter().any(|own| own.trunc().contains(net));
    let allowed = desired.peers.iter().flat_map(|peer| &*peer.allowed_ips);
    let mut routes: Vec<IpNet> = allowed.filter(|net| !is_whole_internet(net) && !covered(net)).copied().collect();
    routes.sort();
    routes.dedup();
    Wt0Config {
        name: interface.name.clone(),
        mtu: interface.mtu,
        addresses: interface.addresses.clone(),
        routes,
        queues: QUEUES,
        adopt: true,
    }
}

#[cfg(test)]
mod tests {
    use peer_core::desired::{Interface, Peer};
    use peer_core::key::{PrivateKey, PublicKey};

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    #[test]
    fn routes_into_the_device_are_what_its_networks_do_not_cover() {
        let peer = |key, allowed: &[&str]| Peer {
            public_key: PublicKey([key; 32]),
            preshared_key: None,
            endpoint: None,
            allowed_ips: allowed.iter().map(|text| net(text)).collect(),
            persistent_keepalive: None,
        };
        let desired = Desired {
            interface: Interface {
                name: "wt0".into(),
                private_key: PrivateKey::from_bytes([1; 32]),
                listen_port: 0,
                addresses: vec![net("100.64.0.1/16")],
                mtu: 1420,
            },
            peers: [
                peer(1, &["100.64.0.2/32", "10.9.0.0/24", "0.0.0.0/1", "128.0.0.0/1"]),
                peer(2, &["0.0.0.0/0", "fd00::/64"]),
            ]
            .into(),
            routes: Vec::new(),
            rules: Arc::default(),
            unsupported: Vec::new(),
        };
        assert_eq!(device(&desired).routes, [net("10.9.0.0/24"), net("fd00::/64")]);
        let wt0 = peer_dataplane::Wt0 { name: "wt0".into(), index: 3, mtu: 1420 };
        let limits = Limits {
            nat_ports: 20480..=29999,
            nat_addresses: Vec::new(),
            listeners: vec![Listener::Udp(51820)],
            peer_quota: None,
            protect_node: true,
            reject: true,
            ready_routes: ReadyRoutes::default(),
        };
        let intent = intent(&desired, &PeerIds::default().with(&desired.peers), wt0, &limits);
        assert_eq!((&intent.listeners, intent.protect_node, intent.reject), (&limits.listeners, true, true));
        assert_eq!(intent.peers.iter().map(|peer| peer.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(intent.addresses, ["100.64.0.1".parse::<IpAddr>().expect("an address")]);
    }
}
