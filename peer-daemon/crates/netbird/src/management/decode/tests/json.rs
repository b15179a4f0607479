//! Messages in protobuf's JSON form, with the official names: written from the field numbers' meaning, so that a number
//! mixed up in our .proto files shows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::proto::management::*;

/// An object without its default values, as protobuf's JSON has it.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let is_default = |value: &Value| {
        *value == Value::Null
            || *value == json!(false)
            || *value == json!(0)
            || *value == json!("")
            || *value == json!([])
    };
    let fields = fields.into_iter().filter(|(_, value)| !is_default(value));
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn list<T>(items: &[T], item: impl Fn(&T) -> Value) -> Value {
    Value::Array(items.iter().map(item).collect())
}

/// 64-bit numbers are text.
fn long(number: impl Into<i128>) -> Value {
    match number.into() {
        0 => Value::Null,
        number => json!(number.to_string()),
    }
}

fn bytes(bytes: &[u8]) -> Value {
    json!(STANDARD.encode(bytes))
}

/// The name of an enumeration's value; the first is the default.
fn name(value: i32, name: &str) -> Value {
    if value == 0 { Value::Null } else { json!(name) }
}

pub(super) fn login(m: &LoginResponse) -> Value {
    object([
        ("netbirdConfig", json!(m.netbird_config.as_ref().map(config))),
        ("peerConfig", json!(m.peer_config.as_ref().map(peer_config))),
        ("Checks", list(&m.checks, |check| object([("Files", json!(check.files))]))),
    ])
}

pub(super) fn sync(m: &SyncResponse) -> Value {
    object([
        ("netbirdConfig", json!(m.netbird_config.as_ref().map(config))),
        ("NetworkMap", json!(m.network_map.as_ref().map(map))),
        ("Checks", list(&m.checks, |check| object([("Files", json!(check.files))]))),
        ("Version", json!(m.version)),
    ])
}

fn config(m: &NetbirdConfig) -> Value {
    let host =
        |m: &HostConfig| object([("uri", json!(m.uri)), ("protocol", name(m.protocol, m.protocol().as_str_name()))]);
    let relay = |m: &RelayConfig| {
        object([
            ("urls", json!(m.urls)),
            ("tokenPayload", json!(m.token_payload)),
            ("tokenSignature", json!(m.token_signature)),
        ])
    };
    let turn = |m: &ProtectedHostConfig| {
        object([
            ("hostConfig", json!(m.host_config.as_ref().map(host))),
            ("user", json!(m.user)),
            ("password", json!(m.password)),
        ])
    };
    object([
        ("stuns", list(&m.stuns, host)),
        ("turns", list(&m.turns, turn)),
        ("signal", json!(m.signal.as_ref().map(host))),
        ("relay", json!(m.relay.as_ref().map(relay))),
    ])
}

fn peer_config(m: &PeerConfig) -> Value {
    object([
        ("address", json!(m.address)),
        ("fqdn", json!(m.fqdn)),
        ("RoutingPeerDnsResolutionEnabled", json!(m.routing_peer_dns_resolution_enabled)),
        ("LazyConnectionEnabled", json!(m.lazy_connection_enabled)),
        ("mtu", json!(m.mtu)),
        ("address_v6", bytes(&m.address_v6)),
    ])
}

fn map(m: &NetworkMap) -> Value {
    object([
        ("Serial", long(m.serial)),
        ("peerConfig", json!(m.peer_config.as_ref().map(peer_config))),
        ("remotePeers", list(&m.remote_peers, remote_peer)),
        ("remotePeersIsEmpty", json!(m.remote_peers_is_empty)),
        ("Routes", list(&m.routes, route)),
        ("DNSConfig", json!(m.dns_config.as_ref().map(dns))),
        ("offlinePeers", list(&m.offline_peers, remote_peer)),
        ("FirewallRules", list(&m.firewall_rules, rule)),
        ("firewallRulesIsEmpty", json!(m.firewall_rules_is_empty)),
        ("routesFirewallRules", list(&m.routes_firewall_rules, route_rule)),
        ("routesFirewallRulesIsEmpty", json!(m.routes_firewall_rules_is_empty)),
        ("forwardingRules", list(&m.forwarding_rules, forwarding_rule)),
    ])
}

fn remote_peer(m: &RemotePeerConfig) -> Value {
    object([
        ("wgPubKey", json!(m.wg_pub_key)),
        ("allowedIps", json!(m.allowed_ips)),
        ("fqdn", json!(m.fqdn)),
        ("agentVersion", json!(m.agent_version)),
    ])
}

fn route(m: &Route) -> Value {
    object([
        ("ID", json!(m.id)),
        ("Network", json!(m.network)),
        ("NetworkType", long(m.network_type)),
        ("Peer", json!(m.peer)),
        ("Metric", long(m.metric)),
        ("Masquerade", json!(m.masquerade)),
        ("NetID", json!(m.net_id)),
        ("Domains", json!(m.domains)),
        ("keepRoute", json!(m.keep_route)),
        ("skipAutoApply", json!(m.skip_auto_apply)),
    ])
}

fn dns(m: &DnsConfig) -> Value {
    object([("ServiceEnable", json!(m.service_enable)), ("ForwarderPort", long(m.forwarder_port))])
}

fn ports(m: &PortInfo) -> Value {
    match &m.selection {
        None => json!({}),
        Some(port_info::Selection::Port(port)) => json!({ "port": port }),
        Some(port_info::Selection::Range(range)) => {
            json!({ "range": object([("start", json!(range.start)), ("end", json!(range.end))]) })
        }
    }
}

fn rule(m: &FirewallRule) -> Value {
    object([
        ("PeerIP", json!(m.peer_ip)),
        ("Direction", name(m.direction, m.direction().as_str_name())),
        ("Action", name(m.action, m.action().as_str_name())),
        ("Protocol", name(m.protocol, m.protocol().as_str_name())),
        ("Port", json!(m.port)),
        ("PortInfo", json!(m.port_info.as_ref().map(ports))),
        ("PolicyID", bytes(&m.policy_id)),
        ("customProtocol", json!(m.custom_protocol)),
        ("sourcePrefixes", list(&m.source_prefixes, |prefix| bytes(prefix))),
    ])
}

fn route_rule(m: &RouteFirewallRule) -> Value {
    object([
        ("sourceRanges", json!(m.source_ranges)),
        ("action", name(m.action, m.action().as_str_name())),
        ("destination", json!(m.destination)),
        ("protocol", name(m.protocol, m.protocol().as_str_name())),
        ("portInfo", json!(m.port_info.as_ref().map(ports))),
        ("isDynamic", json!(m.is_dynamic)),
        ("domains", json!(m.domains)),
        ("customProtocol", json!(m.custom_protocol)),
        ("PolicyID", bytes(&m.policy_id)),
        ("RouteID", json!(m.route_id)),
    ])
}

fn forwarding_rule(m: &ForwardingRule) -> Value {
    object([
        ("protocol", name(m.protocol, m.protocol().as_str_name())),
        ("destinationPort", json!(m.destination_port.as_ref().map(ports))),
        ("translatedAddress", bytes(&m.translated_address)),
        ("translatedPort", json!(m.translated_port.as_ref().map(ports))),
    ])
}
