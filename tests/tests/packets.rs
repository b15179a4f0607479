//! Packets as they are: checksums, sizes, fragments, hop limits, errors.

mod common;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::{Pair, SECOND, answered, flow, lab, page, pair, tell};
use peer_tests::lab::{
    Baseline, Binaries, Capabilities, Capture, Captured, Datagram, Download, ECHO_PORT, EchoSocket, End, Fragmenting,
    GATEWAY, GATEWAY6, HTTP_PORT, IcmpListener, IcmpMessage, Lab, NODE_LAN, NODE_OVERLAY, NODE_OVERLAY6, Namespace,
    Offload, Plan, Udp, find_wireguard_go, forge, forge_towards, ping_with, set_offload, sysctl, wait_for, wire,
};

/// A port of the service's at which nobody listens.
const CLOSED: u16 = 9;
/// Larger than the path takes.
const EMSGSIZE: i32 = 90;
/// A host behind the service, which forwards to it.
const INNER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 99));

fn small_mtu(mtu: u16) -> Lab {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    lab.node.config.mtu = mtu;
    lab.up().expect("up");
    lab
}

fn set_mtu(namespace: &Namespace, device: &str, mtu: u32) {
    namespace.exec("ip", &["link", "set", device, "mtu", &mtu.to_string()]).expect("ip");
}

#[test]
fn t13_bulk_with_every_combination_of_offloads() {
    let lab = lab(&Plan { capabilities: Capabilities::Deployed, ..Plan::default() });
    for service in [GATEWAY, GATEWAY6] {
        for off in [None, Some(Offload::TransmitChecksum), Some(Offload::Segmentation), Some(Offload::Receive)] {
            let ends = [&lab.node.namespace, &lab.gateway.namespace];
            let set = |on| {
                for (end, off) in ends.into_iter().zip([off; 2]).filter_map(|(end, off)| Some((end, off?))) {
                    set_offload(end, "eth0", off, on).expect("ethtool");
                }
            };
            set(false);
            let download = Download::start(&lab.client().namespace, service, 8_000_000).expect("download");
            download.finish().unwrap_or_else(|error| panic!("{service} without {off:?}: {error:#}"));
            assert!(answered(&flow(lab.client(), service), b"a datagram"), "{service} without {off:?}");
            set(true);
        }
    }
}

#[test]
fn t13_upload_arrives_whole() {
    let mut lab = lab(&Plan::default());
    lab.gateway.start_iperf().expect("iperf3");
    for off in [None, Some(Offload::Receive)] {
        if let Some(off) = off {
            set_offload(&lab.node.namespace, "eth0", off, false).expect("ethtool");
            set_offload(&lab.gateway.namespace, "eth0", off, false).expect("ethtool");
        }
        let way = peer_tests::lab::Direction::Upload;
        let measured = peer_tests::lab::iperf(&lab.client().namespace, GATEWAY, way, 1).expect("iperf3");
        assert!(measured.bytes > 1e6, "{measured:?}");
    }
}

