//! Fragments in order (RFC 791 §3.2, RFC 8200 §4.5): the first one says which flow the others belong to.

use std::net::IpAddr;

use peer_common::{Counter, DropReason};

use crate::bench::with_bench;
use crate::lab::{FAMILIES, Family, PEER, ROUTED};
use crate::packet::read;
use crate::wire::{ETH, Ip, TCP, UDP, assert_sound, icmp_of, icmp_payload, seal, tcp_payload, udp_payload};
use crate::{Bench, REDIRECT, SHOT, UNSPEC};

/// Cuts `payload` of layer 4 after 24 and after 48 bytes.
fn cut(src: IpAddr, dst: IpAddr, protocol: u8, id: u16, payload: &[u8]) -> [Vec<u8>; 3] {
    let v4 = src.is_ipv4();
    let part = |range: std::ops::Range<usize>, more: bool| {
        let offset = range.start as u16;
        let fragment = if v4 { (offset / 8) | (u16::from(more) << 13) } else { offset | u16::from(more) };
        Ip { fragment, id, ..Ip::new(src, dst, protocol) }.frame(&payload[range])
    };
    [part(0..24, true), part(24..48, true), part(48..payload.len(), false)]
}

/// Puts parts together again and checks the sum over all of it. Returns both ends.
fn join(parts: &[Vec<u8>]) -> (IpAddr, IpAddr) {
    let headers: Vec<_> = parts.iter().map(|part| assert_sound(part)).collect();
    let payload: Vec<u8> =
        parts.iter().zip(&headers).flat_map(|(part, header)| part[ETH + header.l4..].to_vec()).collect();
    let (src, dst, protocol) = (headers[0].src, headers[0].dst, headers[0].protocol);
    assert!(headers.iter().all(|header| (header.src, header.dst) == (src, dst)), "one flow: {headers:?}");
    let mut sealed = payload.clone();
    seal(src, dst, protocol, &mut sealed);
    assert_eq!(payload, sealed, "the checksum over all fragments");
    (src, dst)
}

fn requests(family: &Family) -> [(u8, Vec<u8>); 3] {
    let (src, dst) = ((family.peer, 4000), (family.server, 80));
    let data = [7; 61];
    let kind = if src.0.is_ipv4() { 8 } else { 128 };
    [
        (UDP, udp_payload(src, dst, &data)),
        (TCP, tcp_payload(src, dst, 0x18, &[], &data)),
        (icmp_of(src.0), icmp_payload(src.0, dst.0, (kind, 0), [0, 9, 0, 1], &data)),
    ]
}

/// The answer to `payload` as it left, addressed to the port or identifier that it left with.
fn answer(family: &Family, protocol: u8, first: &[u8]) -> Vec<u8> {
    let l4 = &first[ETH + assert_sound(first).l4..];
    let port = u16::from_be_bytes([l4[0], l4[1]]);
    let (src, dst) = ((family.server, 80), (family.uplink, port));
    let data = [9; 70];
    match protocol {
        UDP => udp_payload(src, dst, &data),
        TCP => tcp_payload(src, dst, 0x18, &[], &data),
        _ => {
            let kind = if src.0.is_ipv4() { 0 } else { 129 };
            icmp_payload(src.0, dst.0, (kind, 0), [l4[4], l4[5], 0, 1], &data)
        }
    }
}

#[test]
fn fragments_in_order_pass_both_ways_and_add_up() {
    with_bench(|bench| {
        let mut id = 0;
        for family in FAMILIES {
            for (protocol, payload) in requests(&family) {
                id += 1;
                let parts = cut(family.peer, family.server, protocol, id, &payload);
                let out = parts.map(|part| forwarded(bench.arrive_from_mesh(&part)));
                assert_eq!(join(&out), (family.uplink, family.server));
                let reply = answer(&family, protocol, &out[0]);
                let parts = cut(family.server, family.uplink, protocol, id, &reply);
                let back = parts.map(|part| forwarded(bench.arrive_on_uplink(&part)));
                assert_eq!(join(&back), (family.server, family.peer));
            }
        }
        assert_eq!(bench.counter(Counter::FragmentsTracked), 12);
        assert_eq!(bench.all_drops(), []);
    });
}

fn forwarded((verdict, frame): (i32, Vec<u8>)) -> Vec<u8> {
    assert_eq!(verdict, REDIRECT);
    frame
}

#[test]
fn a_fragment_before_the_first_is_dropped_and_counted() {
    with_bench(|bench| {
        for family in FAMILIES {
            let before = bench.drops(DropReason::Fragment);
            let (protocol, payload) = requests(&family)[0].clone();
            let [first, second, third] = cut(family.peer, family.server, protocol, 5, &payload);
            assert_eq!(bench.arrive_from_mesh(&third).0, SHOT);
            assert_eq!(bench.arrive_from_mesh(&second).0, SHOT);
            assert_eq!(bench.drops(DropReason::Fragment), before + 2);
            assert_eq!(bench.arrive_from_mesh(&first).0, REDIRECT);
            assert_eq!(bench.arrive_from_mesh(&third).0, REDIRECT, "the order of what follows does not matter");
            assert_eq!(bench.arrive_from_mesh(&second).0, REDIRECT);
        }
    });
}

#[test]
fn on_the_uplink_a_fragment_of_no_known_packet_is_not_ours() {
    with_bench(|bench| {
        for family in FAMILIES {
            let payload = udp_payload((family.server, 80), (family.uplink, 21000), &[1; 61]);
            for part in cut(family.server, family.uplink, UDP, 6, &payload) {
                assert_eq!(bench.arrive_on_uplink(&part), (UNSPEC, part.clone()));
            }
        }
    });
}

