//! What real servers were seen to send.

mod common;

use std::path::Path;

use common::{Judgement, judge};
use ipnet::IpNet;
use peer_core::desired::{Action, Protocol, Scope};
use peer_core::key::PublicKey;
use peer_core::policy::{Query, Verdict, evaluate};
use peer_netbird::proto::management as wire;
use peer_netmap::compile::{Compiled, Options, UnsupportedKind, compile};
use peer_netmap::ids::Ids;
use peer_netmap::model::{Login, OwnAddresses, RouteTarget, Rules, Update};
use peer_netmap::session::{MapVerdict, Session};
use prost::Message;
use serde_json::Value;

/// The router of the recorded pushes, by server.
const ROUTER: &str = "QpxTc44+h86bVw5y5UNfx1tkeh3VnRZ5uymliV4BCiM=";
const ROUTER_066: &str = "M1TzoKerOTmrPLx67D5gzJ9p0nIfNMnpmy6siFBz8Uw=";

/// Addresses of the router beside those in the overlay.
const NODE: [&str; 2] = ["10.60.0.1", "fd00::1"];

/// The message as bytes told it, and as its recorder read it.
fn recorded<M: Message + Default>(name: &str) -> (M, Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    let text = std::fs::read_to_string(&path).expect(name);
    let file: Value = serde_json::from_str(&text).expect("JSON");
    let hex = file["hex"].as_str().expect("hex");
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    (M::decode(&*bytes).expect("a message"), file["json"].clone())
}

fn sync(name: &str) -> (wire::SyncResponse, Value) {
    recorded(name)
}

fn compiled(update: &Update, own: &str) -> (Compiled, Ids) {
    let map = update.map.as_ref().expect("a map");
    let addresses = map.own.as_ref().expect("own facts").addresses;
    let options = Options {
        own_key: key(own),
        addresses,
        local: NODE.map(|text| text.parse().expect("an address")).to_vec(),
        keepalive: None,
        preshared_key: None,
        uplinks: peer_core::desired::UplinkChoice::Auto,
        server_routes: true,
        block_inbound: false,
    };
    let mut ids = Ids::new();
    (compile(map, &options, &mut ids), ids)
}