#[test]
fn t14_udp_without_checksum_and_in_super_packets() {
    let lab = lab(&Plan::default());
    let Pair { member, service, seen } = pair(&lab, GATEWAY, 7300);
    let capture = Capture::start(&lab.gateway.namespace, "eth0").expect("capture");
    member.without_checksum().expect("option");
    member.send(b"unsummed").expect("send");
    assert_eq!(service.receive(SECOND * 2).expect("receive"), Some((b"unsummed".to_vec(), seen)));
    let packets = capture.take().expect("capture");
    let unsummed = packets.iter().find(|packet| packet.bytes.ends_with(b"unsummed")).expect("seen");
    assert_eq!(unsummed.bytes[26..28], [0, 0], "no checksum stays none");
    service.without_checksum().expect("option");
    service.send_to(b"back", seen).expect("send");
    assert_eq!(member.receive(SECOND * 2).expect("receive").expect("answer").0, b"back");

    for address in [GATEWAY, GATEWAY6] {
        let Pair { member, service, seen } = pair(&lab, address, 7301);
        let content: Vec<u8> = (0..10_000_u32).map(|byte| (byte / 7) as u8).collect();
        member.segmented(1000).expect("option");
        member.send(&content).expect("send");
        let received: Vec<u8> = (0..10)
            .flat_map(|_| service.receive(SECOND * 2).expect("receive").map_or(Vec::new(), |(part, _)| part))
            .collect();
        assert_eq!(received, content, "{address}: in order and whole");
        service.segmented(1000).expect("option");
        service.send_to(&content, seen).expect("send");
        let received: Vec<u8> = (0..10)
            .flat_map(|_| member.receive(SECOND * 2).expect("receive").map_or(Vec::new(), |(part, _)| part))
            .collect();
        assert_eq!(received, content, "{address}: and back");
    }
}

#[test]
fn t14_small_segments_go_through() {
    let lab = lab(&Plan::default());
    let route = ["route", "replace", "198.51.100.80/32", "dev", "wg0", "advmss", "216"];
    lab.client().namespace.exec("ip", &route).expect("ip");
    let capture = Capture::start(&lab.client().namespace, "wg0").expect("capture");
    let download = Download::start(&lab.client().namespace, GATEWAY, 1_000_000).expect("download");
    download.finish().expect("whole");
    let asked = capture.take().expect("capture").iter().filter(|packet| packet.left).find_map(Captured::segment_size);
    assert_eq!(asked, Some(216));
}

#[test]
fn t15_segment_sizes_are_clamped_both_ways() {
    let lab = small_mtu(1280);
    let member = &lab.client().namespace;
    set_mtu(member, "wg0", 1500);
    for (service, headers) in [(GATEWAY, 40), (GATEWAY6, 60)] {
        let far = Capture::start(&lab.gateway.namespace, "eth0").expect("capture");
        let near = Capture::start(member, "wg0").expect("capture");
        page(lab.client(), service);
        let sizes = |capture: &Capture, left: bool| -> Vec<u16> {
            let packets = capture.take().expect("capture");
            packets.iter().filter(|packet| packet.left == left).filter_map(Captured::segment_size).collect()
        };
        let far = sizes(&far, false);
        let near = near.take().expect("capture");
        let of = |left| near.iter().filter(move |packet| packet.left == left).find_map(Captured::segment_size);
        assert_eq!(of(true), Some(1500 - headers), "what the member asks for");
        assert_eq!(far.first(), Some(&(1280 - headers)), "what the service is told");
        assert_eq!(of(false), Some(1280 - headers), "what the member is told");
    }
}

#[test]
fn t15_too_large_for_the_mesh_is_answered_and_the_sender_learns() {
    let lab = small_mtu(1280);
    for (address, headers) in [(GATEWAY, 28), (GATEWAY6, 48)] {
        let Pair { member, service, seen } = pair(&lab, address, 7302);
        let errors = IcmpListener::open(&lab.gateway.namespace, address.is_ipv6()).expect("listen");
        let capture = Capture::start(&lab.gateway.namespace, "eth0").expect("capture");
        service.connect(seen).expect("connect");
        service.fragmenting(Fragmenting::Probe).expect("option");
        for size in [1280 - 14, 1279, 1280] {
            service.send(&vec![7; size - headers]).expect("send");
            let received = member.receive(SECOND * 2).expect("receive");
            assert_eq!(received.map(|(content, _)| content.len()), Some(size - headers), "{address}: {size} fits");
        }
        capture.take().expect("capture");
        service.send(&vec![7; 1281 - headers]).expect("send");
        let error = errors.next(IcmpMessage::errors(address.is_ipv6()), SECOND * 2).expect("well-formed");
        let error = error.expect("1281 is one too many");
        let expected = if address.is_ipv6() { (2, 0) } else { (3, 4) };
        assert_eq!(((error.kind, error.code), error.rest & 0xffff), (expected, 1280));
        let sent = capture.take().expect("capture").into_iter().find(|packet| packet.left).expect("sent");
        error.quotes(&with_checksum_of(&sent.bytes, &error.content)).expect("the packet as the service knows it");
        assert_eq!(service.path_mtu().expect("option"), 1280, "{address}: the service has learned");
        service.fragmenting(Fragmenting::Forbidden).expect("option");
        let refused = service.send(&vec![7; 1281 - headers]).expect_err("too large now");
        assert_eq!(refused.raw_os_error(), Some(EMSGSIZE));
        while service.error(SECOND / 100).expect("option").is_some() {}
        service.send(&vec![7; 1280 - headers]).expect("send");
        assert!(member.receive(SECOND * 2).expect("receive").is_some(), "{address}: what fits goes on");
    }
}

