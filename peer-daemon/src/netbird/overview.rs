//! What the official client would say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use peer_core::key::PublicKey;
use peer_ice::PairStatus;
use peer_mesh::{PathKind, State, Status};
use peer_netbird::meta::NETBIRD_VERSION;
use peer_netmap::model::RemotePeer;
use peer_wireguard::PeerStatus;

use super::View;
use super::view::{Board, Link, Login};
use crate::admin::{endpoint, timestamp};
use crate::status::{
    ConnectionType, DaemonStatus, Ends, Interface, Overview, OverviewPeer, PeerState, Peers, Relays, Server,
};

impl View {
    /// The overview; the engine says `peers`.
    pub(crate) fn overview(&self, interface: Option<&Interface>, peers: &[PeerStatus]) -> Overview {
        let engine: HashMap<_, _> = peers.iter().map(|peer| (peer.public_key, peer)).collect();
        let statuses: HashMap<PublicKey, Status> = self.mesh().statuses().collect();
        let board = self.board();
        let peer = |named: &Arc<RemotePeer>| {
            let status = statuses.get(&named.key);
            let is_direct = status.is_some_and(|status| status.kind.is_some_and(|kind| kind != PathKind::Relay));
            let pair = self.direct.as_ref().filter(|_| is_direct).and_then(|direct| direct.pair(&named.key));
            peer(named, status, engine.get(&named.key).copied(), pair.as_ref())
        };
        let mut overview = Overview {
            peers: Peers::of(board.all_peers().map(peer).collect()),
            // What servers and members are told: readers of this compare it with NetBird's releases.
            daemon_version: NETBIRD_VERSION.to_owned(),
            daemon_status: daemon_status(&board),
            management: server(&self.management_url, &board.management),
            signal: server(&board.signal_url, &board.signal),
            relays: Relays::of(self.relays()),
            fqdn: board.fqdn.clone(),
            networks: board.served.clone(),
            events: board.events.iter().cloned().collect(),
            lazy_connection_enabled: board.lazy,
            profile_name: "default".to_owned(),
            ..Overview::default()
        };
        drop(board);
        overview.set_interface(interface);
        overview
    }
}

fn daemon_status(board: &Board) -> DaemonStatus {
    match board.login {
        Login::NeedsSetupKey => DaemonStatus::NeedsLogin,
        Login::Refused => DaemonStatus::LoginFailed,
        Login::Expired => DaemonStatus::SessionExpired,
        Login::In | Login::Unknown if board.management.connected && board.signal.connected => DaemonStatus::Connected,
        Login::In | Login::Unknown => DaemonStatus::Connecting,
    }
}

fn server(url: &str, link: &Link) -> Server {
    Server { url: url.to_owned(), connected: link.connected, error: link.error.clone() }
}

fn peer(
    named: &RemotePeer,
    status: Option<&Status>,
    engine: Option<&PeerStatus>,
    pair: Option<&PairStatus>,
) -> OverviewPeer {
    let own = named.allowed_ips.iter().filter(|net| net.prefix_len() == net.max_prefix_len());
    let state = match status.map(|status| status.state) {
        Some(State::Connected) => PeerState::Connected,
        Some(State::Connecting) => PeerState::Connecting,
        Some(State::Idle) | None => PeerState::Idle,
    };
    // What there is to say of a connection is said of one that is.
    let engine = engine.filter(|_| state == PeerState::Connected);
    let connected = status.filter(|_| state == PeerState::Connected);
    let remote = engine.and_then(|peer| peer.path).and_then(endpoint);
    OverviewPeer {
        fqdn: named.fqdn.clone(),
        netbird_ip: own.clone().find_map(|net| if let IpNet::V4(net) = net { Some(net.addr()) } else { None }),
        netbird_ipv6: own.clone().find_map(|net| if let IpNet::V6(net) = net { Some(net.addr()) } else { None }),
        public_key: named.key.to_string(),
        status: state,
        last_status_update: status.and_then(|status| timestamp(Instant::now().saturating_duration_since(status.since))),
        connection_type: match connected.and_then(|status| status.kind) {
            Some(PathKind::Relay | PathKind::Turn) => ConnectionType::Relayed,
            Some(PathKind::Direct) => ConnectionType::Direct,
            None => ConnectionType::None,
        },
        ice_candidate_type: pair.map_or_else(Ends::default, |pair| Ends {
            local: pair.local_kind.as_str().to_owned(),
            remote: pair.remote_kind.as_str().to_owned(),
        }),
        ice_candidate_endpoint: Ends {
            local: pair.map(|pair| pair.local.to_string()).unwrap_or_default(),
            // Where packets go: the peer may have moved since the last check.
            remote: remote.or(pair.map(|pair| pair.remote)).map(|remote| remote.to_string()).unwrap_or_default(),
        },
        relay_address: connected
            .and_then(|status| status.relay.as_ref())
            .map(|relay| relay.url.clone())
            .unwrap_or_default(),
        last_wireguard_handshake: engine.and_then(|peer| peer.last_handshake).and_then(timestamp),
        transfer_received: engine.map_or(0, |peer| peer.rx_bytes),
        transfer_sent: engine.map_or(0, |peer| peer.tx_bytes),
        latency: pair.map_or(0, |pair| u64::try_from(pair.round_trip.as_nanos()).unwrap_or(u64::MAX)),
        quantum_resistance: false,
        networks: Vec::new(),
    }
}
