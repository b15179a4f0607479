use ipnet::IpNet;
use peer_core::desired::{Route, UplinkChoice};
use peer_netmap::compile::{Unsupported, UnsupportedKind};
use peer_netmap::model::Route as MapRoute;

use super::*;

const OWN: PublicKey = PublicKey([1; 32]);
const OTHER: PublicKey = PublicKey([2; 32]);

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn route(net_id: &str, target: RouteTarget, router: PublicKey) -> Arc<MapRoute> {
    Arc::new(MapRoute {
        id: format!("{net_id}:{router}"),
        net_id: net_id.to_owned(),
        target,
        router,
        metric: 9999,
        masquerade: true,
        skip_auto_apply: false,
    })
}

#[test]
fn networks_say_what_is_carried_here_and_what_cannot_be() {
    let map = NetworkMap {
        routes: vec![
            route("lan", RouteTarget::Prefix(net("10.50.0.0/24")), OWN),
            route("lan", RouteTarget::Prefix(net("10.50.0.0/24")), OTHER),
            route("exit", RouteTarget::Prefix(net("0.0.0.0/0")), OWN),
            route("exit", RouteTarget::Prefix(net("::/0")), OWN),
            route("far", RouteTarget::Prefix(net("10.60.0.0/24")), OTHER),
            route("dom", RouteTarget::Domains(vec!["svc.test".to_owned()]), OWN),
        ],
        ..NetworkMap::default()
    };
    let unsupported =
        |kind, name: &str, detail: &str| Unsupported { kind, name: name.to_owned(), detail: detail.to_owned() };
    let compiled = Compiled {
        routes: vec![Route { destination: net("10.50.0.0/24"), masquerade: true, uplink: UplinkChoice::Auto }],
        unsupported: vec![
            unsupported(UnsupportedKind::DomainRoute, "dom", "svc.test"),
            unsupported(UnsupportedKind::ExitNode, "exit", "0.0.0.0/0"),
            unsupported(UnsupportedKind::Forwarding, "", "2"),
        ],
        ..Compiled::default()
    };
    let mut board = Board::default();
    board.set_map(&map, &OwnConfig::default(), OWN, &compiled);
    assert_eq!(board.served, ["10.50.0.0/24"]);
    let shown: Vec<_> = board.networks.iter().map(|network| (network.id.as_str(), network.selected)).collect();
    assert_eq!(shown, [("dom", false), ("exit", false), ("far", false), ("lan", true)]);
    assert_eq!(board.networks[1].prefixes, ["0.0.0.0/0", "::/0"]);
    assert!(board.networks[0].unsupported.is_some() && board.networks[2].unsupported.is_none());
    assert_eq!(
        board.unsupported,
        ["domain route dom (svc.test)", "exit node exit (0.0.0.0/0)", "forwarding rules (2)"]
    );
}

#[test]
fn events_are_few_and_have_ids_of_version_4() {
    let mut board = Board::default();
    for number in 0..EVENTS + 3 {
        board.event("INFO", "SYSTEM", number.to_string(), &[]);
    }
    assert_eq!(board.events.len(), EVENTS);
    assert_eq!(board.events[0].message, "3");
    assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert_ne!(board.events[0].id, board.events[1].id);
}