/// A packet with the checksum of UDP taken from `like`: the stack leaves it to the device.
fn with_checksum_of(packet: &[u8], like: &[u8]) -> Vec<u8> {
    let at = if packet[0] >> 4 == 4 { 26 } else { 46 };
    let mut packet = packet.to_vec();
    packet[at..at + 2].copy_from_slice(&like[at..at + 2]);
    packet
}

#[test]
fn t15_too_large_for_the_lan_is_answered_and_the_member_learns() {
    let lab = lab(&Plan::default());
    for (address, headers) in [(GATEWAY, 28), (GATEWAY6, 48)] {
        let Pair { member, service, .. } = pair(&lab, address, 7303);
        set_mtu(&lab.node.namespace, "eth0", 1300);
        let errors = IcmpListener::open(&lab.client().namespace, address.is_ipv6()).expect("listen");
        member.fragmenting(Fragmenting::Probe).expect("option");
        // The node follows its links within a second.
        let told = wait_for(SECOND * 3, || {
            // Once told, the next call says so, and the one after it sends.
            while member.error(SECOND / 100).expect("option").is_some() {}
            member.send(&vec![7; 1301 - headers]).expect("send");
            let error = errors.next(IcmpMessage::errors(address.is_ipv6()), SECOND / 4).expect("well-formed");
            error.is_some_and(|error| {
                assert_eq!((error.from, error.rest & 0xffff), (overlay(address), 1300));
                error.quotes_intact().is_ok() || error.content.len() < 1300
            })
        });
        assert!(told, "{address}: nobody says that 1301 is too large");
        assert_eq!(member.path_mtu().expect("option"), 1300, "{address}: the member has learned");
        while service.receive(SECOND / 10).expect("receive").is_some() {}
        while member.error(SECOND / 100).expect("option").is_some() {}
        member.send(&vec![7; 1300 - headers]).expect("send");
        let received = service.receive(SECOND * 2).expect("receive");
        assert_eq!(received.map(|(content, _)| content.len()), Some(1300 - headers));
        set_mtu(&lab.node.namespace, "eth0", 1500);
    }
}

fn overlay(family: IpAddr) -> IpAddr {
    if family.is_ipv4() { NODE_OVERLAY } else { NODE_OVERLAY6 }
}

#[test]
fn t15_a_download_recovers_when_the_mesh_gets_narrower() {
    let mut lab = lab(&Plan::default());
    page(lab.client(), GATEWAY);
    let download = Download::start(&lab.client().namespace, GATEWAY, 60_000_000).expect("download");
    assert!(wait_for(SECOND * 10, || download.received() > 1_000_000));
    lab.node.kill().expect("kill");
    lab.node.config.mtu = 1280;
    lab.node.start().expect("start");
    assert!(download.received() < 60_000_000, "too early to tell");
    download.finish().expect("whole");
    let answers = lab.node.metric("peer_packets_total", &[("path", "icmp_errors_sent")]).expect("metrics");
    assert!(answers >= 1.0, "the service was told");
}

