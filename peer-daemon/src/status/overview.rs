//! What the official client's `status` says: the same JSON, so that what reads one reads the other.

mod detail;
mod filter;
mod go;
mod summary;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use self::detail::Detail;
pub(crate) use self::filter::Filter;
pub(crate) use self::summary::{Expanded, Summary};

/// Everything, in the order in which the official client prints it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Overview {
    pub(crate) peers: Peers,
    /// Of the program that prints; set by it.
    pub(crate) cli_version: String,
    pub(crate) daemon_version: String,
    pub(crate) daemon_status: DaemonStatus,
    pub(crate) management: Server,
    pub(crate) signal: Server,
    pub(crate) relays: Relays,
    #[serde(with = "or_empty")]
    pub(crate) netbird_ip: Option<Ipv4Net>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) netbird_ipv6: Option<Ipv6Net>,
    pub(crate) public_key: String,
    pub(crate) uses_kernel_interface: bool,
    pub(crate) wireguard_port: u16,
    pub(crate) fqdn: String,
    pub(crate) quantum_resistance: bool,
    pub(crate) quantum_resistance_permissive: bool,
    /// That this peer serves.
    #[serde(with = "or_null")]
    pub(crate) networks: Vec<String>,
    pub(crate) forwarding_rules: u32,
    pub(crate) dns_servers: Vec<NameServers>,
    pub(crate) events: Vec<Event>,
    pub(crate) lazy_connection_enabled: bool,
    pub(crate) profile_name: String,
    pub(crate) ssh_server: SshServer,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session_expires_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Peers {
    pub(crate) total: usize,
    pub(crate) connected: usize,
    #[serde(with = "or_null")]
    pub(crate) details: Vec<Peer>,
}

impl Peers {
    pub(crate) fn of(details: Vec<Peer>) -> Self {
        let connected = details.iter().filter(|peer| peer.status == PeerState::Connected).count();
        Self { total: details.len(), connected, details }
    }
}

/// Of the daemon as a whole.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum DaemonStatus {
    /// Nothing is asked of it.
    Idle,
    /// On its way.
    #[default]
    Connecting,
    /// Management and signal are there.
    Connected,
    /// The server does not know the peer, and there is no setup key.
    NeedsLogin,
    /// The server refuses.
    LoginFailed,
    /// The peer belongs to a user whose login has ended.
    SessionExpired,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Peer {
    pub(crate) fqdn: String,
    #[serde(with = "or_empty")]
    pub(crate) netbird_ip: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) netbird_ipv6: Option<Ipv6Addr>,
    pub(crate) public_key: String,
    pub(crate) status: PeerState,
    #[serde(with = "or_year_one")]
    pub(crate) last_status_update: Option<Timestamp>,
    pub(crate) connection_type: ConnectionType,
    pub(crate) ice_candidate_type: Ends,
    pub(crate) ice_candidate_endpoint: Ends,
    pub(crate) relay_address: String,
    #[serde(with = "or_year_one")]
    pub(crate) last_wireguard_handshake: Option<Timestamp>,
    pub(crate) transfer_received: u64,
    pub(crate) transfer_sent: u64,
    /// Nanoseconds.
    pub(crate) latency: u64,
    pub(crate) quantum_resistance: bool,
    /// That are reached through it.
    #[serde(with = "or_null")]
    pub(crate) networks: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum PeerState {
    Connected,
    Connecting,
    Idle,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum ConnectionType {
    #[serde(rename = "P2P")]
    Direct,
    Relayed,
    #[default]
    #[serde(rename = "-")]
    None,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Ends {
    pub(crate) local: String,
    pub(crate) remote: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) connected: bool,
    pub(crate) error: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Relays {
    pub(crate) total: usize,
    pub(crate) available: usize,
    #[serde(with = "or_null")]
    pub(crate) details: Vec<Relay>,
}

impl Relays {
    pub(crate) fn of(details: Vec<Relay>) -> Self {
        Self { total: details.len(), available: details.iter().filter(|relay| relay.available).count(), details }
    }
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Relay {
    pub(crate) uri: String,
    pub(crate) available: bool,
    pub(crate) error: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) transport: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct NameServers {
    #[serde(with = "or_null")]
    pub(crate) servers: Vec<String>,
    #[serde(with = "or_null")]
    pub(crate) domains: Vec<String>,
    pub(crate) enabled: bool,
    pub(crate) error: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) severity: String,
    pub(crate) category: String,
    pub(crate) message: String,
    pub(crate) user_message: String,
    pub(crate) timestamp: Timestamp,
    pub(crate) metadata: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct SshServer {
    pub(crate) enabled: bool,
    pub(crate) sessions: Vec<serde_json::Value>,
}

/// An empty list is `null`, as Go writes a slice that was never filled.
mod or_null {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer, T: Serialize>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        if items.is_empty() { serializer.serialize_none() } else { items.serialize(serializer) }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Vec<T>, D::Error> {
        Ok(Option::deserialize(d)?.unwrap_or_default())
    }
}

/// No value is the empty string.
mod or_empty {
    use std::fmt::Display;
    use std::str::FromStr;

    use super::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer, T: Display>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        d: D,
    ) -> Result<Option<T>, D::Error> {
        match String::deserialize(d)?.as_str() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(serde::de::Error::custom),
        }
    }
}

/// No time is the first moment of year 1, as Go writes it.
mod or_year_one {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Timestamp};

    const NEVER: &str = "0001-01-01T00:00:00Z";

    pub(super) fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => time.serialize(serializer),
            None => serializer.serialize_str(NEVER),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == NEVER {
            return Ok(None);
        }
        text.parse().map(Some).map_err(serde::de::Error::custom)
    }
}
