//! Maps as a real server sent them, against maps of the same account made here.

use std::fs;

use peer_test_control::account::{
    ALL, Account, Action, ClassicRoute, Destination, Network, Policy, Protocol, Resource, Router, Routers,
};
use peer_test_control::map::{Shape, network_map};
use peer_test_control::member::meta;
use peer_test_control::proto::management::{NetworkMap, PeerSystemMeta, SyncResponse};
use prost::Message as _;

const NODE: &str = "aBkPaAivDmERJRJv584z9Y5lztwXaPwGPcOswptmTyI=";
const CLIENT: &str = "PuxA27slee2H1f/deG70XLDvd0MrLKLV7nosyVVWswg=";
const OWN: &str = "QpxTc44+h86bVw5y5UNfx1tkeh3VnRZ5uymliV4BCiM=";

/// Of server 0.77.1: a router of a host, a name and a wildcard, classic routes with and without access control, an exit
/// node; TCP ports, a dropped range of UDP, ICMP.
#[test]
fn a_router_s_map_is_what_a_real_server_makes_of_the_same_account() {
    let recorded = recorded("management/sync-push-8.json");
    let account = account(&recorded);
    let map = network_map(&account, OWN, Shape::Newest).expect("a map");
    assert_eq!(comparable(map), comparable(recorded));
}

fn account(recorded: &NetworkMap) -> Account {
    let mut account = Account {
        network: "100.102.0.0/16".parse().expect("valid"),
        network6: Some("fdaf:ed1f:53cb:59ac::/64".parse().expect("valid")),
        lazy: true,
        serial: recorded.serial,
        ..Account::default()
    };
    for (key, name, address, address6) in [
        (NODE, "node", "100.102.86.31", "fdaf:ed1f:53cb:59ac:ba70:8e3b:c98:5aee"),
        (CLIENT, "cli", "100.102.44.61", "fdaf:ed1f:53cb:59ac:11df:e03e:d33:658f"),
        (OWN, "rprobe", "100.102.207.10", "fdaf:ed1f:53cb:59ac:67c:c89:2a48:899c"),
    ] {
        let meta = PeerSystemMeta { netbird_version: "development".to_owned(), ..meta(name) };
        account.add_peer(key, &meta, false, None).expect("an address");
        let peer = account.peers.get_mut(key).expect("added");
        (peer.address, peer.address6) = (address.parse().expect("valid"), address6.parse().ok());
        let told = recorded.remote_peers.iter().find(|peer| peer.wg_pub_key == key);
        peer.ssh_key = told.and_then(|peer| peer.ssh_config.clone()).map(|ssh| ssh.ssh_pub_key).unwrap_or_default();
    }
    account.groups.insert("client".to_owned(), [CLIENT.to_owned()].into());
    let policy = |id, action, protocol| Policy::new(id, action, protocol, &["client"], &["services"]);
    account.policies = vec![
        Policy::new("dc18p5dqmd2tq8cv91o0", Action::Accept, Protocol::All, &[ALL], &[ALL]),
        policy("dc19515qmd2tq8cv95a0", Action::Accept, Protocol::Tcp).on_ports(&[80, 443]),
        Policy { ranges: vec![(1000, 2000)], ..policy("dc1951tqmd2tq8cv95c0", Action::Drop, Protocol::Udp) },
        policy("dc1951tqmd2tq8cv95dg", Action::Accept, Protocol::Icmp),
    ];
    account.networks = vec![
        network(NODE, 9999, true, vec![resource("dc18q15qmd2tq8cv92n0", "lan50", prefix("10.50.0.0/24"), ALL)]),
        network(
            OWN,
            100,
            false,
            vec![
                resource("dc1950dqmd2tq8cv955g", "host1", prefix("10.60.0.7/32"), "services"),
                resource(
                    "dc1950dqmd2tq8cv9570",
                    "dom1",
                    Destination::Domain("svc.internal.test".to_owned()),
                    "services",
                ),
                resource("dc1950dqmd2tq8cv958g", "wild", Destination::Domain("*.wild.test".to_owned()), "services"),
            ],
        ),
    ];
    let route = |id: &str, net_id: &str, to: &str| ClassicRoute {
        net_id: net_id.to_owned(),
        ..ClassicRoute::new(id, prefix(to), Routers::Peer(OWN.to_owned()))
    };
    account.routes = vec![
        route("dc1952lqmd2tq8cv95f0", "cl1", "10.70.0.0/16"),
        route("dc1953dqmd2tq8cv95gg", "exit", "0.0.0.0/0"),
        ClassicRoute {
            access_control_groups: vec!["services".to_owned()],
            ..route("dc19545qmd2tq8cv95i0", "cl2", "10.71.0.0/16")
        },
    ];
    account
}

fn network(router: &str, metric: u16, masquerade: bool, resources: Vec<Resource>) -> Network {
    let routers = Routers::Peer(router.to_owned());
    Network { id: router.to_owned(), resources, routers: vec![Router { routers, metric, masquerade, enabled: true }] }
}

fn resource(id: &str, name: &str, destination: Destination, group: &str) -> Resource {
    let groups = vec![group.to_owned()];
    Resource { id: id.to_owned(), name: name.to_owned(), destination, groups, enabled: true }
}

fn prefix(text: &str) -> Destination {
    Destination::Prefix(text.parse().expect("valid"))
}

/// Lists whose order means nothing, in one order. A resource's route is named by the router's id, which is no key at a
/// real server.
fn comparable(mut map: NetworkMap) -> NetworkMap {
    let id = |id: &str| id.split(':').next().unwrap_or_default().to_owned();
    for route in &mut map.routes {
        route.id = id(&route.id);
    }
    for rule in &mut map.routes_firewall_rules {
        rule.route_id = id(&rule.route_id);
    }
    map.remote_peers.sort_by(|one, other| one.wg_pub_key.cmp(&other.wg_pub_key));
    map.firewall_rules.sort_by_key(|rule| format!("{rule:?}"));
    map.routes_firewall_rules.sort_by_key(|rule| format!("{rule:?}"));
    for zone in map.dns_config.iter_mut().flat_map(|dns| &mut dns.custom_zones) {
        zone.records.sort_by_key(|record| format!("{record:?}"));
    }
    map
}

fn recorded(name: &str) -> NetworkMap {
    let path = format!("{}/../../peer-daemon/crates/netmap/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).expect(&path);
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let hex = value["hex"].as_str().expect("hex").as_bytes();
    let digit = |digit: u8| (digit as char).to_digit(16).expect("hex") as u8;
    let bytes: Vec<_> = hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
    SyncResponse::decode(bytes.as_slice()).expect("a message").network_map.expect("a map")
}
