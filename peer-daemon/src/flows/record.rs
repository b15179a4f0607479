//! Flows as JSON. Fields are only ever added.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use peer_common::PacketCount;
use peer_dataplane::flows::{End, FlowRecord, kind_name};
use peer_dataplane::observe::{Denied, Direction};
use serde::{Deserialize, Serialize};

use crate::flow_log::direction_name;
use crate::peers::PeerKeys;
use crate::status::Count;

/// The answer.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Listing {
    /// The most recently active first.
    pub(crate) flows: Vec<Flow>,
    /// Flows that fit the filter, but not the limit.
    pub(crate) more: u64,
    /// `CLOCK_MONOTONIC` of the node, nanoseconds.
    pub(crate) now_ns: u64,
}

/// A flow.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Flow {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or a number.
    pub(crate) protocol: String,
    /// `allowed`: it is a flow; `denied`: packets of this tuple were dropped lately.
    #[serde(default = "allowed")]
    pub(crate) verdict: String,
    /// Why they were dropped.
    #[serde(default)]
    pub(crate) drop_reason: Option<String>,
    /// Which way the last dropped one went: `from_peer`, `to_peer`.
    #[serde(default)]
    pub(crate) direction: Option<String>,
    /// Absent: it is no flow.
    pub(crate) kind: Option<String>,
    pub(crate) peer: Place,
    pub(crate) destination: Place,
    /// The peer's end as the LAN sees it, where that is another.
    pub(crate) nat: Option<Place>,
    pub(crate) uplink: Option<String>,
    /// Destination of the route.
    pub(crate) route: Option<IpNet>,
    /// Id of the rule that accepted it, or drops it.
    pub(crate) policy: Option<u32>,
    pub(crate) peer_key: Option<String>,
    pub(crate) from_peer: Count,
    /// Absent where the node's own stack answers.
    pub(crate) to_peer: Option<Count>,
    pub(crate) age_seconds: u64,
    pub(crate) idle_seconds: u64,
    pub(crate) expires_in_seconds: u64,
    /// `half_open`, `established`, `closing`, `reset`; absent: not TCP.
    pub(crate) state: Option<String>,
    /// `CLOCK_MONOTONIC` of the first packet, nanoseconds: together with the ends it names the flow.
    pub(crate) created_ns: u64,
    /// Of the last packet.
    pub(crate) active_ns: u64,
}

/// Address and port; of ICMP the identifier stands for the port.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

impl Flow {
    /// From what the dataplane tells; `keys` are those of the peers.
    pub(super) fn new(flow: &FlowRecord, keys: &PeerKeys) -> Self {
        Self {
            protocol: protocol_name(flow.protocol),
            verdict: allowed(),
            drop_reason: None,
            direction: None,
            kind: Some(kind_name(flow.kind).to_owned()),
            peer: flow.peer.into(),
            destination: flow.destination.into(),
            nat: flow.nat.map(Into::into),
            uplink: flow.uplink.clone(),
            route: flow.route,
            policy: flow.rule,
            peer_key: flow.peer_id.and_then(|id| keys.get(id)).map(ToString::to_string),
            from_peer: count(flow.from_peer),
            to_peer: flow.to_peer.map(count),
            age_seconds: flow.age.as_secs(),
            idle_seconds: flow.idle.as_secs(),
            expires_in_seconds: flow.expires_in.as_secs(),
            state: flow.tcp.map(|state| state.name().to_owned()),
            created_ns: flow.created_ns,
            active_ns: flow.active_ns,
        }
    }
}

impl Flow {
    /// From packets that were dropped.
    pub(super) fn denied(denied: &Denied, keys: &PeerKeys) -> Self {
        let (packets, none) = (count(denied.packets), Count { packets: 0, bytes: 0 });
        let from_peer = denied.direction == Direction::FromPeer;
        Self {
            protocol: protocol_name(denied.protocol),
            verdict: "denied".to_owned(),
            drop_reason: Some(denied.reason.name().to_owned()),
            direction: Some(direction_name(denied.direction).to_owned()),
            kind: None,
            peer: denied.peer.into(),
            destination: denied.destination.into(),
            nat: None,
            uplink: None,
            route: denied.route,
            policy: denied.rule,
            peer_key: denied.peer_id.and_then(|id| keys.get(id)).map(ToString::to_string),
            from_peer: if from_peer { packets } else { none },
            to_peer: Some(if from_peer { none } else { packets }),
            age_seconds: denied.age.as_secs(),
            idle_seconds: denied.idle.as_secs(),
            expires_in_seconds: denied.expires_in.as_secs(),
            state: None,
            created_ns: denied.created_ns,
            active_ns: denied.active_ns,
        }
    }
}

