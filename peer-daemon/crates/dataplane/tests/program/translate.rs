//! Source NAT out and back.

use std::net::IpAddr;

use peer_common::route::Route;
use peer_common::{Counter, Direction, DropReason};

use crate::bench::with_bench;
use crate::lab::{PEER, PEER6, ROUTED, SERVER, SERVER6, UPLINK, UPLINK6};
use crate::packet::{TTL, echo_reply, echo_request, read, tcp, udp, udp_unchecked, with_ttl};
use crate::{Bench, REDIRECT, SHOT, UNSPEC};

/// Sends `out`, answers it with what `answer` makes of the translated source, and returns what each end saw.
fn round_trip(
    bench: &mut Bench,
    out: &[u8],
    answer: impl FnOnce((IpAddr, u16)) -> Vec<u8>,
) -> (crate::packet::Seen, crate::packet::Seen) {
    let (verdict, packet) = bench.arrive_from_mesh(out);
    assert_eq!(verdict, REDIRECT, "drops: {:?}", bench.all_drops());
    let there = read(&packet);
    let (verdict, packet) = bench.arrive_on_uplink(&answer(there.src));
    assert_eq!(verdict, REDIRECT, "drops: {:?}", bench.all_drops());
    (there, read(&packet))
}

#[test]
fn tcp_over_ipv4_is_masqueraded_and_the_reply_restored() {
    with_bench(|bench| {
        let (there, back) =
            round_trip(bench, &tcp((PEER, 40000), (SERVER, 80), true), |node| tcp((SERVER, 80), node, false));
        assert_eq!((there.src.0, there.dst, there.ttl), (UPLINK, (SERVER, 80), TTL - 1));
        assert!((20480..29991).contains(&there.src.1), "port {} lies in the NAT range", there.src.1);
        assert_eq!((back.src, back.dst, back.ttl), ((SERVER, 80), (PEER, 40000), TTL - 1));
        assert_eq!(bench.counter(Counter::ForwardedOut), 1);
        assert_eq!(bench.counter(Counter::ForwardedIn), 1);
        assert_eq!(bench.route_count(0, Direction::Out).packets, 1);
        assert_eq!(bench.route_count(0, Direction::In).packets, 1);
    });
}

#[test]
fn tcp_over_ipv6_is_masqueraded_and_the_reply_restored() {
    with_bench(|bench| {
        let (there, back) =
            round_trip(bench, &tcp((PEER6, 40000), (SERVER6, 80), true), |node| tcp((SERVER6, 80), node, false));
        assert_eq!((there.src.0, there.dst, there.ttl), (UPLINK6, (SERVER6, 80), TTL - 1));
        assert_eq!((back.src, back.dst, back.ttl), ((SERVER6, 80), (PEER6, 40000), TTL - 1));
    });
}

#[test]
fn udp_is_masqueraded_in_both_families() {
    with_bench(|bench| {
        let (there, back) = round_trip(bench, &udp((PEER, 5000), (SERVER, 53)), |node| udp((SERVER, 53), node));
        assert_eq!((there.src.0, back.dst), (UPLINK, (PEER, 5000)));
        let (there, back) = round_trip(bench, &udp((PEER6, 5000), (SERVER6, 53)), |node| udp((SERVER6, 53), node));
        assert_eq!((there.src.0, back.dst), (UPLINK6, (PEER6, 5000)));
    });
}

#[test]
fn a_missing_udp_checksum_stays_missing() {
    with_bench(|bench| {
        let (there, back) =
            round_trip(bench, &udp_unchecked((PEER, 5000), (SERVER, 53)), |node| udp_unchecked((SERVER, 53), node));
        assert!(there.unchecked && back.unchecked);
    });
}

/// Tunnels mean it (RFC 6935); a sender that should have written 0xffff is not corrected on its way.
#[test]
fn a_missing_udp_checksum_stays_missing_over_ipv6_too() {
    with_bench(|bench| {
        let (there, back) =
            round_trip(bench, &udp_unchecked((PEER6, 5000), (SERVER6, 53)), |node| udp_unchecked((SERVER6, 53), node));
        assert!(there.unchecked && back.unchecked);
    });
}

/// The ports are chosen so that the sum of what they cover comes out as zero for one of them.
#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_written_as_all_ones() {
    with_bench(|bench| {
        for (peer, server) in [(PEER, SERVER), (PEER6, SERVER6)] {
            let translated = |bench: &mut Bench, port: u16| {
                let (verdict, packet) = bench.arrive_from_mesh(&udp((peer, 21000), (server, port)));
                assert_eq!(verdict, REDIRECT, "drops: {:?}", bench.all_drops());
                packet
            };
            let at = |packet: &[u8]| 14 + if packet[14] >> 4 == 4 { 20 } else { 40 } + 6;
            let first = translated(bench, 1);
            let checksum = u16::from_be_bytes([first[at(&first)], first[at(&first) + 1]]);
            // Each step of the port makes the checksum one less: this one has none left.
            let last = translated(bench, 1 + checksum);
            assert_eq!(last[at(&last)..][..2], [0xff; 2], "from {peer}");
            assert!(!read(&last).unchecked);
        }
    });
}

