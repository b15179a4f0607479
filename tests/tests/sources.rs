//! With which address, and by which device, packets leave: as the kernel itself would send them.

mod common;

use std::net::{IpAddr, SocketAddr};

use common::{Pair, SECOND, becomes, pair_with, tell};
use peer_tests::lab::{
    Binaries, End, Lab, NODE_LAN, Namespace, OVERLAY, Plan, RouteEntry, RuleEntry, Udp, sysctl, wait_for, wire,
};

/// A second network on the same wire as the LAN: the node's address in it, and a host's.
const SECOND4: (&str, &str, &str) = ("10.99.0.0/24", "10.99.0.5", "10.99.0.10");
const SECOND6: (&str, &str, &str) = ("fd99::/64", "fd99::5", "fd99::10");
/// What lies behind a gateway.
const FAR4: (&str, &str) = ("10.77.0.0/24", "10.77.0.1");
const FAR6: (&str, &str) = ("fd77::/64", "fd77::1");

/// A lab that is not up yet, whose members may reach these networks besides.
fn serving(networks: &[&str]) -> Lab {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    for network in networks {
        lab.node.config.routes.push(RouteEntry::masqueraded(network));
        lab.node.config.rules.push(RuleEntry::new("accept", "any", &[network], &[]));
    }
    lab
}

fn up(lab: &mut Lab, networks: &[&str]) {
    lab.up().expect("up");
    for network in networks {
        ip(&lab.client().namespace, &format!("route add {network} dev wg0"));
    }
}

fn ip(namespace: &Namespace, command: &str) {
    namespace.exec("ip", &command.split(' ').collect::<Vec<_>>()).expect("ip");
}

/// Adds an address that may be used at once.
fn address(namespace: &Namespace, device: &str, address: &str) {
    let nodad = if address.contains(':') { " nodad" } else { "" };
    ip(namespace, &format!("address add {address} dev {device}{nodad}"));
}

