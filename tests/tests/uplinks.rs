//! The node's devices, addresses, neighbours and routes, and how they change.

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use common::{Pair, SECOND, answered, answered_within, becomes, flow, lab, page, pair, pair_with, tell};
use peer_common::DropReason;
use peer_tests::lab::{
    BEHIND, Binaries, ECHO_PORT, EchoSocket, End, GATEWAY, GATEWAY6, LAN, LAN6, Lab, NODE_LAN, NODE_LAN6, Namespace,
    OVERLAY, OVERLAY6, Plan, RouteEntry, RuleEntry, Udp, add_address, announce, await_neighbours, ping, wait_for, wire,
};

/// A second host on the LAN.
const SECOND_HOST: &str = "198.51.100.81";
/// An address that moves between the two.
const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 90);
/// A network behind a second uplink, the node and a host in it.
const OTHER_NETWORK: &str = "192.168.77.0/24";
const OTHER_NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 77, 1));
const OTHER_HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 77, 2));
/// A change of the node is followed so fast.
const SOON: Duration = SECOND;

fn prepared() -> Lab {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    lab.node.config.routes.push(RouteEntry::masqueraded(OTHER_NETWORK));
    lab.node.config.rules.push(RuleEntry::new("accept", "any", &[OTHER_NETWORK], &[]));
    lab
}

/// Starts it; members know the other network, too.
fn up(lab: &mut Lab) {
    lab.up().expect("up");
    ip(&lab.client().namespace, &format!("route add {OTHER_NETWORK} dev wg0"));
}

fn ip(namespace: &Namespace, command: &str) {
    namespace.exec("ip", &command.split(' ').collect::<Vec<_>>()).expect("ip");
}