#[test]
fn echo_gets_a_fresh_identifier_in_both_families() {
    with_bench(|bench| {
        let id = 25000; // inside the NAT range: it would be kept, were it a port
        let (there, back) =
            round_trip(bench, &echo_request(PEER, SERVER, id), |node| echo_reply(SERVER, node.0, node.1));
        assert_ne!(there.src.1, id);
        assert_eq!((there.src.0, back.dst), (UPLINK, (PEER, id)));
        let (there, back) =
            round_trip(bench, &echo_request(PEER6, SERVER6, id), |node| echo_reply(SERVER6, node.0, node.1));
        assert_eq!((there.src.0, back.dst), (UPLINK6, (PEER6, id)));
    });
}

#[test]
fn a_port_inside_the_range_is_kept() {
    with_bench(|bench| {
        let (_, packet) = bench.arrive_from_mesh(&tcp((PEER, 21000), (SERVER, 80), true));
        assert_eq!(read(&packet).src, (UPLINK, 21000));
    });
}

#[test]
fn a_flow_keeps_its_port_and_a_lost_one_gets_it_again() {
    with_bench(|bench| {
        let out = tcp((PEER, 40000), (SERVER, 80), false);
        let first = read(&bench.arrive_from_mesh(&out).1);
        assert_eq!(read(&bench.arrive_from_mesh(&out).1), first);
        assert_eq!((bench.flows().len(), bench.mappings().len()), (1, 1));
        for (key, _) in bench.flows() {
            bench.forget_flow(&key);
        }
        for (key, _) in bench.mappings() {
            bench.forget_mapping(&key);
        }
        assert_eq!(read(&bench.arrive_from_mesh(&out).1), first);
    });
}

