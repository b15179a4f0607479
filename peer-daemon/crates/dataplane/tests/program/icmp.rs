//! ICMP errors of others (RFC 792, RFC 4443, RFC 5508 §4): each end sees the packet that it has sent, to the byte.

use std::net::IpAddr;

use peer_common::{Counter, DropReason};

use crate::bench::{accept_all, with_bench};
use crate::lab::{FAMILIES, Family, PEER, ROUTER, SERVER, UPLINK};
use crate::packet::{echo_reply, echo_request, tcp, udp, udp_unchecked, with_ttl};
use crate::wire::{ETH, Ip, TCP, assert_sound, header, icmp_error, icmp_of, seal, tcp_payload};
use crate::{Bench, REDIRECT, SHOT, UNSPEC};

/// Type and code: unreachable, time exceeded, parameter problem, and for IPv6 packet too big.
fn kinds(v4: bool) -> &'static [(u8, u8)] {
    if v4 { &[(3, 0), (3, 3), (3, 4), (11, 0), (12, 0)] } else { &[(1, 4), (2, 0), (3, 0), (4, 1)] }
}

fn requests(family: &Family) -> [Vec<u8>; 3] {
    let (peer, server) = (family.peer, family.server);
    [tcp((peer, 40000), (server, 80), true), udp((peer, 40001), (server, 53)), echo_request(peer, server, 77)]
}

/// What the sender of `frame` sees quoted: its packet with one hop less.
fn sent(frame: &[u8]) -> Vec<u8> {
    with_ttl(frame.to_vec(), 63)[ETH..].to_vec()
}

/// How much may be quoted of `packet`: all, what RFC 792 promises, and an end inside the header of layer 4.
fn quotes(packet: &[u8]) -> [usize; 3] {
    let l4 = header(packet).l4;
    [packet.len(), l4 + 8, (l4 + 18).min(packet.len())]
}

/// Checks an error as it leaves: sound, from, to, and quoting `quote`.
fn assert_error(frame: &[u8], from: IpAddr, to: IpAddr, kind: (u8, u8), quote: &[u8]) {
    let outer = assert_sound(frame);
    assert_eq!((outer.src, outer.dst, outer.ttl, outer.protocol), (from, to, 63, icmp_of(from)));
    let icmp = &frame[ETH + outer.l4..];
    assert_eq!((icmp[0], icmp[1]), kind);
    assert_eq!(&icmp[8..], quote, "the quoted packet is the one that was sent");
}

/// Sends `frame` from the mesh and returns its packet as the LAN sees it.
fn forward(bench: &mut Bench, frame: &[u8]) -> Vec<u8> {
    let (verdict, packet) = bench.arrive_from_mesh(frame);
    assert_eq!(verdict, REDIRECT, "drops: {:?}", bench.all_drops());
    packet[ETH..].to_vec()
}

#[test]
fn an_error_from_the_lan_shows_the_peer_its_own_packet() {
    with_bench(|bench| {
        for family in FAMILIES {
            for request in requests(&family) {
                let there = forward(bench, &request);
                for &kind in kinds(family.peer.is_ipv4()) {
                    for len in quotes(&there) {
                        for teller in [family.router, family.server] {
                            let error = icmp_error(teller, family.uplink, kind, &there[..len]);
                            let (verdict, back) = bench.arrive_on_uplink(&error);
                            assert_eq!(verdict, REDIRECT, "{kind:?} {len}");
                            assert_error(&back, teller, family.peer, kind, &sent(&request)[..len]);
                        }
                    }
                }
            }
        }
        assert_eq!(bench.all_drops(), []);
    });
}

#[test]
fn an_error_from_a_peer_shows_the_server_its_own_packet() {
    with_bench(|bench| {
        for family in FAMILIES {
            for request in requests(&family) {
                let there = header(&forward(bench, &request));
                let ports = crate::packet::read(&bench.arrive_from_mesh(&request).1).src;
                let reply = match there.protocol {
                    6 => tcp((family.server, 80), ports, false),
                    17 => udp((family.server, 53), ports),
                    _ => echo_reply(family.server, family.uplink, ports.1),
                };
                let (verdict, inside) = bench.arrive_on_uplink(&reply);
                assert_eq!(verdict, REDIRECT);
                for &kind in kinds(family.peer.is_ipv4()) {
                    for len in quotes(&inside[ETH..]) {
                        let error = icmp_error(family.peer, family.server, kind, &inside[ETH..ETH + len]);
                        let (verdict, out) = bench.arrive_from_mesh(&error);
                        assert_eq!(verdict, REDIRECT, "drops: {:?}", bench.all_drops());
                        assert_error(&out, family.uplink, family.server, kind, &sent(&reply)[..len]);
                    }
                }
            }
        }
    });
}