impl From<End> for Place {
    fn from(end: End) -> Self {
        Self { address: end.addr, port: end.port }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

fn allowed() -> String {
    "allowed".to_owned()
}

fn count(count: PacketCount) -> Count {
    Count { packets: count.packets, bytes: count.bytes }
}

/// Name of a protocol, or its number.
pub(crate) fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use peer_common::FlowKind;
    use peer_core::key::PublicKey;
    use peer_dataplane::flows::TcpState;

    use super::*;

    fn end(addr: &str, port: u16) -> End {
        End { addr: addr.parse().expect("an address"), port }
    }

    /// A download through NAT.
    pub(crate) fn sample() -> Flow {
        let flow = FlowRecord {
            protocol: 6,
            kind: FlowKind::Masqueraded,
            peer: end("100.64.0.10", 40_000),
            destination: end("198.51.100.80", 80),
            nat: Some(end("198.51.100.1", 21_000)),
            uplink: Some("eth0".to_owned()),
            route: Some("198.51.100.0/24".parse().expect("a prefix")),
            rule: Some(3),
            peer_id: Some(1),
            from_peer: PacketCount { packets: 10, bytes: 500 },
            to_peer: Some(PacketCount { packets: 20, bytes: 28_000 }),
            created_ns: 1_000_000_000,
            active_ns: 9_000_000_000,
            age: Duration::from_millis(9500),
            idle: Duration::from_millis(1500),
            expires_in: Duration::from_secs(7438),
            tcp: Some(TcpState::Established),
        };
        Flow::new(&flow, &[(1, PublicKey([1; 32]))].into())
    }

    /// Packets that a rule drops.
    pub(crate) fn denied_sample() -> Flow {
        let denied = Denied {
            protocol: 17,
            reason: peer_common::DropReason::PolicyRule,
            direction: Direction::FromPeer,
            peer: end("100.64.0.10", 40_000),
            destination: end("198.51.100.80", 53),
            route: Some("198.51.100.0/24".parse().expect("a prefix")),
            rule: Some(9),
            peer_id: Some(1),
            packets: PacketCount { packets: 4, bytes: 240 },
            created_ns: 2_000_000_000,
            active_ns: 8_000_000_000,
            age: Duration::from_secs(7),
            idle: Duration::from_secs(1),
            expires_in: Duration::from_secs(599),
        };
        Flow::denied(&denied, &[(1, PublicKey([1; 32]))].into())
    }

    #[test]
    fn what_was_dropped_has_its_reason_and_no_kind() {
        let denied = denied_sample();
        assert_eq!((denied.verdict.as_str(), denied.drop_reason.as_deref()), ("denied", Some("policy_rule")));
        assert_eq!((denied.kind, denied.direction.as_deref()), (None, Some("from_peer")));
        assert_eq!((denied.from_peer.packets, denied.policy), (4, Some(9)));
        let old = serde_json::to_value(sample()).expect("JSON");
        let mut old = old.as_object().expect("an object").clone();
        old.remove("verdict");
        let flow: Flow = serde_json::from_value(old.into()).expect("of a daemon that knew no verdicts");
        assert_eq!(flow, sample());
    }

    #[test]
    fn names_stand_for_numbers() {
        let flow = sample();
        assert_eq!((flow.protocol.as_str(), flow.kind.as_deref()), ("tcp", Some("masqueraded")));
        assert_eq!(flow.peer_key, Some(PublicKey([1; 32]).to_string()));
        assert_eq!(flow.nat.expect("masqueraded").to_string(), "198.51.100.1:21000");
        assert_eq!((flow.age_seconds, flow.idle_seconds, flow.state.as_deref()), (9, 1, Some("established")));
        let json = serde_json::to_string(&flow).expect("JSON");
        assert_eq!(serde_json::from_str::<Flow>(&json).expect("the same"), flow);
    }
}
