use super::*;
use crate::Wt0;
use crate::kernel::FibRoute;

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn link(name: &str, addresses: &[&str]) -> Link {
    let addresses = addresses.iter().map(|text| Address { net: net(text), usable: true }).collect();
    Link { name: name.into(), mtu: 1500, ethernet: true, up: true, running: true, addresses, ..Link::default() }
}

fn links_of(links: &BTreeMap<u32, Link>, index: u32) -> &Link {
    links.get(&index).expect("a link")
}

fn node() -> Snapshot {
    let mut lo = link("lo", &["127.0.0.1/8", "::1/128"]);
    (lo.ethernet, lo.loopback) = (false, true);
    let wt0 = Link { ethernet: false, ..link("wt0", &["100.64.0.1/16"]) };
    let slave = Link { controller: Some(3), ..link("eth1", &[]) };
    let links = [(1, lo), (2, wt0), (3, link("eth0", &["198.51.100.1/24", "2001:db8:2::1/64"])), (4, slave)]
        .into_iter()
        .collect::<BTreeMap<_, _>>();
    let ways = [("198.51.100.1", 3), ("192.0.2.254", 3), ("100.64.0.1", 2), ("10.0.0.1", 4)];
    let way = |(addr, link): (&str, u32)| {
        let own: &Link = links_of(&links, link);
        let addr: IpAddr = addr.parse().expect("an address");
        (addr, vec![Way { link, gateway: None, source: own.source(addr.is_ipv4()) }])
    };
    let ways = ways.map(way).into();
    Snapshot { links, ways, ..Snapshot::default() }
}

fn intent(routes: &[(&str, UplinkChoice)]) -> Intent {
    let route = |(destination, uplink): &(&str, UplinkChoice)| desired::Route {
        destination: net(destination),
        masquerade: true,
        uplink: uplink.clone(),
    };
    Intent {
        wt0: Wt0 { name: "wt0".into(), index: 2, mtu: 1420 },
        addresses: vec!["100.64.0.1".parse().expect("an address")],
        peers: Arc::default(),
        routes: routes.iter().map(route).collect(),
        rules: Arc::default(),
        nat_ports: crate::intent::DEFAULT_NAT_PORTS,
        nat_addresses: Vec::new(),
        listeners: vec![Listener::Udp(51820)],
        peer_quota: None,
        protect_node: false,
        reject: false,
        unsupported: Vec::new(),
    }
}

#[test]
fn the_fib_names_the_uplink() {
    let plan = plan(&intent(&[("198.51.100.0/24", UplinkChoice::Auto)]), &Arc::default(), &node(), &BTreeMap::new())
        .expect("a plan");
    assert_eq!(plan.uplinks.keys().copied().collect::<Vec<_>>(), [3]);
    assert_eq!(IpAddr::from(plan.uplinks[&3].addr4), "198.51.100.1".parse::<IpAddr>().expect("an address"));
    let route = plan.routes.values().next().expect("a route");
    assert_eq!((route.uplink, route.fallback_uplink, route.prefix_len), (0, 3, 96 + 24));
}

