//! What never passes, and under which reason it is counted.

use std::net::IpAddr;

use peer_common::route::Route;
use peer_common::{DropReason, LocalKind};

use crate::bench::with_bench;
use crate::lab::{PEER, PEER6, SERVER, SERVER6};
use crate::packet::{echo_reply, later_fragment, protocol, read, tcp, udp, with_extension, with_option};
use crate::{REDIRECT, SHOT, UNSPEC};

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Every packet is dropped, and each counts once under its reason.
#[test]
fn each_reason_is_counted_by_name() {
    with_bench(|bench| {
        let mut truncated = udp((PEER, 1), (SERVER, 2));
        truncated.truncate(14 + 20 + 4);
        let mut version = udp((PEER, 1), (SERVER, 2));
        version[14] = 0x55;
        let mut unknown_icmp = echo_reply(PEER, SERVER, 1);
        unknown_icmp[14 + 20] = 13;
        let cases = [
            (with_option((PEER, 1), (SERVER, 2)), DropReason::IpOptions),
            (with_extension((PEER6, 1), (SERVER6, 2), 0), DropReason::ExtensionHeader),
            (with_extension((PEER6, 1), (SERVER6, 2), 43), DropReason::ExtensionHeader),
            (with_extension((PEER6, 1), (SERVER6, 2), 60), DropReason::ExtensionHeader),
            (with_extension((PEER6, 1), (SERVER6, 2), 44), DropReason::Fragment),
            (later_fragment((PEER, 1), (SERVER, 2)), DropReason::Fragment),
            (protocol(PEER, SERVER, 132), DropReason::Protocol),
            (protocol(PEER, SERVER, 47), DropReason::Protocol),
            (protocol(PEER6, SERVER6, 50), DropReason::Protocol),
            (unknown_icmp, DropReason::IcmpType),
            (echo_reply(PEER, SERVER, 9), DropReason::IcmpType),
            (truncated, DropReason::Malformed),
            (version, DropReason::Malformed),
            (tcp((addr("100.64.0.3"), 1), (SERVER, 80), true), DropReason::ForeignSource),
            (tcp((PEER, 1), (addr("192.0.2.1"), 80), true), DropReason::NoRoute),
            (udp((PEER, 1), (addr("224.0.0.1"), 2)), DropReason::Multicast),
            (udp((PEER, 1), (addr("255.255.255.255"), 2)), DropReason::Multicast),
            (udp((PEER6, 1), (addr("ff02::1"), 2)), DropReason::Multicast),
            (tcp((PEER, 1), (addr("127.0.0.1"), 80), true), DropReason::DeniedDestination),
            (tcp((PEER, 1), (addr("169.254.169.254"), 80), true), DropReason::DeniedDestination),
            (tcp((PEER, 1), (addr("168.63.129.16"), 80), true), DropReason::DeniedDestination),
            (tcp((PEER, 1), (addr("100.100.100.200"), 80), true), DropReason::DeniedDestination),
            (tcp((PEER, 1), (addr("100.100.100.201"), 80), true), DropReason::NoRoute),
            (tcp((PEER6, 1), (addr("fd00:ec2::254"), 80), true), DropReason::DeniedDestination),
            (tcp((PEER6, 1), (addr("fd00:ec2::253"), 80), true), DropReason::NoRoute),
            (tcp((PEER6, 1), (addr("::1"), 80), true), DropReason::DeniedDestination),
            (tcp((PEER6, 1), (addr("fe80::1"), 80), true), DropReason::DeniedDestination),
        ];
        for (packet, reason) in cases {
            let before = bench.drops(reason);
            assert!(bench.refuses(&packet), "{}", reason.name());
            assert_eq!(bench.drops(reason), before + 1, "{}, but: {:?}", reason.name(), bench.all_drops());
        }
        assert_eq!(bench.flows(), [], "nothing of this opened a flow");
    });
}

#[test]
fn a_mapped_address_on_the_wire_is_not_taken_for_ipv4() {
    with_bench(|bench| {
        let mapped = addr("::ffff:198.51.100.80");
        assert_eq!(bench.arrive_from_mesh(&udp((PEER6, 1), (mapped, 2))).0, SHOT);
        assert_eq!(bench.drops(DropReason::Malformed), 1);
    });
}