#[test]
fn t15_what_may_be_fragmented_is() {
    let lab = small_mtu(1280);
    let Pair { member, service, seen } = pair(&lab, GATEWAY, 7304);
    let capture = Capture::start(&lab.client().namespace, "wg0").expect("capture");
    service.fragmenting(Fragmenting::Allowed).expect("option");
    let content: Vec<u8> = (0..1400_u32).map(|byte| byte as u8).collect();
    service.send_to(&content, seen).expect("send");
    let received = member.receive(SECOND * 2).expect("receive");
    assert!(received.is_some_and(|(received, _)| received == content), "whole again at the member");
    let fragments: Vec<_> = capture.take().expect("capture").iter().filter_map(Captured::fragment).collect();
    assert_eq!(fragments, [(0, true), (1256, false)]);
    assert_eq!(lab.node.metric("peer_io_fragmented_packets_total", &[]).expect("metrics"), 1.0);
    // What comes in fragments of the LAN's size is cut once more.
    let content: Vec<u8> = (0..4000_u32).map(|byte| (byte / 3) as u8).collect();
    service.send_to(&content, seen).expect("send");
    let received = member.receive(SECOND * 2).expect("receive");
    assert!(received.is_some_and(|(received, _)| received == content), "whole again at the member");
}

#[test]
fn t16_fragments_in_order_reversed_and_interleaved() {
    let lab = lab(&Plan::default());
    let member = lab.client();
    assert!(answered(&flow(member, GATEWAY), b"warm"));
    for (service, source) in [(GATEWAY, member.overlay()), (GATEWAY6, member.overlay6())] {
        let datagram = |port, letter: u8| Datagram::udp((source, port), (service, ECHO_PORT), &[letter; 1600]);
        let arrived = |letter: u8| wait_for(SECOND * 2, || !lab.gateway.senders_of(&[letter; 1600]).is_empty());
        let [a, b] = [datagram(3001, b'a').fragments(800, 1), datagram(3002, b'b').fragments(800, 2)];
        forge(&member.namespace, "wg0", &a).expect("send");
        assert!(arrived(b'a'), "{service}: in order");
        let c = datagram(3003, b'c').fragments(800, 3);
        let mixed = [&b[0], &c[0], &b[1], &c[1], &c[2], &b[2]].map(Datagram::clone);
        forge(&member.namespace, "wg0", &mixed).expect("send");
        assert!(arrived(b'b') && arrived(b'c'), "{service}: interleaved");
        let dropped = || lab.node.dropped(peer_common::DropReason::Fragment).expect("metrics");
        let fragments =
            |result| lab.node.metric("peer_wireguard_fragments_total", &[("result", result)]).expect("metrics");
        let before = (dropped(), fragments("held"), fragments("followed"));
        let mut reversed = datagram(3004, b'd').fragments(800, 4);
        reversed.reverse();
        forge(&member.namespace, "wg0", &reversed).expect("send");
        assert!(arrived(b'd'), "{service}: reversed");
        assert_eq!((dropped(), fragments("held"), fragments("followed")), (before.0, before.1 + 2.0, before.2 + 2.0));
        // Without a first one nothing is ever known of the others.
        let orphans = &datagram(3005, b'e').fragments(800, 5)[1..];
        forge(&member.namespace, "wg0", orphans).expect("send");
        let by = [("reason", "fragment")];
        let lost = lab.node.await_metric(SECOND * 2, before.0 + 2.0, "peer_dropped_packets_total", &by);
        assert_eq!(lost.expect("metrics"), before.0 + 2.0, "{service}: they wait, go on and are counted");
        for letter in [b'a', b'b', b'c', b'd'] {
            let sender = lab.gateway.senders_of(&[letter; 1600])[0];
            assert_ne!(sender.ip(), source, "{service}: {} is translated", letter as char);
        }
    }
}