#[test]
fn a_route_that_stays_keeps_its_id() {
    let known = [(prefix(&net("10.2.0.0/16")), Route { id: 1, ..Route::default() })].into();
    let wanted = intent(&["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"].map(|net| (net, UplinkChoice::Auto)));
    let plan = plan(&wanted, &Arc::default(), &node(), &known).expect("a plan");
    assert_eq!(plan.service.iter().map(|service| service.id).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(plan.routes[&prefix(&net("10.2.0.0/16"))].id, 1);
}

#[test]
fn a_named_uplink_is_the_only_one() {
    let plan =
        plan(&intent(&[("0.0.0.0/0", UplinkChoice::Named("eth0".into()))]), &Arc::default(), &node(), &BTreeMap::new())
            .expect("a plan");
    assert_eq!(plan.routes.values().next().expect("a route").uplink, 3);
}

#[test]
fn what_cannot_be_an_uplink_says_why() {
    let cases = [
        ("100.64.0.0/24", UplinkChoice::Named("wt0".into()), "the mesh itself"),
        ("10.0.0.0/8", UplinkChoice::Named("eth1".into()), "belongs to eth0"),
        ("10.0.0.0/8", UplinkChoice::Named("eth7".into()), "no device eth7"),
        ("10.0.0.0/8", UplinkChoice::Named("lo".into()), "the node itself"),
        ("fd00::/8", UplinkChoice::Auto, "no route"),
    ];
    for (destination, choice, why) in cases {
        let plan = plan(&intent(&[(destination, choice)]), &Arc::default(), &node(), &BTreeMap::new()).expect("a plan");
        let unserved = plan.service[0].unserved.clone().expect("unserved");
        assert!(unserved.contains(why), "{unserved}");
        assert!(plan.uplinks.is_empty());
    }
}

#[test]
fn every_own_address_is_local_and_those_of_wt0_are_overlay() {
    let plan = plan(&intent(&[]), &Arc::default(), &node(), &BTreeMap::new()).expect("a plan");
    let kind = |text: &str| plan.locals[&Addr::from(text.parse::<IpAddr>().expect("an address"))].kind;
    assert_eq!(kind("100.64.0.1"), LocalKind::Overlay as u32);
    assert_eq!(kind("198.51.100.1"), LocalKind::Node as u32);
    assert_eq!(kind("127.0.0.1"), LocalKind::Node as u32);
    let protected = Intent { protect_node: true, ..intent(&[]) };
    let plan = super::plan(&protected, &Arc::default(), &node(), &BTreeMap::new()).expect("a plan");
    let kind = |text: &str| plan.locals[&Addr::from(text.parse::<IpAddr>().expect("an address"))].kind;
    assert_eq!([kind("100.64.0.1"), kind("198.51.100.1")], [LocalKind::Overlay as u32, LocalKind::Protected as u32]);
}

#[test]
fn broadcasts_of_the_nodes_networks_are_known_and_are_no_sources() {
    let mut node = node();
    node.links.insert(6, link("ptp0", &["10.70.0.0/31", "10.70.0.8/32"]));
    let plan = planned(&[], &node);
    let kind =
        |text: &str| plan.locals.get(&Addr::from(text.parse::<IpAddr>().expect("an address"))).map(|local| local.kind);
    let broadcast = Some(LocalKind::Broadcast as u32);
    assert_eq!([kind("198.51.100.255"), kind("100.64.255.255")], [broadcast; 2]);
    assert_eq!([kind("10.70.0.0"), kind("10.70.0.8")], [Some(LocalKind::Node as u32); 2], "none of two hosts or one");
    assert_eq!(kind("10.70.0.1"), None);
    assert!(!plan.sources().contains(&"198.51.100.255".parse::<IpAddr>().expect("an address").into()));
}

#[test]
fn further_sources_are_those_that_the_uplink_has() {
    let mut node = node();
    let more = ["198.51.100.7/24", "198.51.100.8/24", "2001:db8:2::7/64", "198.51.100.9/24"];
    let mut addresses: Vec<_> = more.map(|text| Address { net: net(text), usable: true }).into();
    addresses[3].usable = false;
    node.links.get_mut(&3).expect("eth0").addresses.extend(addresses);
    let wanted = ["198.51.100.8", "192.0.2.1", "2001:db8:2::7", "198.51.100.7", "198.51.100.9"];
    let mut intent = intent(&[("198.51.100.0/24", UplinkChoice::Auto)]);
    intent.nat_addresses = wanted.map(|text| text.parse().expect("an address")).into();
    let plan = plan(&intent, &Arc::default(), &node, &BTreeMap::new()).expect("a plan");
    assert_eq!(plan.uplinks[&3].sources, [0, 2, 2, 1]);
    let sources: Vec<IpAddr> = plan.nat_sources.iter().map(|&addr| addr.into()).collect();
    assert_eq!(sources, [wanted[0], wanted[3], wanted[2]].map(|text| text.parse::<IpAddr>().expect("an address")));
    assert!(sources.iter().all(|&addr| plan.sources().contains(&addr.into())));
    let absent = absent_sources(&intent, &[3].into(), &node);
    assert_eq!(absent, [wanted[1], wanted[4]].map(|text| text.parse::<IpAddr>().expect("an address")));
}

fn via(link: u32, gateway: &str, source: Option<&str>) -> Way {
    let parse = |text: &str| text.parse().expect("an address");
    Way { link, gateway: Some(parse(gateway)), source: source.map(parse) }
}

/// A node with a second uplink.
fn two_uplinks() -> Snapshot {
    let mut node = node();
    node.links.insert(5, link("eth2", &["10.60.0.2/24"]));
    node
}

fn planned(routes: &[(&str, UplinkChoice)], node: &Snapshot) -> Plan {
    plan(&intent(routes), &Arc::default(), node, &BTreeMap::new()).expect("a plan")
}

fn chosen(plan: &Plan, uplink: u32, net: &str) -> Option<IpAddr> {
    let (len, dst) = prefix(&net.parse().expect("a prefix"));
    plan.chosen.get(&(ChosenKey::UPLINK_BITS + len, ChosenKey { uplink, dst })).map(|&addr| addr.into())
}

#[test]
fn all_next_hops_are_uplinks_each_with_its_own_source() {
    let mut node = two_uplinks();
    let ways = vec![via(3, "198.51.100.10", Some("198.51.100.1")), via(5, "10.60.0.1", Some("10.60.0.2"))];
    node.ways.insert("10.80.0.1".parse().expect("an address"), ways);
    let plan = planned(&[("10.80.0.0/24", UplinkChoice::Auto)], &node);
    assert_eq!(plan.service[0].uplinks, [3, 5]);
    let sources = [3, 5].map(|uplink| chosen(&plan, uplink, "10.80.0.0/24").map(|addr| addr.to_string()));
    assert_eq!(sources, [Some("198.51.100.1".to_owned()), Some("10.60.0.2".to_owned())]);
    let only = planned(&[("10.80.0.0/24", UplinkChoice::Among(vec!["eth2".into(), "eth9".into()]))], &node);
    assert_eq!(only.service[0].uplinks, [5]);
    let none = planned(&[("10.80.0.0/24", UplinkChoice::Among(vec!["eth8".into(), "eth9".into()]))], &node);
    assert!(none.service[0].unserved.as_ref().is_some_and(|why| why.contains("none of eth8, eth9")));
}

#[test]
fn a_narrower_route_within_has_its_own_uplink_and_source() {
    let mut node = two_uplinks();
    let inner = FibRoute { destination: net("10.77.0.0/16"), ways: vec![via(5, "10.60.0.1", Some("10.60.0.9"))] };
    node.routes.push(inner);
    let plan = planned(&[("10.0.0.0/8", UplinkChoice::Auto)], &node);
    // By the default route, by the narrower one, and into the network of the second uplink.
    assert_eq!(plan.service[0].uplinks, [5, 3]);
    assert_eq!(chosen(&plan, 5, "10.77.0.0/16"), Some("10.60.0.9".parse().expect("an address")));
    assert_eq!(chosen(&plan, 3, "10.0.0.0/8"), Some("198.51.100.1".parse().expect("an address")));
}

#[test]
fn without_a_source_a_masqueraded_route_is_not_served_and_one_that_keeps_sources_is() {
    let mut node = two_uplinks();
    node.ways = [("10.80.0.1".parse().expect("an address"), vec![via(5, "10.60.0.1", None)])].into();
    let mut intent = intent(&[("10.80.0.0/24", UplinkChoice::Auto)]);
    let served = |intent: &Intent| plan(intent, &Arc::default(), &node, &BTreeMap::new()).expect("a plan").service;
    assert!(
        served(&intent)[0].unserved.as_ref().is_some_and(|why| why.contains("no address")),
        "{:?}",
        served(&intent)
    );
    intent.routes[0].masquerade = false;
    assert_eq!((served(&intent)[0].unserved.clone(), &*served(&intent)[0].uplinks), (None, &[5][..]));
}

#[test]
fn what_keeps_its_source_and_needs_no_uplink_is_by_the_kernel() {
    let mut node = node();
    let ways = vec![Way { link: 2, gateway: None, source: None }];
    node.routes.push(FibRoute { destination: net("100.64.0.0/16"), ways });
    let mut intent = intent(&[("100.64.0.0/24", UplinkChoice::Auto)]);
    let served = |intent: &Intent| plan(intent, &Arc::default(), &node, &BTreeMap::new()).expect("a plan").service;
    assert!(served(&intent)[0].unserved.is_some() && served(&intent)[0].by_kernel.is_none());
    intent.routes[0].masquerade = false;
    let service = &served(&intent)[0];
    assert_eq!((service.by_kernel.as_deref(), &service.unserved), (Some("wt0"), &None));
}

#[test]
fn a_route_whose_uplinks_are_all_down_or_without_carrier_is_not_served() {
    let mut node = two_uplinks();
    let ways = vec![via(3, "198.51.100.10", Some("198.51.100.1")), via(5, "10.60.0.1", Some("10.60.0.2"))];
    node.ways.insert("10.80.0.1".parse().expect("an address"), ways);
    let mut state = |index, up, running| {
        let link = node.links.get_mut(&index).expect("a link");
        (link.up, link.running) = (up, running);
        let service = planned(&[("10.80.0.0/24", UplinkChoice::Auto)], &node).service.remove(0);
        assert_eq!(service.uplinks, [3, 5], "programs stay in place");
        service.unserved
    };
    assert_eq!(state(3, true, false), None, "one of them carries");
    assert_eq!(state(5, false, false).as_deref(), Some("eth0 has no carrier, eth2 is down"));
    assert_eq!(state(3, true, true), None);
}

#[test]
fn a_network_whose_device_is_down_is_not_served_by_the_default_route() {
    let mut node = two_uplinks();
    let beyond = vec![via(3, "198.51.100.10", Some("198.51.100.1"))];
    node.ways.insert("10.60.0.1".parse().expect("an address"), beyond);
    let unserved = |node: &Snapshot| planned(&[("10.60.0.0/24", UplinkChoice::Auto)], node).service[0].unserved.clone();
    assert_eq!(unserved(&node), None);
    let eth2 = node.links.get_mut(&5).expect("a link");
    (eth2.up, eth2.running) = (false, false);
    assert_eq!(unserved(&node).as_deref(), Some("eth2 is down"));
    node.links.insert(6, link("eth3", &["10.60.0.3/24"]));
    assert_eq!(unserved(&node), None, "another device has the network");
}

#[test]
fn the_kernel_does_not_forward_out_of_a_tunnel_that_is_down() {
    let mut node = node();
    let tunnel = Link { ethernet: false, running: false, ..link("tun7", &["10.90.0.1/24"]) };
    node.links.insert(7, tunnel);
    let ways = vec![Way { link: 7, gateway: None, source: None }];
    node.ways.insert("10.90.0.1".parse().expect("an address"), ways.clone());
    node.routes.push(FibRoute { destination: net("10.90.0.0/24"), ways });
    let mut intent = intent(&[("10.90.0.0/24", UplinkChoice::Auto)]);
    intent.routes[0].masquerade = false;
    let service = |node: &Snapshot| plan(&intent, &Arc::default(), node, &BTreeMap::new()).expect("a plan").service;
    assert_eq!(service(&node)[0].unserved.as_deref(), Some("tun7 has no carrier"));
    node.links.get_mut(&7).expect("a link").running = true;
    assert_eq!(service(&node)[0].by_kernel.as_deref(), Some("tun7"));
}

#[test]
fn the_kernel_is_asked_as_for_a_members_packet() {
    let mut intent =
        intent(&[("10.80.0.0/24", UplinkChoice::Auto), ("10.81.0.0/24", UplinkChoice::Named("eth2".into()))]);
    let prefixes: Arc<[IpNet]> = [net("10.0.0.0/8"), net("100.64.0.9/32"), net("fd64::9/128")].into();
    intent.peers = [crate::PeerPrefixes { id: 1, prefixes }].into();
    let asked = questions(&intent);
    let sources = ["100.64.0.9", "fd64::9"].map(|text| text.parse().expect("an address"));
    assert_eq!(asked.origin, Some(Origin { link: 2, sources: sources.into() }));
    assert_eq!(asked.by_device, [("10.81.0.1".parse().expect("an address"), "eth2".to_owned())]);
    assert_eq!(asked.within, [net("10.80.0.0/24"), net("10.81.0.0/24")]);
}
