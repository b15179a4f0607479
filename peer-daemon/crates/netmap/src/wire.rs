//! From wire messages to the model.

pub(crate) mod map;
mod prefix;

use peer_netbird::proto::management as wire;
use zeroize::Zeroizing;

use crate::model::{Login, NetworkMap, OwnAddresses, OwnConfig, Relay, ServersUpdate, Signal, Skipped, Turn, Update};

impl From<wire::LoginResponse> for Login {
    fn from(message: wire::LoginResponse) -> Self {
        // A login's answer has no count of its own: what it says comes again with the first map.
        let mut skipped = Skipped::default();
        Self {
            servers: message.netbird_config.map(Into::into),
            own: message.peer_config.map(|config| own(config, &mut skipped)),
            checks: checks(message.checks),
        }
    }
}

impl From<wire::SyncResponse> for Update {
    fn from(message: wire::SyncResponse) -> Self {
        let wire::SyncResponse { netbird_config, network_map, checks, version } = message;
        update(netbird_config, network_map.map(NetworkMap::from), checks, version)
    }
}

/// An update, and its map if that is of the kind that this node understands.
pub(crate) fn update(
    servers: Option<wire::NetbirdConfig>,
    map: Option<NetworkMap>,
    checks: Vec<wire::Checks>,
    version: i32,
) -> Update {
    let component_map = version != 0;
    let map = map.filter(|_| !component_map);
    Update { servers: servers.map(Into::into), map, checks: self::checks(checks), component_map }
}

impl From<wire::NetbirdConfig> for ServersUpdate {
    fn from(config: wire::NetbirdConfig) -> Self {
        Self {
            stuns: config.stuns.into_iter().map(|host| host.uri).collect(),
            turns: config.turns.into_iter().filter_map(turn).collect(),
            signal: config.signal.filter(|host| !host.uri.is_empty()).map(signal),
            relay: config.relay.filter(|relay| !relay.urls.is_empty()).map(relay),
        }
    }
}

fn turn(server: wire::ProtectedHostConfig) -> Option<Turn> {
    let uri = server.host_config?.uri;
    Some(Turn { uri, user: server.user, password: Zeroizing::new(server.password) })
}

fn signal(host: wire::HostConfig) -> Signal {
    let tls = host.protocol() == wire::host_config::Protocol::Https;
    Signal { authority: host.uri, tls }
}

fn relay(relay: wire::RelayConfig) -> Relay {
    let wire::RelayConfig { urls, token_payload, token_signature } = relay;
    Relay { urls, token_payload, token_signature: Zeroizing::new(token_signature) }
}

fn own(config: wire::PeerConfig, skipped: &mut Skipped) -> OwnConfig {
    let v4 = prefix::interface(&config.address);
    let v6 = prefix::compact(&config.address_v6);
    if v4.is_none() || (v6.is_none() && !config.address_v6.is_empty()) {
        skipped.addresses += 1;
    }
    let v6 = v6.and_then(|net| match net {
        ipnet::IpNet::V6(net) => Some(net),
        ipnet::IpNet::V4(_) => None,
    });
    OwnConfig {
        addresses: OwnAddresses { v4, v6 },
        fqdn: config.fqdn,
        dns_resolution: config.routing_peer_dns_resolution_enabled,
        lazy: config.lazy_connection_enabled,
        mtu: u16::try_from(config.mtu).ok().filter(|mtu| MTU.contains(mtu)),
    }
}

fn checks(checks: Vec<wire::Checks>) -> Vec<String> {
    let mut files: Vec<String> = checks.into_iter().flat_map(|checks| checks.files).collect();
    files.sort();
    files.dedup();
    files
}

/// What the official client takes.
const MTU: std::ops::RangeInclusive<u16> = 576..=8192;

#[cfg(test)]
mod tests;