#[test]
fn an_error_about_nothing_of_ours_passes_the_uplink_and_not_the_mesh() {
    with_bench(|bench| {
        for family in FAMILIES {
            let kind = kinds(family.peer.is_ipv4())[0];
            let quoted = &udp((family.uplink, 21000), (family.server, 53))[ETH..];
            let error = icmp_error(family.router, family.uplink, kind, quoted);
            assert_eq!(bench.arrive_on_uplink(&error), (UNSPEC, error.clone()), "it may be the node's");
            let quoted = &udp((family.server, 53), (family.peer, 4000))[ETH..];
            let error = icmp_error(family.peer, family.server, kind, quoted);
            assert_eq!(bench.arrive_from_mesh(&error).0, SHOT);
        }
        assert_eq!(bench.drops(DropReason::IcmpUnmatched), 2);
    });
}

/// A segment of TCP without options, with its sequence and acknowledgement number.
fn segment(src: (IpAddr, u16), dst: (IpAddr, u16), flags: u8, (seq, ack): (u32, u32)) -> Vec<u8> {
    let mut bytes = tcp_payload(src, dst, flags, &[], &[7; 100]);
    bytes[4..8].copy_from_slice(&seq.to_be_bytes());
    bytes[8..12].copy_from_slice(&ack.to_be_bytes());
    seal(src.0, dst.0, TCP, &mut bytes);
    Ip::new(src.0, dst.0, TCP).frame(&bytes)
}

/// Opens a connection in which either side has sent up to 1101 and acknowledged up to 1001. Returns a function that gives
/// errors about a segment of the peer (from the LAN) or of the server (from the peer).
fn connection(bench: &mut Bench, family: Family) -> impl Fn(bool, u32) -> Vec<u8> + use<> {
    let (peer, server) = ((family.peer, 40000), (family.server, 80));
    let there = forward(bench, &segment(peer, server, 0x10, (1001, 1001)));
    let node = (family.uplink, u16::from_be_bytes([there[header(&there).l4], there[header(&there).l4 + 1]]));
    assert_eq!(bench.arrive_on_uplink(&segment(server, node, 0x10, (1001, 1001))).0, REDIRECT);
    let kind = kinds(family.peer.is_ipv4())[0];
    move |of_peer, seq| {
        if of_peer {
            icmp_error(family.router, family.uplink, kind, &segment(node, server, 0x10, (seq, 1))[ETH..])
        } else {
            icmp_error(family.peer, family.server, kind, &segment(server, peer, 0x10, (seq, 1))[ETH..])
        }
    }
}

#[test]
fn an_error_about_data_never_sent_is_dropped() {
    with_bench(|bench| {
        for family in FAMILIES {
            let about = connection(bench, family);
            let before = bench.drops(DropReason::IcmpUnmatched);
            for seq in [1102, 70_000, 0x8000_0000] {
                assert_eq!(bench.arrive_on_uplink(&about(true, seq)).0, SHOT, "{seq}");
                assert_eq!(bench.arrive_from_mesh(&about(false, seq)).0, SHOT, "{seq}");
            }
            assert_eq!(bench.drops(DropReason::IcmpUnmatched), before + 6);
            for seq in [1001, 1050, 1101] {
                assert_eq!(bench.arrive_on_uplink(&about(true, seq)).0, REDIRECT, "{seq}");
                assert_eq!(bench.arrive_from_mesh(&about(false, seq)).0, REDIRECT, "{seq}");
            }
        }
    });
}

#[test]
fn an_error_about_acknowledged_data_is_dropped() {
    with_bench(|bench| {
        for family in FAMILIES {
            let about = connection(bench, family);
            for seq in [1000, 901] {
                assert_eq!(bench.arrive_on_uplink(&about(true, seq)).0, SHOT, "{seq}");
                assert_eq!(bench.arrive_from_mesh(&about(false, seq)).0, SHOT, "{seq}");
            }
        }
        assert_eq!(bench.drops(DropReason::IcmpUnmatched), 8);
    });
}

#[test]
fn a_peer_speaks_of_its_own_flows_only() {
    with_bench(|bench| {
        for family in FAMILIES {
            bench.peer(family.other, if family.other.is_ipv4() { 32 } else { 128 }, 2);
            let request = udp((family.peer, 40001), (family.server, 53));
            let node = crate::packet::read(&bench.arrive_from_mesh(&request).1).src;
            let (_, inside) = bench.arrive_on_uplink(&udp((family.server, 53), node));
            let kind = kinds(family.peer.is_ipv4())[0];
            let before = bench.drops(DropReason::IcmpUnmatched);
            let foreign = icmp_error(family.other, family.server, kind, &inside[ETH..]);
            assert_eq!(bench.arrive_from_mesh(&foreign).0, SHOT);
            let elsewhere = icmp_error(family.peer, family.router, kind, &inside[ETH..]);
            assert_eq!(bench.arrive_from_mesh(&elsewhere).0, SHOT, "only to the one who sent the packet");
            assert_eq!(bench.drops(DropReason::IcmpUnmatched), before + 2);
            let own = icmp_error(family.peer, family.server, kind, &inside[ETH..]);
            assert_eq!(bench.arrive_from_mesh(&own).0, REDIRECT);
        }
    });
}