fn parse(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The address that the host sees.
#[track_caller]
fn seen(lab: &Lab, host: &Namespace, at: &str) -> IpAddr {
    pair_with(lab, host, parse(at), 7600).seen.ip()
}

#[test]
fn a_host_of_a_second_subnet_sees_the_address_of_its_own() {
    let networks = [SECOND4.0, SECOND6.0];
    let mut lab = serving(&networks);
    for (net, own, host) in [SECOND4, SECOND6] {
        let len = net.rsplit('/').next().expect("a length");
        address(&lab.node.namespace, "eth0", &format!("{own}/{len}"));
        address(&lab.gateway.namespace, "eth0", &format!("{host}/{len}"));
    }
    up(&mut lab, &networks);
    let lan = &lab.gateway.namespace;
    assert_eq!(seen(&lab, lan, SECOND4.2), parse(SECOND4.1));
    assert_eq!(seen(&lab, lan, SECOND6.2), parse(SECOND6.1));
    assert_eq!(seen(&lab, lan, "198.51.100.80"), NODE_LAN, "and one of the first the first");
}

#[test]
fn behind_a_gateway_of_the_second_subnet_the_address_of_that_subnet_is_seen() {
    let networks = [FAR4.0, FAR6.0];
    let mut lab = serving(&networks);
    let (node, lan) = (&lab.node.namespace, &lab.gateway.namespace);
    for ((net, own, gateway), (far, host)) in [(SECOND4, FAR4), (SECOND6, FAR6)] {
        let len = net.rsplit('/').next().expect("a length");
        address(node, "eth0", &format!("{own}/{len}"));
        address(lan, "eth0", &format!("{gateway}/{len}"));
        address(lan, "lo", &format!("{host}/{}", if host.contains(':') { 128 } else { 32 }));
        ip(node, &format!("route add {far} via {gateway}"));
    }
    up(&mut lab, &networks);
    let lan = &lab.gateway.namespace;
    assert_eq!(seen(&lab, lan, FAR4.1), parse(SECOND4.1));
    assert_eq!(seen(&lab, lan, FAR6.1), parse(SECOND6.1));
}

#[test]
fn a_lone_address_that_is_listed_first_is_not_the_source_and_a_routes_own_source_is() {
    let networks = [FAR4.0];
    let mut lab = serving(&networks);
    let (node, lan) = (&lab.node.namespace, &lab.gateway.namespace);
    ip(node, "address flush dev eth0 scope global");
    // As when a virtual address comes before the one by DHCP.
    address(node, "eth0", "198.51.100.200/32");
    address(node, "eth0", "198.51.100.1/24");
    address(node, "eth0", "2001:db8:2::1/64");
    address(node, "eth0", "198.51.100.77/24");
    address(lan, "lo", &format!("{}/32", FAR4.1));
    ip(node, &format!("route add {} via 198.51.100.80 src 198.51.100.77", FAR4.0));
    up(&mut lab, &networks);
    let lan = &lab.gateway.namespace;
    assert_eq!(seen(&lab, lan, "198.51.100.80"), NODE_LAN);
    assert_eq!(seen(&lab, lan, FAR4.1), parse("198.51.100.77"));
}

#[test]
fn ula_hosts_see_a_ula_and_global_hosts_a_global_address_that_is_not_deprecated() {
    let networks = [SECOND6.0];
    let mut lab = serving(&networks);
    let (node, lan) = (&lab.node.namespace, &lab.gateway.namespace);
    address(node, "eth0", &format!("{}/64", SECOND6.1));
    ip(node, "address add 2001:db8:2::dead/64 dev eth0 nodad preferred_lft 0");
    address(lan, "eth0", &format!("{}/64", SECOND6.2));
    up(&mut lab, &networks);
    let lan = &lab.gateway.namespace;
    assert_eq!(seen(&lab, lan, SECOND6.2), parse(SECOND6.1));
    assert_eq!(seen(&lab, lan, "2001:db8:2::80"), parse("2001:db8:2::1"));
}

#[test]
fn an_uplink_without_an_address_borrows_one_and_without_any_the_route_is_not_served() {
    let networks = [FAR4.0];
    let mut lab = serving(&networks);
    let host = Namespace::new("bare").expect("namespace");
    let node = &lab.node.namespace;
    let ends = [(node, "bare0"), (&host, "eth0")].map(|(namespace, device)| End { namespace, device, addresses: &[] });
    wire(&ends[0], &ends[1]).expect("wire");
    address(node, "lo", "10.5.0.1/32");
    address(&host, "lo", &format!("{}/32", FAR4.1));
    ip(&host, "route add default dev eth0");
    ip(node, &format!("route add {} dev bare0 src 10.5.0.1", FAR4.0));
    up(&mut lab, &networks);
    assert_eq!(seen(&lab, &host, FAR4.1), parse("10.5.0.1"));
}

/// A host behind two gateways, which the node reaches by one device each, and the routes to it over both.
fn two_ways(lab: &Lab) -> [Namespace; 3] {
    let spaces = ["left", "right", "core"].map(|name| Namespace::new(name).expect("namespace"));
    let [left, right, core] = &spaces;
    for (side, (gateway, device)) in [(left, "up1"), (right, "up2")].into_iter().enumerate() {
        let nets = |at: usize| [(parse(&format!("10.6{side}.0.{at}")), 24), (parse(&format!("fd6{side}::{at}")), 64)];
        let [one, two] = [nets(1), nets(2)];
        let node = End { namespace: &lab.node.namespace, device, addresses: &two };
        wire(&node, &End { namespace: gateway, device: "eth0", addresses: &one }).expect("wire");
        let nets = |at: usize| [(parse(&format!("10.7{side}.0.{at}")), 24), (parse(&format!("fd7{side}::{at}")), 64)];
        let [one, two] = [nets(1), nets(2)];
        let there = End { namespace: core, device: if side == 0 { "eth0" } else { "eth1" }, addresses: &two };
        wire(&End { namespace: gateway, device: "eth1", addresses: &one }, &there).expect("wire");
        ip(gateway, &format!("route add 10.80.0.0/24 via 10.7{side}.0.2"));
        ip(gateway, &format!("route add fd80::/64 via fd7{side}::2"));
        ip(core, &format!("route add 10.6{side}.0.0/24 via 10.7{side}.0.1"));
        ip(core, &format!("route add fd6{side}::/64 via fd7{side}::1"));
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            sysctl(gateway, key, "1").expect("sysctl");
        }
    }
    address(core, "lo", "10.80.0.1/32");
    address(core, "lo", "fd80::1/128");
    let node = &lab.node.namespace;
    ip(node, "route add 10.80.0.0/24 nexthop via 10.60.0.1 nexthop via 10.61.0.1");
    ip(node, "route add fd80::/64 nexthop via fd60::1 nexthop via fd61::1");
    // By ports: each flow of one member may go either way.
    for family in ["ipv4", "ipv6"] {
        sysctl(node, &format!("net/{family}/fib_multipath_hash_policy"), "1").expect("sysctl");
    }
    spaces
}