#[test]
fn a_host_route_names_what_is_denied_otherwise() {
    let cases = [
        (PEER, "169.254.169.254", "169.254.0.0", 16),
        (PEER, "168.63.129.16", "168.63.0.0", 16),
        (PEER, "100.100.100.200", "100.64.0.0", 10),
        (PEER6, "fd00:ec2::254", "fd00:ec2::", 32),
    ];
    for (peer, metadata, network, len) in cases {
        with_bench(move |bench| {
            let metadata = addr(metadata);
            bench.route(addr(network), len, 5, Route::MASQUERADE);
            assert_eq!(bench.arrive_from_mesh(&tcp((peer, 1), (metadata, 80), true)).0, SHOT, "a wider route does not");
            assert_eq!(bench.drops(DropReason::DeniedDestination), 1);
            bench.route(metadata, if metadata.is_ipv4() { 32 } else { 128 }, 6, Route::MASQUERADE);
            let (verdict, packet) = bench.arrive_from_mesh(&tcp((peer, 1), (metadata, 80), true));
            assert_eq!((verdict, read(&packet).dst), (REDIRECT, (metadata, 80)));
        });
    }
}

/// Of a network that is routed, of one that is not, and the one of all.
#[test]
fn a_broadcast_of_a_network_of_the_nodes_is_dropped_as_one() {
    with_bench(|bench| {
        for broadcast in ["198.51.100.255", "192.0.2.255"] {
            bench.local(addr(broadcast), LocalKind::Broadcast);
        }
        for broadcast in ["198.51.100.255", "192.0.2.255", "255.255.255.255"] {
            let before = bench.drops(DropReason::Multicast);
            assert_eq!(bench.arrive_from_mesh(&udp((PEER, 1), (addr(broadcast), 2))).0, SHOT, "{broadcast}");
            assert_eq!(bench.drops(DropReason::Multicast), before + 1, "{broadcast}: {:?}", bench.all_drops());
        }
    });
}

/// 100.64.0.0/10 is where overlays are: a node or a peer may be given 100.100.100.200.
#[test]
fn an_overlay_address_that_is_also_a_clouds_works() {
    with_bench(|bench| {
        let metadata = addr("100.100.100.200");
        bench.local(metadata, LocalKind::Overlay);
        assert_eq!(bench.arrive_from_mesh(&tcp((PEER, 1), (metadata, 22), true)).0, UNSPEC, "this node's");
        assert_eq!(bench.leave_to_mesh(&tcp((metadata, 22), (PEER, 1), false)).0, UNSPEC);
    });
    with_bench(|bench| {
        let (metadata, node) = (addr("100.100.100.200"), addr("100.64.0.1"));
        bench.peer(metadata, 32, 2);
        assert_eq!(bench.arrive_from_mesh(&tcp((metadata, 1), (SERVER, 80), true)).0, REDIRECT, "a peer's");
        assert_eq!(bench.arrive_from_mesh(&tcp((metadata, 1), (node, 22), true)).0, UNSPEC);
        assert_eq!(bench.leave_to_mesh(&tcp((node, 1), (metadata, 22), true)).0, UNSPEC, "the node calls it");
        assert_eq!(bench.arrive_from_mesh(&tcp((metadata, 22), (node, 1), false)).0, UNSPEC);
    });
}

#[test]
fn without_configuration_nothing_passes() {
    with_bench(|bench| {
        bench.config(|config| config.wt0 = 0);
        assert_eq!(bench.arrive_from_mesh(&tcp((PEER, 1), (SERVER, 80), true)).0, SHOT);
        assert_eq!(bench.drops(DropReason::Internal), 1);
    });
}

/// Every length, every cut: nothing unjudged passes, nothing upsets the program.
#[test]
fn truncated_packets_never_pass() {
    with_bench(|bench| {
        for whole in [
            tcp((PEER, 1), (SERVER, 80), true),
            tcp((PEER6, 1), (SERVER6, 80), true),
            with_option((PEER, 1), (SERVER, 2)),
        ] {
            // The kernel's test run itself refuses less than an IP header.
            let least = 14 + if whole[14] >> 4 == 4 { 20 } else { 40 };
            for len in least..whole.len() {
                let (verdict, _) = bench.arrive_from_mesh(&whole[..len]);
                assert_eq!(verdict, SHOT, "cut to {len} of {}", whole.len());
            }
        }
    });
}
