//! What the official client would say of a node whose configuration is a file.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use peer_dataplane::Stats;
use peer_wireguard::PeerStatus;

use super::endpoint;
use crate::status::{ConnectionType, DaemonStatus, Ends, Interface, Overview, OverviewPeer, PeerState, Peers};

/// The overview of a node that needs no server.
pub(super) fn of_static(interface: Option<&Interface>, peers: &[PeerStatus], stats: Option<&Stats>) -> Overview {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let mut overview = Overview {
        peers: Peers::of(peers.iter().map(peer).collect()),
        daemon_version: version,
        daemon_status: DaemonStatus::Connected,
        networks: stats.iter().flat_map(|stats| &stats.routes).map(|route| route.destination.to_string()).collect(),
        profile_name: "default".to_owned(),
        ..Overview::default()
    };
    overview.set_interface(interface);
    overview
}

impl Overview {
    /// What the interface says.
    pub(crate) fn set_interface(&mut self, interface: Option<&Interface>) {
        let Some(interface) = interface else { return };
        self.public_key.clone_from(&interface.public_key);
        self.wireguard_port = interface.listen_port;
        for address in &interface.addresses {
            match address {
                IpNet::V4(net) => self.netbird_ip = self.netbird_ip.or(Some(*net)),
                IpNet::V6(net) => self.netbird_ipv6 = self.netbird_ipv6.or(Some(*net)),
            }
        }
    }
}

/// How long ago, as a time.
pub(crate) fn timestamp(ago: Duration) -> Option<Timestamp> {
    Timestamp::now().checked_sub(ago).ok()
}

fn peer(peer: &PeerStatus) -> OverviewPeer {
    let single = |net: &IpNet| (net.prefix_len() == net.max_prefix_len()).then(|| net.addr());
    let own: Vec<IpAddr> = peer.allowed_ips.iter().filter_map(single).collect();
    let remote = peer.path.and_then(endpoint).map(|remote| remote.to_string()).unwrap_or_default();
    let networks = peer.allowed_ips.iter().filter(|net| single(net).is_none());
    OverviewPeer {
        fqdn: peer.public_key.to_string(),
        netbird_ip: own.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None }),
        netbird_ipv6: own.iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None }),
        public_key: peer.public_key.to_string(),
        status: if peer.connected { PeerState::Connected } else { PeerState::Idle },
        last_status_update: peer.last_handshake.and_then(timestamp),
        connection_type: if peer.connected { ConnectionType::Direct } else { ConnectionType::None },
        ice_candidate_type: Ends::default(),
        ice_candidate_endpoint: Ends { local: String::new(), remote },
        relay_address: String::new(),
        last_wireguard_handshake: peer.last_handshake.and_then(timestamp),
        transfer_received: peer.rx_bytes,
        transfer_sent: peer.tx_bytes,
        latency: 0,
        quantum_resistance: false,
        networks: networks.map(ToString::to_string).collect(),
    }
}