#[test]
fn interleaved_packets_are_told_apart_by_their_identification() {
    with_bench(|bench| {
        for family in FAMILIES {
            let one = udp_payload((family.peer, 4000), (family.server, 80), &[1; 61]);
            let other = udp_payload((family.peer, 4001), (family.server, 81), &[2; 61]);
            let ones = cut(family.peer, family.server, UDP, 10, &one);
            let others = cut(family.peer, family.server, UDP, 11, &other);
            let mut out = [Vec::new(), Vec::new()];
            for (one, other) in ones.iter().zip(&others) {
                out[0].push(forwarded(bench.arrive_from_mesh(one)));
                out[1].push(forwarded(bench.arrive_from_mesh(other)));
            }
            join(&out[0]);
            join(&out[1]);
            let strange = cut(family.peer, family.server, UDP, 12, &one);
            assert_eq!(bench.arrive_from_mesh(&strange[1]).0, SHOT, "another identification is another packet");
        }
    });
}

#[test]
fn a_first_fragment_is_forgotten_after_fifteen_seconds() {
    with_bench(|bench| {
        let [first, second, _] = cut(PEER, FAMILIES[0].server, UDP, 7, &requests(&FAMILIES[0])[0].1);
        assert_eq!(bench.arrive_from_mesh(&first).0, REDIRECT);
        bench.age_fragments(14);
        assert_eq!(bench.arrive_from_mesh(&second).0, REDIRECT);
        bench.age_fragments(2);
        assert_eq!(bench.arrive_from_mesh(&second).0, SHOT);
        assert_eq!(bench.drops(DropReason::Fragment), 1);
    });
}

#[test]
fn an_atomic_fragment_passes_like_a_whole_packet() {
    with_bench(|bench| {
        let family = FAMILIES[1];
        let payload = udp_payload((family.peer, 4000), (family.server, 53), b"whole");
        let mut frame = Ip { fragment: 1, ..Ip::new(family.peer, family.server, UDP) }.frame(&payload);
        frame[ETH + 43] = 0; // offset 0, nothing follows (RFC 6946)
        let out = forwarded(bench.arrive_from_mesh(&frame));
        assert_eq!(assert_sound(&out).src, family.uplink);
        let l4 = &out[ETH + 48..];
        let mut sealed = l4.to_vec();
        seal(family.uplink, family.server, UDP, &mut sealed);
        assert_eq!(l4, sealed);
    });
}

#[test]
fn the_lan_may_open_a_kept_flow_with_fragments() {
    with_bench(|bench: &mut Bench| {
        let payload = udp_payload((ROUTED, 53), (PEER, 4000), &[3; 61]);
        let parts = cut(ROUTED, PEER, UDP, 3, &payload);
        assert_eq!(bench.leave_to_mesh(&parts[1]).0, SHOT);
        assert_eq!(bench.drops(DropReason::Fragment), 1);
        for part in &parts {
            assert_eq!(bench.leave_to_mesh(part), (UNSPEC, part.clone()));
        }
        // From now on the uplink program takes them, and knows the later ones.
        for part in &parts {
            assert_eq!(bench.arrive_on_uplink(part).0, REDIRECT);
        }
    });
}

#[test]
fn fragments_of_the_node_itself_pass() {
    with_bench(|bench| {
        for family in FAMILIES {
            let payload = udp_payload((family.node, 53), (family.peer, 4000), &[3; 61]);
            for part in cut(family.node, family.peer, UDP, 3, &payload) {
                assert_eq!(bench.leave_to_mesh(&part), (UNSPEC, part.clone()));
            }
            let answer = Ip::new(family.peer, family.node, UDP).frame(&udp_payload(
                (family.peer, 4000),
                (family.node, 53),
                b"answer",
            ));
            bench.rules(&[]);
            assert_eq!(bench.arrive_from_mesh(&answer).0, UNSPEC);
            assert_eq!(read(&answer).dst.0, family.node);
        }
    });
}

#[test]
fn a_source_that_sends_too_many_first_fragments_has_no_more_of_them_remembered() {
    with_bench(|bench| {
        for family in FAMILIES {
            let payload = udp_payload((family.peer, 4000), (family.server, 80), &[7; 61]);
            let parts = |id| cut(family.peer, family.server, UDP, id, &payload);
            let budget = bench.fragment_budget(&parts(1)[0]);
            // Within one tick of the clock nothing is earned.
            let refused = (10..60).find(|&id| {
                let tracked = bench.counter(Counter::FragmentsTracked);
                while bench.counter(Counter::FragmentsTracked) == tracked {
                    assert_eq!(bench.arrive_from_mesh(&parts(1)[0]).0, REDIRECT);
                }
                bench.spend_fragments(budget);
                let limited = bench.counter(Counter::FragmentsLimited);
                assert_eq!(bench.arrive_from_mesh(&parts(id)[0]).0, REDIRECT, "it passes all the same");
                bench.counter(Counter::FragmentsLimited) > limited
            });
            let [_, second, _] = parts(refused.expect("one of them comes within the tick"));
            assert_eq!(bench.arrive_from_mesh(&second).0, SHOT, "nothing tells its ports");
            let [_, second, last] = parts(1);
            for rest in [second, last] {
                assert_eq!(bench.arrive_from_mesh(&rest).0, REDIRECT, "what was remembered stays");
            }
        }
    });
}