#[test]
fn an_error_refreshes_nothing() {
    with_bench(|bench| {
        let request = tcp((PEER, 40000), (SERVER, 80), true);
        let there = forward(bench, &request);
        let node = crate::packet::read(&bench.arrive_from_mesh(&request).1).src;
        let (_, inside) = bench.arrive_on_uplink(&tcp((SERVER, 80), node, false));
        bench.age_flows();
        for (key, mapping) in bench.mappings() {
            let last_seen = mapping.last_seen - 9_000_000_000;
            bench.put_mapping(key, peer_common::Mapping { last_seen, ..mapping });
        }
        let before = (bench.flows(), bench.mappings());
        assert_eq!(bench.arrive_on_uplink(&icmp_error(ROUTER, UPLINK, (11, 0), &there)).0, REDIRECT);
        assert_eq!(bench.arrive_from_mesh(&icmp_error(PEER, SERVER, (3, 3), &inside[ETH..])).0, REDIRECT);
        assert_eq!((bench.flows(), bench.mappings()), before);
        assert_eq!(bench.counter(Counter::IcmpErrors), 2);
    });
}

#[test]
fn a_revoked_permission_stops_errors_too() {
    with_bench(|bench| {
        let request = tcp((PEER, 40000), (SERVER, 80), true);
        let there = forward(bench, &request);
        let node = crate::packet::read(&bench.arrive_from_mesh(&request).1).src;
        let (_, inside) = bench.arrive_on_uplink(&tcp((SERVER, 80), node, false));
        bench.rules(&[]);
        assert_eq!(bench.arrive_on_uplink(&icmp_error(ROUTER, UPLINK, (11, 0), &there)).0, SHOT);
        assert_eq!(bench.arrive_from_mesh(&icmp_error(PEER, SERVER, (3, 3), &inside[ETH..])).0, SHOT);
        assert_eq!(bench.drops(DropReason::PolicyDefault), 2);
        bench.rules(&[accept_all(true)]);
        assert_eq!(bench.arrive_on_uplink(&icmp_error(ROUTER, UPLINK, (11, 0), &there)).0, REDIRECT);
        assert_eq!(bench.arrive_from_mesh(&icmp_error(PEER, SERVER, (3, 3), &inside[ETH..])).0, REDIRECT);
    });
}

#[test]
fn a_quoted_datagram_without_checksum_keeps_none() {
    with_bench(|bench| {
        let request = udp_unchecked((PEER, 40000), (SERVER, 53));
        let there = forward(bench, &request);
        let (verdict, back) = bench.arrive_on_uplink(&icmp_error(ROUTER, UPLINK, (3, 3), &there));
        assert_eq!(verdict, REDIRECT);
        assert_error(&back, ROUTER, PEER, (3, 3), &sent(&request));
    });
}

#[test]
fn what_is_no_error_to_be_translated_stays_untranslated() {
    with_bench(|bench| {
        let there = forward(bench, &tcp((PEER, 40000), (SERVER, 80), true));
        // Source quench (RFC 6633) and redirect are for the node or for nobody; a short quote names no flow.
        let redirect = icmp_error(ROUTER, UPLINK, (5, 1), &there);
        let quench = icmp_error(ROUTER, UPLINK, (4, 0), &there);
        let mut short = icmp_error(ROUTER, UPLINK, (3, 3), &there[..27]);
        short.push(0); // what a link adds is not quoted
        for error in [redirect, quench, short] {
            assert_eq!(bench.arrive_on_uplink(&error), (UNSPEC, error.clone()));
        }
        let redirect = icmp_error(PEER, SERVER, (5, 1), &there);
        assert_eq!(bench.arrive_from_mesh(&redirect).0, SHOT);
        assert_eq!(bench.drops(DropReason::IcmpType), 1);
    });
}

#[test]
fn errors_to_the_node_reach_its_stack_untouched() {
    with_bench(|bench| {
        for family in FAMILIES {
            let probe = udp((family.node, 33434), (family.peer, 33434));
            assert_eq!(bench.leave_to_mesh(&probe).0, UNSPEC);
            let error = icmp_error(family.peer, family.node, kinds(family.peer.is_ipv4())[1], &probe[ETH..]);
            assert_eq!(bench.arrive_from_mesh(&error), (UNSPEC, error.clone()));
        }
    });
}