#[test]
fn a_port_is_used_again_for_another_remote_but_never_for_the_same() {
    with_bench(|bench| {
        bench.config(|config| config.nat_port_count = 3);
        let mut ports = std::collections::BTreeSet::new();
        for source in 40000..40003 {
            let (verdict, packet) = bench.arrive_from_mesh(&udp((PEER, source), (SERVER, 53)));
            assert_eq!(verdict, REDIRECT);
            ports.insert(read(&packet).src.1);
        }
        assert_eq!(ports.len(), 3, "three flows to one endpoint have three ports");
        assert!(bench.refuses(&udp((PEER, 40003), (SERVER, 53))));
        assert_eq!(bench.drops(DropReason::PortShare), 1);
        assert_eq!(
            bench.arrive_from_mesh(&udp((PEER, 40003), (SERVER, 54))).0,
            REDIRECT,
            "another endpoint is another tuple"
        );
    });
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_old_ones() {
    with_bench(|bench| {
        for source in 1024..1024 + 5000 {
            bench.arrive_from_mesh(&udp((PEER, source), (SERVER, 53)));
        }
        assert!(bench.drops(DropReason::TableFull) > 0, "drops: {:?}", bench.all_drops());
        assert_eq!(bench.arrive_from_mesh(&udp((PEER, 1024), (SERVER, 53))).0, REDIRECT);
    });
}

#[test]
fn sources_are_kept_on_routes_that_say_so() {
    with_bench(|bench| {
        let (there, back) =
            round_trip(bench, &tcp((PEER, 40000), (ROUTED, 80), true), |source| tcp((ROUTED, 80), source, false));
        assert_eq!((there.src, back.dst), ((PEER, 40000), (PEER, 40000)));
    });
}

#[test]
fn the_lan_may_open_flows_on_routes_that_keep_sources_only() {
    with_bench(|bench| {
        let (verdict, _) = bench.leave_to_mesh(&tcp((ROUTED, 40000), (PEER, 22), true));
        assert_eq!(verdict, UNSPEC);
        let (verdict, _) = bench.leave_to_mesh(&tcp((SERVER, 40000), (PEER, 22), true));
        assert_eq!(verdict, SHOT);
        assert_eq!(bench.drops(DropReason::NoRoute), 1);
    });
}

#[test]
fn what_is_not_ours_passes_the_uplink_untouched() {
    with_bench(|bench| {
        for packet in [
            tcp((SERVER, 80), (UPLINK, 21000), false),
            udp((SERVER6, 53), (UPLINK6, 21000)),
            echo_reply(SERVER, UPLINK, 7),
            b"0123456789abcd not IP at all, by no means".to_vec(),
        ] {
            assert_eq!(bench.arrive_on_uplink(&packet), (UNSPEC, packet.clone()));
        }
        assert_eq!(bench.counter(Counter::UplinkNext), 4);
        assert_eq!(bench.all_drops(), []);
    });
}

#[test]
fn the_last_hop_is_not_passed_on() {
    with_bench(|bench| {
        let out = tcp((PEER, 40000), (SERVER, 80), true);
        // What goes on is an error to the sender.
        assert_eq!(bench.arrive_from_mesh(&with_ttl(out.clone(), 1)).0, REDIRECT);
        let node = read(&bench.arrive_from_mesh(&out).1).src;
        assert_eq!(bench.arrive_on_uplink(&with_ttl(tcp((SERVER, 80), node, false), 1)).0, REDIRECT);
        assert_eq!(bench.counter(Counter::IcmpErrorsSent), 2);
        assert_eq!(bench.drops(DropReason::TtlExceeded), 2);
    });
}

#[test]
fn a_packet_larger_than_the_mtu_ahead_is_dropped() {
    with_bench(|bench| {
        bench.config(|config| config.wt0_mtu = 40);
        let node = read(&bench.arrive_from_mesh(&tcp((PEER, 40000), (SERVER, 80), true)).1).src;
        assert_eq!(bench.arrive_on_uplink(&tcp((SERVER, 80), node, false)).0, REDIRECT);
        assert_eq!((bench.drops(DropReason::TooBig), bench.counter(Counter::IcmpErrorsSent)), (1, 1));
    });
}

#[test]
fn a_flow_whose_uplink_lost_its_address_is_opened_anew() {
    with_bench(|bench| {
        let out = tcp((PEER, 40000), (SERVER, 80), false);
        bench.arrive_from_mesh(&out);
        bench.uplink_addr4("198.51.100.2".parse().expect("an address"));
        bench.resolve_again();
        assert_eq!(bench.arrive_from_mesh(&out).0, SHOT);
        assert_eq!(bench.drops(DropReason::SourceChanged), 1);
        let (verdict, packet) = bench.arrive_from_mesh(&out);
        assert_eq!((verdict, read(&packet).src.0), (REDIRECT, "198.51.100.2".parse().expect("an address")));
        assert_eq!((bench.flows().len(), bench.mappings().len()), (1, 1));
    });
}

#[test]
fn a_flow_keeps_its_source_while_the_node_has_it_and_new_flows_get_the_new_one() {
    with_bench(|bench| {
        let out = tcp((PEER, 40000), (SERVER, 80), false);
        let before = read(&bench.arrive_from_mesh(&out).1).src;
        let new: IpAddr = "198.51.100.2".parse().expect("an address");
        bench.uplink_speaks_for(new);
        bench.resolve_again();
        let (verdict, packet) = bench.arrive_from_mesh(&out);
        assert_eq!((verdict, read(&packet).src), (REDIRECT, before));
        let (_, packet) = bench.arrive_from_mesh(&tcp((PEER, 40001), (SERVER, 80), true));
        assert_eq!(read(&packet).src.0, new);
        assert_eq!(bench.all_drops(), []);
        assert_eq!(bench.describe(&out).verdict, 0, "and so it is described");
    });
}

#[test]
fn the_source_is_the_one_that_the_kernel_would_choose_for_the_destination() {
    with_bench(|bench| {
        let [net, host, other, other6]: [IpAddr; 4] =
            ["198.51.100.3", "198.51.100.4", "198.51.100.81", "2001:db8:2::3"]
                .map(|text| text.parse().expect("an address"));
        bench.chosen("198.51.100.0".parse().expect("an address"), 24, net);
        bench.chosen(SERVER, 32, host);
        bench.chosen("2001:db8:2::".parse().expect("an address"), 64, other6);
        let source = |bench: &mut Bench, src, to| read(&bench.arrive_from_mesh(&udp((src, 4000), (to, 53))).1).src.0;
        assert_eq!(source(bench, PEER, SERVER), host);
        assert_eq!(source(bench, PEER, other), net);
        assert_eq!(source(bench, PEER6, SERVER6), other6);
    });
}

#[test]
fn masquerading_without_an_address_of_the_family_is_refused() {
    with_bench(|bench| {
        bench.uplink_addr4("::".parse().expect("an address"));
        assert!(bench.refuses(&tcp((PEER, 40000), (SERVER, 80), true)));
        assert_eq!(bench.drops(DropReason::NoSourceAddress), 1);
    });
}

#[test]
fn a_default_route_of_one_family_does_not_carry_the_other() {
    with_bench(|bench| {
        let elsewhere = "192.0.2.9".parse().expect("an address");
        bench.route("::".parse().expect("an address"), 0, 3, Route::MASQUERADE);
        assert!(bench.refuses(&tcp((PEER, 40000), (elsewhere, 80), true)));
        assert_eq!(bench.drops(DropReason::NoRoute), 1);
        bench.route("0.0.0.0".parse().expect("an address"), 0, 4, Route::MASQUERADE);
        assert_eq!(bench.arrive_from_mesh(&tcp((PEER, 40000), (elsewhere, 80), true)).0, REDIRECT);
    });
}

#[test]
fn what_another_protocol_carries_is_not_taken_for_ip() {
    with_bench(|bench| {
        let node = read(&bench.arrive_from_mesh(&tcp((PEER, 40000), (SERVER, 80), true)).1).src;
        let mut reply = tcp((SERVER, 80), node, false);
        reply[12..14].copy_from_slice(&[0x88, 0xb5]); // local experimental (IEEE 802)
        assert_eq!(bench.arrive_on_uplink(&reply), (UNSPEC, reply.clone()));
    });
}