/// Datagrams that arrive at the member of 100 from the LAN: of ten each, one has the second fragment before the first, and one the
/// third before the second.
fn arrived_of_swapped(service: &Namespace, node: &Namespace, member: &Udp, from: SocketAddr, to: SocketAddr) -> usize {
    let mut arrived = 0;
    for ten in 0..10_u16 {
        let packets = (0..10_u16).flat_map(|one| {
            let number = ten * 10 + one;
            let whole = Datagram::udp((from.ip(), from.port()), (to.ip(), to.port()), &[number as u8; 1600]);
            let mut parts = whole.fragments(800, 1000 + number);
            match one {
                3 => parts.swap(1, 2),
                7 => parts.swap(0, 1),
                _ => {}
            }
            parts
        });
        let packets: Vec<_> = packets.map(|packet| packet.bytes().expect("one family")).collect();
        forge_towards(service, "eth0", node, "eth0", &packets).expect("send");
        // The last of ten is whole: nothing comes behind it.
        while let Some((content, _)) = member.receive(SECOND).expect("receive") {
            assert_eq!(content.len(), 1600);
            arrived += 1;
            if content[0] == (ten * 10 + 9) as u8 {
                break;
            }
        }
    }
    arrived
}

/// Fragments from the uplink that went on to the node's own stack.
fn reassembled_by(node: &Namespace, v6: bool) -> u64 {
    let text = node.read(if v6 { "/proc/net/snmp6" } else { "/proc/net/snmp" }).expect("counters");
    if v6 {
        let line = text.lines().find_map(|line| line.strip_prefix("Ip6ReasmReqds")).expect("a counter");
        return line.trim().parse().expect("a number");
    }
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let at = names.split(' ').position(|name| name == "ReasmReqds").expect("a counter");
    values.split(' ').nth(at).expect("a value").parse().expect("a number")
}

/// A TC program can hold nothing back, and conntrack puts all together first.
#[test]
fn t16_on_the_uplink_only_what_comes_with_its_first_fragment_late_is_lost() {
    let lab = lab(&Plan::default());
    let node = &lab.node.namespace;
    for service in [GATEWAY, GATEWAY6] {
        let Pair { member, service: at, seen } = pair(&lab, service, 5300);
        let before = reassembled_by(node, service.is_ipv6());
        let from = at.address().expect("bound");
        assert_eq!(arrived_of_swapped(&lab.gateway.namespace, node, &member, from, seen), 90, "{service}");
        let went_on = reassembled_by(node, service.is_ipv6()) - before;
        assert_eq!(went_on, 10, "{service}: each fragment before its first went on to the node's stack");
    }
    let twin = Baseline::start(&find_wireguard_go().expect("wireguard-go")).expect("baseline");
    let member = Udp::bind(&twin.client.namespace, [0, 0, 0, 0].into(), 0).expect("socket");
    let at = Udp::bind(&twin.gateway.namespace, GATEWAY, 5300).expect("socket");
    member.connect((GATEWAY, 5300).into()).expect("connect");
    let mut seen = None;
    assert!(wait_for(SECOND * 12, || {
        member.send(b"open").expect("send");
        seen = at.receive(SECOND / 10).expect("receive").map(|(_, from)| from);
        seen.is_some()
    }));
    let from = at.address().expect("bound");
    let arrived = arrived_of_swapped(&twin.gateway.namespace, &twin.node, &member, from, seen.expect("seen"));
    assert_eq!(arrived, 100, "with conntrack");
    tell("of 100 datagrams from the LAN, ten with the second fragment before the first: 90 arrive, with conntrack 100");
}