fn key(text: &str) -> PublicKey {
    text.parse().expect("a key")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn list<'a>(json: &'a Value, field: &str) -> &'a [Value] {
    json[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

const SYNCS: [&str; 6] = [
    "management/sync-initial.json",
    "management/sync-push-3.json",
    "management/sync-push-4.json",
    "management/sync-push-8.json",
    "management-0.66/sync-initial.json",
    "management-0.66/sync-push-8.json",
];

#[test]
fn nothing_in_them_is_left_out() {
    for name in SYNCS {
        let (message, json) = sync(name);
        let update = Update::from(message);
        let map = update.map.expect("a map");
        let json = &json["NetworkMap"];
        assert_eq!(map.skipped.total(), 0, "{name}");
        assert_eq!(map.serial.to_string(), json["Serial"], "{name}");
        assert_eq!(map.peers.len(), list(json, "remotePeers").len(), "{name}");
        assert_eq!(map.routes.len(), list(json, "Routes").len(), "{name}");
        for (peer, json) in map.peers.iter().zip(list(json, "remotePeers")) {
            assert_eq!(
                (peer.key.to_string(), &*peer.fqdn),
                (json["wgPubKey"].as_str().unwrap().into(), json["fqdn"].as_str().unwrap())
            );
            assert_eq!(peer.allowed_ips.len(), list(json, "allowedIps").len(), "{name}");
        }
        for (route, json) in map.routes.iter().zip(list(json, "Routes")) {
            assert_eq!((&*route.id, &*route.net_id), (json["ID"].as_str().unwrap(), json["NetID"].as_str().unwrap()));
            assert_eq!(route.masquerade, json["Masquerade"].as_bool().unwrap_or(false), "{name}");
            match &route.target {
                RouteTarget::Prefix(prefix) => assert_eq!(prefix.to_string(), json["Network"], "{name}"),
                RouteTarget::Domains(domains) => assert_eq!(Value::from(domains.clone()), json["Domains"], "{name}"),
            }
        }
        let inbound = list(json, "FirewallRules").iter().filter(|rule| rule["Direction"] != "OUT").count();
        let Rules::List(peer_rules) = &map.peer_rules else { panic!("{name}: legacy") };
        let Rules::List(route_rules) = &map.route_rules else { panic!("{name}: legacy") };
        assert_eq!((peer_rules.len(), route_rules.len()), (inbound, list(json, "routesFirewallRules").len()), "{name}");
    }
}

#[test]
fn compiled_rules_judge_as_the_wire_does() {
    for (name, own) in SYNCS.iter().zip([ROUTER, ROUTER, ROUTER, ROUTER, ROUTER_066, ROUTER_066]) {
        let (message, _) = sync(name);
        let map = message.network_map.clone().expect("a map");
        let (compiled, ids) = compiled(&Update::from(message), own);
        let sources =
            ["100.102.44.61", "100.102.86.31", "100.71.82.236", "10.0.0.1", "fdaf:ed1f:53cb:59ac:11df:e03e:d33:658f"];
        let destinations =
            ["10.60.0.1", "10.60.0.7", "10.60.0.8", "10.70.1.2", "10.71.3.4", "8.8.8.8", "192.0.2.0", "fd00::1"];
        for source in sources {
            for destination in destinations {
                for (protocol, port) in [(6, 80), (6, 443), (6, 22), (17, 1000), (17, 1500), (17, 53), (1, 0), (132, 0)]
                {
                    for scope in [Scope::Node, Scope::Route] {
                        let (source, destination): (std::net::IpAddr, std::net::IpAddr) =
                            (source.parse().unwrap(), destination.parse().unwrap());
                        let local = destination.to_string();
                        if (scope == Scope::Node && !NODE.contains(&&*local))
                            || source.is_ipv4() != destination.is_ipv4()
                        {
                            continue;
                        }
                        let query = Query { source, destination, protocol, destination_port: Some(port), scope };
                        let expected = judge(&map, own, &query);
                        let agree = match (evaluate(&compiled.rules, &query), &expected) {
                            (Verdict::Accept { rule }, Judgement::Accept(policies))
                            | (Verdict::Drop { rule }, Judgement::Drop(policies)) => {
                                policies.iter().any(|policy| ids.text(rule) == Some(policy))
                            }
                            (Verdict::Default, Judgement::Default) => true,
                            _ => false,
                        };
                        assert!(agree, "{name}: {query:?}: not {expected:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_router_serves_its_prefixes_and_says_what_it_cannot() {
    let (message, _) = sync("management/sync-push-8.json");
    let (compiled, ids) = compiled(&Update::from(message), ROUTER);
    let routes: Vec<_> = compiled.routes.iter().map(|route| (route.destination, route.masquerade)).collect();
    let expected = [(net("10.60.0.7/32"), false), (net("10.70.0.0/16"), true), (net("10.71.0.0/16"), true)];
    assert_eq!(routes, expected);
    assert_eq!(compiled.served, ["cl1", "cl2", "host1"]);
    let unsupported: Vec<_> = compiled.unsupported.iter().map(|what| (what.kind, &*what.name, &*what.detail)).collect();
    let (domain, exit) = (UnsupportedKind::DomainRoute, UnsupportedKind::ExitNode);
    let expected = [
        (domain, "dom1", "svc.internal.test"),
        (domain, "wild", "*.wild.test"),
        (exit, "exit", "0.0.0.0/0"),
        (exit, "exit-v6", "::/0"),
    ];
    assert_eq!(unsupported, expected);

    let route_rules: Vec<_> = compiled.rules.iter().filter(|rule| rule.scope == Scope::Route).collect();
    let found: Vec<_> = route_rules
        .iter()
        .map(|rule| (rule.protocol, rule.action, rule.ports.len(), rule.destinations.len()))
        .collect();
    // Of 27 rules on the wire: those of the two domains and of the exit node are left out, ports and destinations joined.
    let expected = [
        (Protocol::Any, Action::Accept, 0, 1),
        (Protocol::Tcp, Action::Accept, 2, 2),
        (Protocol::Udp, Action::Drop, 1, 2),
        (Protocol::Icmp, Action::Accept, 0, 2),
    ];
    assert_eq!(found, expected);
    assert_eq!(ids.text(route_rules[1].id), Some("dc19515qmd2tq8cv95a0"));
}

#[test]
fn a_rule_of_0_66_without_sources_permits_nobody() {
    let (message, _) = sync("management-0.66/sync-push-8.json");
    let (compiled, _) = compiled(&Update::from(message), ROUTER_066);
    let open: Vec<_> = compiled.rules.iter().filter(|rule| rule.scope == Scope::Route).collect();
    assert_eq!(open.len(), 1, "only that of the route without access control");
    assert_eq!(open[0].destinations, [net("10.70.0.0/16")]);
}

#[test]
fn logins_name_servers_and_own_addresses() {
    for (name, v6) in [("management", Some("fdaf:ed1f:53cb:59ac:181f:3cce:57e1:8ad7/64")), ("management-0.66", None)] {
        let (message, json) = recorded::<wire::LoginResponse>(&format!("{name}/login-response.json"));
        let login = Login::from(message);
        let own = login.own.expect("own facts");
        let v6 = v6.map(|text| text.parse().expect("IPv6"));
        let v4 = json["peerConfig"]["address"].as_str().expect("text").parse().ok();
        assert_eq!(own.addresses, OwnAddresses { v4, v6 });
        assert!(own.lazy && own.dns_resolution && own.mtu.is_none());
        let servers = login.servers.expect("servers");
        let signal = servers.signal.expect("signal");
        assert_eq!((&*signal.authority, signal.tls), ("10.99.0.1:8080", false));
        let relay = servers.relay.expect("a relay");
        assert_eq!(relay.urls, ["rel://10.99.0.1:8080"]);
        assert_eq!(*relay.token_signature, json["netbirdConfig"]["relay"]["tokenSignature"].as_str().expect("text"));
    }
}

#[test]
fn a_session_follows_the_recorded_stream() {
    let mut session = Session::new(key(ROUTER));
    let (initial, _) = sync("management/sync-initial.json");
    let applied = session.update(Update::from(initial));
    assert!(applied.relay && applied.signal && applied.ice);
    assert_eq!(applied.map, MapVerdict::Accepted { serial: 5 });
    let relay = session.servers().relay.clone();
    // The recorded pushes are those of another peer, with another address.
    for (name, readdressed) in [("sync-push-3", true), ("sync-push-4", false), ("sync-push-8", false)] {
        let (push, json) = sync(&format!("management/{name}.json"));
        let applied = session.update(Update::from(push));
        let serial = json["NetworkMap"]["Serial"].as_str().expect("text").parse().expect("a number");
        assert_eq!((applied.map, applied.readdressed), (MapVerdict::Accepted { serial }, readdressed), "{name}");
        assert!(!applied.relay && session.servers().relay == relay, "{name}: no configuration is no change");
    }
    let (old, _) = sync("management/sync-push-4.json");
    assert_eq!(session.update(Update::from(old)).map, MapVerdict::Stale { serial: 16, last: 19 });
}