#[test]
fn every_next_hop_of_a_multipath_route_carries_flows_with_its_own_source() {
    let networks = ["10.80.0.0/24", "fd80::/64"];
    let mut lab = serving(&networks);
    let [_left, _right, core] = two_ways(&lab);
    up(&mut lab, &networks);
    for (at, sources) in [("10.80.0.1", ["10.60.0.2", "10.61.0.2"]), ("fd80::1", ["fd60::2", "fd61::2"])] {
        let service = Udp::bind(&core, parse(at), 7700).expect("socket");
        let mut counts = [0; 2];
        for _ in 0..24 {
            let from = source_of_a_new_flow(&lab, &service, (parse(at), 7700).into());
            let side = sources.iter().position(|source| parse(source) == from);
            counts[side.unwrap_or_else(|| panic!("{from}"))] += 1;
        }
        tell(&format!("{at}: {counts:?} flows by the two ways"));
        assert!(counts.iter().all(|count| *count > 0), "{at}: {counts:?}");
    }
}

#[track_caller]
fn source_of_a_new_flow(lab: &Lab, service: &Udp, to: SocketAddr) -> IpAddr {
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    let member = Udp::bind(&lab.client().namespace, parse(any), 0).expect("socket");
    member.connect(to).expect("connect");
    let mut from = None;
    // The first packet may wait for the neighbour; each that is sent belongs to this one flow.
    wait_for(SECOND * 6, || {
        member.send(b"open").expect("send");
        from = service.receive(SECOND / 2).expect("receive");
        from.is_some()
    });
    while service.receive(SECOND / 100).expect("receive").is_some() {}
    from.expect("it arrives, whichever way it is").1.ip()
}

#[test]
fn rules_of_the_node_for_members_packets_name_the_uplink() {
    let networks = ["10.80.0.0/24"];
    let mut lab = serving(&networks);
    let [_left, _right, core] = two_ways(&lab);
    let node = &lab.node.namespace;
    ip(node, "route delete 10.80.0.0/24");
    // For everybody else there is no way to it.
    ip(node, "route add unreachable 10.80.0.0/24");
    ip(node, "route add 10.80.0.0/24 via 10.61.0.1 table 100");
    ip(node, &format!("rule add from {OVERLAY} iif wt0 lookup 100"));
    up(&mut lab, &networks);
    assert_eq!(seen(&lab, &core, "10.80.0.1"), parse("10.61.0.2"));
}

#[test]
fn a_flow_keeps_its_source_as_long_as_the_node_has_it() {
    let mut lab = serving(&[]);
    up(&mut lab, &[]);
    let Pair { member, service, seen } = pair_with(&lab, &lab.gateway.namespace, parse("198.51.100.80"), 7800);
    assert_eq!(seen.ip(), NODE_LAN);
    // From now on the kernel would choose another one.
    let node = &lab.node.namespace;
    address(node, "eth0", "198.51.100.33/24");
    ip(node, "route replace 198.51.100.0/24 dev eth0 proto kernel scope link src 198.51.100.33");
    becomes(parse("198.51.100.33"), || source_of_a_new_flow(&lab, &service, (parse("198.51.100.80"), 7800).into()));
    for number in 0..20_u8 {
        member.send(&[number]).expect("send");
        let (content, from) = service.receive(SECOND).expect("receive").expect("it arrives");
        assert_eq!((content, from), (vec![number], seen));
    }
}