#[test]
fn t16_fragmented_pings_are_answered() {
    let lab = lab(&Plan::default());
    assert!(answered(&flow(lab.client(), GATEWAY), b"warm"));
    for service in [GATEWAY, GATEWAY6] {
        // The first answer of IPv6 is too large for the mesh, which the service has to be told.
        ping_with(&lab.client().namespace, service, 1, SECOND, 3000).expect("ping");
        let pings = ping_with(&lab.client().namespace, service, 3, SECOND * 2, 3000).expect("ping");
        assert!(pings.all_answered(), "{service}: {} of {}", pings.round_trips.len(), pings.sent);
    }
}

/// Sends the packet; what comes back by ICMP.
fn told(lab: &Lab, listener: &IcmpListener, kinds: &[u8], packet: &Datagram) -> Option<IcmpMessage> {
    forge(&lab.client().namespace, "wg0", std::slice::from_ref(packet)).expect("send");
    listener.next(kinds, SECOND * 2).expect("well-formed")
}

#[test]
fn t17_traceroute_by_udp_icmp_and_tcp() {
    let lab = lab(&Plan::default());
    let member = lab.client();
    assert!(answered(&flow(member, GATEWAY), b"warm"));
    let _inner = behind(&lab);
    for (source, service, node) in
        [(member.overlay(), GATEWAY, NODE_OVERLAY), (member.overlay6(), GATEWAY6, NODE_OVERLAY6)]
    {
        let v6 = service.is_ipv6();
        let listener = IcmpListener::open(&member.namespace, v6).expect("listen");
        let errors = IcmpMessage::errors(v6);
        let (exceeded, unreachable) = if v6 { ((3, 0), (1, 4)) } else { ((11, 0), (3, 3)) };
        let probes = |to: IpAddr| {
            [
                Datagram::udp((source, 33_000), (to, CLOSED), b"trace by UDP"),
                Datagram::echo(source, to, 0x4242, b"trace by ICMP   "),
                Datagram::tcp((source, 33_001), (to, HTTP_PORT), 1, 2),
            ]
        };
        for probe in probes(service) {
            let first = probe.clone().with_hops(1);
            let error = told(&lab, &listener, errors, &first).expect("hop 1 answers");
            assert_eq!((error.from, (error.kind, error.code)), (node, exceeded));
            error.quotes(&first.bytes().expect("bytes")).expect("as it was sent");
            error.quotes_intact().expect("checksum");
        }
        let [by_udp, by_icmp, _] = probes(service).map(|probe| probe.with_hops(2));
        let error = told(&lab, &listener, errors, &by_udp).expect("hop 2 answers");
        assert_eq!((error.from, (error.kind, error.code)), (service, unreachable));
        error.quotes(&by_udp.bytes().expect("bytes")).expect("as it was sent");
        error.quotes_intact().expect("checksum");
        let reply = if v6 { 129 } else { 0 };
        let answer = told(&lab, &listener, &[reply], &by_icmp).expect("hop 2 answers");
        assert_eq!((answer.from, answer.rest >> 16), (service, 0x4242));
    }
    // A router of the LAN on the way.
    let source = member.overlay();
    let listener = IcmpListener::open(&member.namespace, false).expect("listen");
    for probe in [
        Datagram::udp((source, 33_010), (INNER, CLOSED), b"past by UDP."),
        Datagram::echo(source, INNER, 0x4243, b"past by ICMP"),
        Datagram::tcp((source, 33_011), (INNER, HTTP_PORT), 1, 2),
    ] {
        let second = probe.with_hops(2);
        let error = told(&lab, &listener, &[3, 11, 12], &second).expect("hop 2 answers");
        assert_eq!((error.from, (error.kind, error.code)), (GATEWAY, (11, 0)));
        error.quotes(&second.bytes().expect("bytes")).expect("as it was sent, addresses and ports of the member's");
        error.quotes_intact().expect("checksum");
    }
}