fn parse(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Makes the LAN a bridge, in the namespace of the service, and adds a host to it.
fn second_host(lab: &Lab) -> Namespace {
    let gateway = &lab.gateway.namespace;
    let hardware = gateway.exec("cat", &["/sys/class/net/eth0/address"]).expect("cat");
    ip(gateway, &format!("link add br0 address {} type bridge forward_delay 0", hardware.trim()));
    ip(gateway, "address flush dev eth0");
    ip(gateway, "link set eth0 master br0");
    ip(gateway, "link set br0 up");
    add_address(gateway, "br0", GATEWAY, 24).expect("ip");
    add_address(gateway, "br0", GATEWAY6, 64).expect("ip");
    await_neighbours(gateway, "br0", GATEWAY6).expect("usable");
    let host = Namespace::new("second").expect("namespace");
    wire(
        &End { namespace: gateway, device: "port1", addresses: &[] },
        &End { namespace: &host, device: "eth0", addresses: &[(parse(SECOND_HOST), 24)] },
    )
    .expect("wire");
    ip(gateway, "link set port1 master br0");
    host
}

/// Wires a host to the node by a device of its own.
fn other_host(lab: &Lab, device: &str) -> Namespace {
    let host = Namespace::new("other").expect("namespace");
    rewire(lab, &host, device);
    host
}

fn rewire(lab: &Lab, host: &Namespace, device: &str) {
    wire(
        &End { namespace: &lab.node.namespace, device, addresses: &[(OTHER_NODE, 24)] },
        &End { namespace: host, device: "eth0", addresses: &[(OTHER_HOST, 24)] },
    )
    .expect("wire");
}

/// Sends until it arrives; how long that took, and who the sender is there.
#[track_caller]
fn arrives(member: &Udp, at: &Udp, content: &[u8]) -> (Duration, std::net::SocketAddr) {
    let start = Instant::now();
    loop {
        let _ = member.send(content);
        match at.receive(SECOND / 100).expect("receive") {
            Some((received, from)) if received == content => return (start.elapsed(), from),
            _ => assert!(start.elapsed() < SECOND * 10, "nothing arrives"),
        }
    }
}

#[test]
fn t24_a_moving_address_is_followed_at_once() {
    let lab = lab(&Plan::default());
    let second = second_host(&lab);
    add_address(&lab.gateway.namespace, "br0", VIP.into(), 32).expect("ip");
    let Pair { member, service, seen } = pair(&lab, VIP.into(), 7400);
    // The kernel takes a new answer about a neighbour only so long after the one before.
    std::thread::sleep(SECOND * 6 / 5);
    service.close().expect("close");
    ip(&lab.gateway.namespace, &format!("address delete {VIP}/32 dev br0"));
    add_address(&second, "eth0", VIP.into(), 32).expect("ip");
    let service = Udp::bind(&second, VIP.into(), 7400).expect("socket");
    announce(&second, "eth0", VIP).expect("announce");
    let (took, from) = arrives(&member, &service, b"moved");
    tell(&format!("a moving address is followed after {} ms", took.as_millis()));
    assert!(took < SOON, "{took:?}");
    assert_eq!(from, seen, "the same mapping");
    service.send_to(b"back", from).expect("send");
    assert_eq!(member.receive(SECOND * 2).expect("receive").expect("answer").0, b"back");
}

#[test]
fn t24_a_route_change_in_mid_flow_is_followed() {
    let lab = lab(&Plan::default());
    let second = second_host(&lab);
    add_address(&second, "lo", BEHIND, 32).expect("ip");
    let Pair { member, service: _, seen } = pair(&lab, BEHIND, 7401);
    let service = Udp::bind(&second, BEHIND, 7401).expect("socket");
    ip(&lab.node.namespace, &format!("route replace 203.0.113.0/24 via {SECOND_HOST}"));
    let (took, from) = arrives(&member, &service, b"by the other way");
    tell(&format!("a changed route is followed after {} ms", took.as_millis()));
    assert!(took < SOON, "{took:?}");
    assert_eq!(from, seen, "the same mapping");
}

#[test]
fn t24_two_uplinks_and_a_flow_that_changes_between_them() {
    let mut lab = prepared();
    let other = other_host(&lab, "eth1");
    up(&mut lab);
    let near = pair(&lab, GATEWAY, 7402);
    let far = pair_with(&lab, &other, OTHER_HOST, 7402);
    assert_eq!((near.seen.ip(), far.seen.ip()), (NODE_LAN, OTHER_NODE));
    add_address(&other, "lo", BEHIND, 32).expect("ip");
    let Pair { member, service: _, seen } = pair(&lab, BEHIND, 7403);
    assert_eq!(seen.ip(), NODE_LAN);
    let service = Udp::bind(&other, BEHIND, 7403).expect("socket");
    ip(&lab.node.namespace, &format!("route replace 203.0.113.0/24 via {OTHER_HOST}"));
    let (took, from) = arrives(&member, &service, b"by the other uplink");
    tell(&format!("a flow changes its uplink after {} ms", took.as_millis()));
    assert!(took < SOON, "{took:?}");
    assert_eq!(from.ip(), OTHER_NODE, "a source of the uplink's own");
    service.send_to(b"back", from).expect("send");
    assert_eq!(member.receive(SECOND * 2).expect("receive").expect("answer").0, b"back");
}

#[test]
fn t24_a_route_with_an_uplink_of_its_own_leaves_by_that() {
    let mut lab = prepared();
    let other = other_host(&lab, "eth1");
    add_address(&other, "lo", BEHIND, 32).expect("ip");
    // The node itself prefers eth0.
    ip(&lab.node.namespace, &format!("route add 203.0.113.0/24 via {OTHER_HOST} metric 1000"));
    for route in &mut lab.node.config.routes {
        if route.destination == "203.0.113.0/24" {
            route.uplink = "eth1".to_owned();
        }
    }
    up(&mut lab);
    let Pair { member, service, seen } = pair_with(&lab, &other, BEHIND, 7409);
    assert_eq!(seen.ip(), OTHER_NODE);
    service.send_to(b"back", seen).expect("send");
    assert_eq!(member.receive(SECOND * 2).expect("receive").expect("answer").0, b"back");
}

#[test]
fn t24_a_changed_address_of_the_node_flushes_and_is_used() {
    let lab = lab(&Plan::default());
    let Pair { member, service, seen } = pair(&lab, GATEWAY, 7404);
    assert_eq!(seen.ip(), NODE_LAN);
    let node = &lab.node.namespace;
    ip(node, &format!("address delete {NODE_LAN}/24 dev eth0"));
    ip(node, "address add 198.51.100.3/24 dev eth0");
    let start = Instant::now();
    let (_, from) = std::iter::repeat_with(|| arrives(&member, &service, b"from the new address"))
        .find(|(_, from)| *from != seen || start.elapsed() > SECOND * 5)
        .expect("endless");
    let took = start.elapsed();
    tell(&format!("a new address of the node is used after {} ms", took.as_millis()));
    assert_eq!(from.ip(), parse("198.51.100.3"));
    assert!(took < SOON, "{took:?}");
    service.send_to(b"back", from).expect("send");
    assert_eq!(member.receive(SECOND * 2).expect("receive").expect("answer").0, b"back");
    assert!(answered(&flow(lab.client(), GATEWAY), b"a new flow"));
    assert_eq!(lab.gateway.senders_of(b"a new flow")[0].ip(), parse("198.51.100.3"));
}

#[test]
fn t20_an_uplink_that_comes_late_goes_and_comes_again() {
    let mut lab = prepared();
    up(&mut lab);
    assert!(answered(&flow(lab.client(), GATEWAY), b"warm"));
    let pins = lab.node.pins().expect("pins");
    let other = Namespace::new("other").expect("namespace");
    for round in 0..2 {
        rewire(&lab, &other, "eth1");
        let start = Instant::now();
        let Pair { seen, .. } = pair_with(&lab, &other, OTHER_HOST, 7405);
        assert_eq!(seen.ip(), OTHER_NODE);
        tell(&format!("round {round}: a late uplink carries traffic after {} ms", start.elapsed().as_millis()));
        // A program sees traffic a moment before its link is pinned.
        becomes(pins.len() + 1, || lab.node.pins().expect("pins").len());
        ip(&lab.node.namespace, "link delete eth1");
        assert!(wait_for(SECOND * 3, || lab.node.pins().expect("pins") == pins), "the pin goes with the device");
        assert!(answered(&flow(lab.client(), GATEWAY), b"the other uplink goes on"));
    }
    assert_eq!(lab.node.probe("/readyz").expect("probe").0, 200);
}

#[test]
fn t20_the_only_uplink_is_made_anew() {
    let mut lab = lab(&Plan::default());
    assert!(answered(&flow(lab.client(), GATEWAY), b"before"));
    let pins = lab.node.pins().expect("pins").len();
    ip(&lab.node.namespace, "link delete eth0");
    wire(
        &End { namespace: &lab.node.namespace, device: "eth0", addresses: &[(NODE_LAN, 24), (NODE_LAN6, 64)] },
        &End { namespace: &lab.gateway.namespace, device: "eth0", addresses: &[(GATEWAY, 24), (GATEWAY6, 64)] },
    )
    .expect("wire");
    let start = Instant::now();
    assert!(answered_within(SECOND * 6, &flow(lab.client(), GATEWAY), b"after"));
    tell(&format!("a new eth0 carries traffic after {} ms", start.elapsed().as_millis()));
    page(lab.client(), GATEWAY6);
    // The old pin is gone, and a new one is there, a moment after the program sees traffic.
    becomes(pins, || lab.node.pins().expect("pins").len());
    assert!(lab.node.daemon().expect("daemon").ended().expect("status").is_none());
}

#[test]
fn t20_without_wt0_the_daemon_ends_and_the_next_makes_a_new_one() {
    let mut lab = lab(&Plan::default());
    page(lab.client(), GATEWAY);
    ip(&lab.node.namespace, "link delete wt0");
    let ended = wait_for(SECOND * 5, || lab.node.daemon().expect("daemon").ended().expect("status").is_some());
    assert!(ended, "its device is gone, and it says so by ending");
    let status = lab.node.daemon().expect("daemon").ended().expect("status").expect("ended");
    assert!(!status.success(), "{status}");
    lab.node.kill().expect("forget it");
    lab.node.start().expect("start");
    page(lab.client(), GATEWAY);
    let attached = lab.node.status().expect("status");
    let programs = attached["dataplane"]["programs"].as_array().expect("a list").clone();
    assert!(programs.iter().all(|program| program["position"] == 0), "{programs:?}");
    lab.node.stop().expect("stop");
    assert_eq!(lab.node.pins().expect("pins"), Vec::<std::path::PathBuf>::new(), "old pins are gone as well");
}

#[test]
fn t21_exhausted_ports_refuse_one_remote_and_no_other() {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    // The largest prime of it is what is used: 13. From three quarters of them on, a member has its share.
    lab.node.arguments = vec!["--nat-ports".to_owned(), "24000-24015".to_owned()];
    lab.gateway.open_echo(GATEWAY, ECHO_PORT + 1).expect("echo");
    lab.up().expect("up");
    let sockets: Vec<_> = (0..16).map(|_| flow(lab.client(), GATEWAY)).collect();
    assert!(answered(&sockets[0], b"warm"));
    // A scan counts ports anew, and misses those that are taken at that moment: this one has just been, and the next is far.
    let scanned = lab.node.await_metric(SECOND * 10, 1.0, "peer_nat_ports_busiest_remote", &[]).expect("metrics");
    assert_eq!(scanned, 1.0, "a scan has seen the flow");
    let open = sockets.iter().filter(|socket| socket.ask(b"one of many", SECOND / 2).expect("send")).count();
    assert_eq!(open, 10);
    assert!(lab.node.dropped(DropReason::PortShare).expect("metrics") >= 3.0);
    let other = EchoSocket::open(&lab.client().namespace, (GATEWAY, ECHO_PORT + 1).into()).expect("socket");
    assert!(answered(&other, b"another remote"));
    assert!(answered(&sockets[0], b"the first one goes on"));
}

#[test]
fn t22_sockets_of_the_node_keep_their_ports() {
    let lab = lab(&Plan::default());
    assert!(answered(&flow(lab.client(), GATEWAY), b"warm"));
    let node = &lab.node.namespace;
    let service = (GATEWAY, ECHO_PORT).into();
    let _bound = Udp::bind(node, "0.0.0.0".parse().expect("an address"), 25_000).expect("socket");
    let connected = EchoSocket::open_at(node, 25_001, service).expect("socket");
    assert!(answered(&connected, b"the node's own"));
    for port in [25_000, 25_001, 25_002] {
        let content = format!("member at {port}");
        let socket = EchoSocket::open_at(&lab.client().namespace, port, service).expect("socket");
        assert!(answered(&socket, content.as_bytes()));
        let kept = lab.gateway.senders_of(content.as_bytes())[0].port() == port;
        assert_eq!(kept, port == 25_002, "a port is kept only where the node has no socket: {port}");
    }
    assert!(answered(&connected, b"still the node's own"), "its answers were not hijacked");
    let tcp = node.enter(|| std::net::TcpStream::connect((GATEWAY, 80)));
    tcp.expect("the node's own connections are its own");
}

#[test]
fn t23_a_bridge_is_an_uplink() {
    let mut lab = prepared();
    let node = &lab.node.namespace;
    ip(node, "link add br0 type bridge forward_delay 0");
    ip(node, "address flush dev eth0");
    ip(node, "link set eth0 master br0");
    ip(node, "link set br0 up");
    add_address(node, "br0", NODE_LAN, 24).expect("ip");
    add_address(node, "br0", NODE_LAN6, 64).expect("ip");
    await_neighbours(node, "br0", NODE_LAN6).expect("usable");
    // The ways to what lies behind the LAN went with the addresses of eth0.
    lab.node.config.routes.retain(|route| route.destination == LAN || route.destination == LAN6);
    up(&mut lab);
    for (service, seen) in [(GATEWAY, NODE_LAN), (GATEWAY6, NODE_LAN6)] {
        assert_eq!(page(lab.client(), service), format!("Hello from the LAN, {seen}\n"));
    }
    let position = lab.node.metric("peer_program_position", &[("device", "br0")]).expect("metrics");
    assert_eq!(position, 0.0);
    assert_eq!(lab.node.kernel_forwarded().expect("counters"), 0);
}

#[test]
fn t23_a_device_upon_another_is_an_uplink() {
    let mut lab = prepared();
    // As a VLAN has a name of its parent's; what is asked of the programs is the same.
    ip(&lab.node.namespace, "link add link eth0 name eth0.100 type macvlan mode private");
    add_address(&lab.node.namespace, "eth0.100", OTHER_NODE, 24).expect("ip");
    ip(&lab.node.namespace, "link set eth0.100 up");
    add_address(&lab.gateway.namespace, "eth0", OTHER_HOST, 24).expect("ip");
    up(&mut lab);
    let Pair { member, service, seen } = pair(&lab, OTHER_HOST, 7406);
    assert_eq!(seen.ip(), OTHER_NODE);
    service.send_to(b"back", seen).expect("send");
    assert_eq!(member.receive(SECOND * 2).expect("receive").expect("answer").0, b"back");
    becomes(true, || lab.node.pins().expect("pins").iter().any(|pin| pin.ends_with("peer_uplink_in-eth0:100")));
}

#[test]
fn a_route_that_keeps_sources_is_open_to_the_lan_and_others_are_not() {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    for route in &mut lab.node.config.routes {
        route.masquerade = !route.destination.contains("198.51.100.") && !route.destination.contains("2001:db8:2:");
    }
    lab.up().expect("up");
    let gateway = &lab.gateway.namespace;
    ip(gateway, &format!("route add {OVERLAY} via {NODE_LAN}"));
    ip(gateway, &format!("route add {OVERLAY6} via {NODE_LAN6}"));
    let member = lab.client();
    for (service, source) in [(GATEWAY, member.overlay()), (GATEWAY6, member.overlay6())] {
        assert_eq!(page(member, service), format!("Hello from the LAN, {source}\n"), "the source is kept");
        assert!(ping(gateway, source, 3, SECOND * 2).expect("ping").all_answered(), "the LAN may ask: {source}");
    }
    // The other route masquerades: whoever is behind it must not begin.
    let socket = Udp::bind(gateway, BEHIND, 7407).expect("socket");
    socket.connect((member.overlay(), 9).into()).expect("connect");
    let before = lab.node.dropped(DropReason::NoRoute).expect("metrics");
    socket.send(b"let me in").expect("send");
    let reason = [("reason", DropReason::NoRoute.name())];
    let dropped = lab.node.await_metric(SECOND * 2, before + 1.0, "peer_dropped_packets_total", &reason);
    assert_eq!(dropped.expect("metrics"), before + 1.0);
    let Pair { seen, .. } = pair(&lab, BEHIND, 7408);
    assert_eq!(seen.ip(), NODE_LAN);
}