/// A host behind the service, which forwards to it.
fn behind(lab: &Lab) -> Namespace {
    let inner = Namespace::new("inner").expect("namespace");
    let near: IpAddr = "203.0.113.1".parse().expect("an address");
    wire(
        &End { namespace: &lab.gateway.namespace, device: "inner0", addresses: &[(near, 32)] },
        &End { namespace: &inner, device: "eth0", addresses: &[(INNER, 32)] },
    )
    .expect("wire");
    let gateway = &lab.gateway.namespace;
    gateway.exec("ip", &["route", "add", &format!("{INNER}/32"), "dev", "inner0"]).expect("ip");
    inner.exec("ip", &["route", "add", "203.0.113.1/32", "dev", "eth0"]).expect("ip");
    inner.exec("ip", &["route", "add", "default", "via", "203.0.113.1"]).expect("ip");
    sysctl(gateway, "net/ipv4/ip_forward", "1").expect("sysctl");
    inner
}

#[test]
fn t17_unreachable_reaches_the_right_socket_both_ways() {
    let lab = lab(&Plan::default());
    for address in [GATEWAY, GATEWAY6] {
        assert!(answered(&flow(lab.client(), address), b"warm"));
        let any: IpAddr = if address.is_ipv4() { "0.0.0.0" } else { "::" }.parse().expect("an address");
        let [told, other] = [0, 1].map(|_| Udp::bind(&lab.client().namespace, any, 0).expect("socket"));
        told.connect((address, CLOSED).into()).expect("connect");
        other.connect((address, ECHO_PORT).into()).expect("connect");
        other.send(b"nothing wrong here").expect("send");
        told.send(b"anybody there?").expect("send");
        assert_eq!(told.error(SECOND * 2).expect("option"), Some(ErrorKind::ConnectionRefused), "{address}");
        assert_eq!(other.error(SECOND / 20).expect("option"), None, "{address}");

        let Pair { member, service, seen } = pair(&lab, address, 7305);
        service.connect(seen).expect("connect");
        service.send(b"still there?").expect("send");
        assert!(member.receive(SECOND * 2).expect("receive").is_some());
        member.close().expect("close");
        service.send(b"and now?").expect("send");
        assert_eq!(service.error(SECOND * 2).expect("option"), Some(ErrorKind::ConnectionRefused), "{address}");
        let errors = lab.node.metric("peer_packets_total", &[("path", "icmp_errors")]).expect("metrics");
        assert!(errors >= 2.0, "{errors}");
    }
}

#[test]
fn t18_a_last_hop_is_not_passed_on_and_answered() {
    let lab = lab(&Plan::default());
    let member = lab.client();
    assert!(answered(&flow(member, GATEWAY), b"warm"));
    for (source, service) in [(member.overlay(), GATEWAY), (member.overlay6(), GATEWAY6)] {
        let content = format!("last hop to {service}");
        let last = Datagram::udp((source, 3100), (service, ECHO_PORT), content.as_bytes()).with_hops(1);
        let listener = IcmpListener::open(&member.namespace, service.is_ipv6()).expect("listen");
        let error = told(&lab, &listener, &[3, 11], &last).expect("an answer");
        assert_eq!(error.from, overlay(service));
        assert!(lab.gateway.senders_of(content.as_bytes()).is_empty());
    }
    assert_eq!(lab.node.dropped(peer_common::DropReason::TtlExceeded).expect("metrics"), 2.0);
    // Two hops are enough for the LAN itself.
    let last = Datagram::udp((member.overlay(), 3101), (GATEWAY, ECHO_PORT), b"one left").with_hops(2);
    forge(&member.namespace, "wg0", &[last]).expect("send");
    assert!(wait_for(SECOND * 2, || lab
        .gateway
        .senders_of(b"one left")
        .first()
        .is_some_and(|from| from.ip() == NODE_LAN)));
    let socket = EchoSocket::open(&member.namespace, (GATEWAY, ECHO_PORT).into()).expect("socket");
    assert!(socket.ask(b"as ever", Duration::from_secs(2)).expect("send"));
}
