//! What is told when a connection may not go on, and when a packet goes no further (RFC 9293 §3.5.2, RFC 1812 §5.2.7, RFC 4443 §3.1).

use std::net::IpAddr;

use peer_common::{Config, Counter, DropReason, EventKind, Flow, NextHop, Observe, TcpSeen};

use crate::bench::{PolicyRule, accept_all, with_bench};
use crate::lab::{FAMILIES, Family, NODE, OTHER, PEER, SERVER, UPLINK};
use crate::packet::{read, tcp, udp};
use crate::sys::device::Offload;
use crate::wire::{ETH, Ip, TCP, assert_sound, header, icmp_of, is_reset, seal, tcp_payload};
use crate::wires::{Wires, with_wires};
use crate::{Bench, REDIRECT, SHOT, UNSPEC};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const SEQ: u32 = 0x1234_5678;
const ACKED: u32 = 0x9abc_def0;

type End = (IpAddr, u16);

/// A packet from layer 3 on with the numbers of above and `len` bytes of data.
fn segment(src: End, dst: End, flags: u8, len: usize) -> Vec<u8> {
    let mut bytes = tcp_payload(src, dst, flags, &[], &vec![7; len]);
    bytes[4..8].copy_from_slice(&SEQ.to_be_bytes());
    bytes[8..12].copy_from_slice(&ACKED.to_be_bytes());
    seal(src.0, dst.0, TCP, &mut bytes);
    Ip { fragment: if src.0.is_ipv4() { Ip::DONT } else { 0 }, ..Ip::new(src.0, dst.0, TCP) }.packet(&bytes)
}

/// Insists that `frame` is a sound reset with these ends, numbers and flags, and nothing else.
fn assert_reset(frame: &[u8], (src, dst): (End, End), (seq, ack): (u32, u32), flags: u8) {
    let outer = assert_sound(frame);
    assert_eq!((outer.src, outer.dst, outer.ttl, outer.protocol), (src.0, dst.0, 64, TCP));
    assert_eq!((frame.len(), outer.len), (ETH + outer.l4 + 20, outer.l4 + 20), "a header and nothing behind it");
    let tcp = &frame[ETH + outer.l4..];
    let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().expect("four bytes"));
    assert_eq!(word(0), u32::from(src.1) << 16 | u32::from(dst.1), "ports");
    assert_eq!((word(4), word(8), tcp[13]), (seq, ack, flags), "seq, ack, flags");
}

/// Opens a connection that both ends have acknowledged; returns where the server answers to.
fn connect(wires: &mut Wires, family: &Family) -> End {
    let (peer, server) = ((family.peer, 4000), (family.server, 80));
    wires.wt0.send(Offload::default(), &segment(peer, server, ACK, 10)).expect("write to wt0");
    let (_, frame) = wires.lan.receive(|frame| is_of(&frame[ETH..], family.server)).expect("forwarded");
    let node = read(&frame).src;
    let back = wires.frame(&segment(server, node, ACK, 10));
    wires.lan.send(Offload::default(), &back).expect("send on lan0");
    wires.wt0.receive(|packet| is_of(packet, family.peer)).expect("forwarded");
    node
}

fn is_of(packet: &[u8], to: IpAddr) -> bool {
    crate::wire::is_readable(packet) && header(packet).dst == to && header(packet).protocol == TCP
}

/// A super-packet of three segments, whose checksums the device would complete.
fn super_packet(packet: &[u8], link: u16) -> Offload {
    let v4 = packet[0] >> 4 == 4;
    let l4 = link + if v4 { 20 } else { 40 };
    Offload {
        flags: Offload::NEEDS_CSUM,
        gso_type: if v4 { 1 } else { 4 },
        header_len: l4 + 20,
        gso_size: 1000,
        csum_start: l4,
        csum_offset: 16,
    }
}

/// What the mesh and the LAN receive next that is a reset.
fn resets(wires: &mut Wires) -> (Vec<u8>, Vec<u8>) {
    let framed = |packet: &[u8]| [&[0; ETH][..], packet].concat();
    let (offload, inside) = wires.wt0.receive(|packet| is_reset(&framed(packet))).expect("a reset to the peer");
    assert_eq!((offload.flags & Offload::NEEDS_CSUM, offload.gso_type), (0, 0), "nothing is left to do");
    let (offload, outside) = wires.lan.receive(is_reset).expect("a reset to the server");
    assert_eq!((offload.flags & Offload::NEEDS_CSUM, offload.gso_type), (0, 0), "nothing is left to do");
    (framed(&inside), outside)
}

#[test]
fn the_next_packet_of_either_end_resets_both_when_a_permission_is_gone() {
    with_wires(|bench, wires| {
        for family in FAMILIES {
            let (peer, server) = ((family.peer, 4000), (family.server, 80));
            for (from_peer, len) in [(true, 0), (true, 5), (true, 3000), (false, 0), (false, 5), (false, 3000)] {
                bench.rules(&[accept_all(true), accept_all(false)]);
                let node = connect(wires, &family);
                bench.rules(&[]);
                let offload =
                    |packet: &[u8], link| if len > 2000 { super_packet(packet, link) } else { Offload::default() };
                // Twice: what is asked once more is answered once more.
                for _ in 0..2 {
                    if from_peer {
                        let packet = segment(peer, server, ACK, len);
                        wires.wt0.send(offload(&packet, 0), &packet).expect("write to wt0");
                    } else {
                        let packet = segment(server, node, ACK, len);
                        let frame = wires.frame(&packet);
                        wires.lan.send(offload(&packet, ETH as u16), &frame).expect("send on lan0");
                    }
                    let (inside, outside) = resets(wires);
                    if from_peer {
                        assert_reset(&inside, (server, peer), (ACKED, 0), RST);
                        assert_reset(&outside, (node, server), (SEQ, ACKED), RST | ACK);
                    } else {
                        assert_reset(&inside, (server, peer), (SEQ, ACKED), RST | ACK);
                        assert_reset(&outside, (node, server), (ACKED, 0), RST);
                    }
                    assert_eq!((&outside[..6], &outside[6..12]), (&wires.macs[6..], &wires.macs[..6]));
                }
            }
        }
        assert_eq!(bench.counter(Counter::ResetsSent), 2 * 6 * 2 * 2);
        assert_eq!(bench.counter(Counter::IcmpErrorsSent), 0);
    });
}

#[test]
fn a_peer_and_the_node_itself_are_told_too() {
    with_bench(|bench| {
        let ssh = tcp((PEER, 4000), (NODE, 22), false);
        assert_eq!(bench.arrive_from_mesh(&ssh).0, UNSPEC);
        bench.rules(&[]);
        let (verdict, frame) = bench.arrive_from_mesh(&ssh);
        assert_eq!(verdict, UNSPEC, "the node takes it");
        assert_reset(&frame, ((PEER, 4000), (NODE, 22)), (1, 1), RST | ACK);
        assert_eq!((bench.counter(Counter::ResetsSent), bench.drops(DropReason::PolicyDefault)), (2, 1));
    });
}

#[test]
fn an_ended_connection_is_marked_and_told_of_once_and_lives_when_it_is_permitted_again() {
    with_bench(|bench| {
        let out = tcp((PEER, 4000), (SERVER, 80), false);
        let node = read(&bench.arrive_from_mesh(&out).1).src;
        let back = tcp((SERVER, 80), node, false);
        assert_eq!(bench.arrive_on_uplink(&back).0, REDIRECT);
        bench.config(|config| (config.observe, config.event_interval) = (Observe::FLOWS, 1));
        bench.rules(&[]);
        assert!(is_reset(&bench.arrive_on_uplink(&back).1));
        assert!(is_reset(&bench.arrive_from_mesh(&out).1));
        let [event] = bench.events()[..] else { panic!("one event") };
        assert_eq!((event.event, event.verdict), (EventKind::Closed as u8, DropReason::PolicyDefault as u32 + 1));
        assert_eq!((event.packets, event.reply_packets), (1, 1));
        let ([(_, flow)], [(_, mapping)]) = (&bench.flows()[..], &bench.mappings()[..]) else { panic!("one of each") };
        assert_eq!(flow.ended, Flow::TOLD | (DropReason::PolicyDefault as u32 + 1));
        assert!(flow.tcp_seen & mapping.tcp_seen & TcpSeen::RST != 0, "it is forgotten in four minutes");
        bench.rules(&[accept_all(true)]);
        assert_eq!(read(&bench.arrive_from_mesh(&out).1).src, node);
        assert_eq!(bench.arrive_on_uplink(&back).0, REDIRECT);
        assert_eq!(bench.flows()[0].1.ended, 0);
    });
}

#[test]
fn what_was_no_connection_ends_in_silence() {
    with_bench(|bench| {
        let syn = tcp((PEER, 4000), (SERVER, 80), true);
        let datagram = udp((PEER, 4000), (SERVER, 53));
        let to_server = read(&bench.arrive_from_mesh(&datagram).1).src;
        assert_eq!(bench.arrive_from_mesh(&syn).0, REDIRECT);
        bench.rules(&[]);
        for packet in [&syn, &datagram] {
            assert_eq!(bench.arrive_from_mesh(packet).0, SHOT);
        }
        assert_eq!(bench.arrive_on_uplink(&udp((SERVER, 53), to_server)).0, SHOT);
        let reset = Ip::new(PEER, SERVER, TCP).frame(&tcp_payload((PEER, 4000), (SERVER, 80), RST | ACK, &[], &[]));
        assert_eq!(bench.arrive_from_mesh(&reset).0, SHOT, "never about a reset");
        assert_eq!((bench.counter(Counter::ResetsSent), bench.counter(Counter::IcmpErrorsSent)), (0, 0));
    });
}

#[test]
fn a_route_that_is_gone_ends_its_connections_too() {
    with_bench(|bench| {
        let elsewhere = "203.0.114.80".parse().expect("an address");
        bench.route("203.0.114.0".parse().expect("an address"), 24, 7, peer_common::Route::MASQUERADE);
        let out = tcp((PEER, 4000), (elsewhere, 80), false);
        let node = read(&bench.arrive_from_mesh(&out).1).src;
        bench.forget_route("203.0.114.0".parse().expect("an address"), 24);
        bench.rules(&[accept_all(true)]);
        assert_reset(&bench.arrive_from_mesh(&out).1, (node, (elsewhere, 80)), (1, 1), RST | ACK);
        assert_eq!(bench.drops(DropReason::NoRoute), 1);
    });
}

/// Insists that `packet` is answered by an ICMP "unreachable" of this code from the node.
fn assert_unreachable(bench: &mut Bench, packet: &[u8], family: &Family, codes: (u8, u8)) {
    let (verdict, error) = bench.arrive_from_mesh(packet);
    assert_eq!(verdict, REDIRECT, "drops: {:?}", bench.all_drops());
    assert_about(&error, family, codes, packet);
}

/// Insists that `error` tells the peer of `packet`, with the code of its family.
fn assert_about(error: &[u8], family: &Family, codes: (u8, u8), packet: &[u8]) {
    let outer = assert_sound(error);
    assert_eq!((outer.src, outer.dst, outer.protocol), (family.node, family.peer, icmp_of(family.peer)));
    let icmp = &error[ETH + outer.l4..];
    let expected = if family.peer.is_ipv4() { (3, codes.0) } else { (1, codes.1) };
    assert_eq!(((icmp[0], icmp[1]), &icmp[4..8]), (expected, &[0; 4][..]));
    assert_eq!(&icmp[8..], &packet[ETH..], "the packet as its sender sent it");
}

#[test]
fn a_member_is_told_that_there_is_no_route() {
    with_bench(|bench| {
        for family in FAMILIES {
            let nowhere = if family.peer.is_ipv4() { "192.0.2.1" } else { "2001:db8:dead::1" };
            let nowhere = nowhere.parse().expect("an address");
            for packet in [tcp((family.peer, 1), (nowhere, 80), true), udp((family.peer, 1), (nowhere, 53))] {
                assert_unreachable(bench, &packet, &family, (0, 0));
            }
        }
        assert_eq!(bench.drops(DropReason::NoRoute), 4);
    });
}

#[test]
fn a_member_is_told_that_it_has_too_many_flows_and_a_connection_without_one_is_reset() {
    with_bench(|bench| {
        bench.config(|config| config.peer_quota = 0);
        for family in FAMILIES {
            let (peer, server) = ((family.peer, 4000), (family.server, 80));
            assert_unreachable(bench, &udp(peer, server), &family, (13, 1));
            assert_unreachable(bench, &tcp(peer, server, true), &family, (13, 1));
            let (verdict, reset) = bench.arrive_from_mesh(&tcp(peer, server, false));
            assert_eq!(verdict, REDIRECT);
            assert_reset(&reset, (server, peer), (1, 0), RST);
        }
    });
}

#[test]
fn a_member_is_told_that_a_host_does_not_answer_once_the_kernel_has_asked() {
    with_bench(|bench| {
        for family in FAMILIES {
            bench.clear();
            let packet = udp((family.peer, 4000), (family.server, 53));
            assert_eq!(bench.arrive_from_mesh(&packet).0, REDIRECT);
            let [(_, flow)] = bench.flows()[..] else { panic!("one flow") };
            let hop = bench.next_hop(flow.next_hop);
            let failed = NextHop { addr: family.server.into(), flags: hop.flags | NextHop::FAILED, ..hop };
            bench.set_next_hop(flow.next_hop, failed);
            let (verdict, error) = bench.arrive_from_mesh(&packet);
            assert_eq!(verdict, REDIRECT);
            assert_about(&error, &family, (1, 3), &packet);
            // Without a daemon that has the kernel ask, a packet does, in eight ticks.
            bench.set_next_hop(flow.next_hop, NextHop { asked: hop.asked.wrapping_sub(8), ..failed });
            assert_eq!(read(&bench.arrive_from_mesh(&packet).1).dst.0, family.server);
            assert!(bench.next_hop(flow.next_hop).asked >= hop.asked);
            assert!(bench.refuses(&packet), "the one behind it does not");
            bench.set_next_hop(flow.next_hop, NextHop { flags: hop.flags, ..failed });
            assert_eq!(read(&bench.arrive_from_mesh(&packet).1).dst.0, family.server, "it answers again");
        }
    });
}

#[test]
fn what_the_policy_refuses_is_answered_only_where_the_operator_wants_it() {
    with_bench(|bench| {
        bench.rules(&[]);
        for family in FAMILIES {
            let (peer, server) = ((family.peer, 4000), (family.server, 80));
            let (syn, datagram) = (tcp(peer, server, true), udp(peer, server));
            bench.config(|config| config.answers = 0);
            assert_eq!([bench.arrive_from_mesh(&syn).0, bench.arrive_from_mesh(&datagram).0], [SHOT; 2]);
            bench.config(|config| config.answers = Config::REJECT);
            assert_unreachable(bench, &datagram, &family, (13, 1));
            assert!(is_reset(&bench.arrive_from_mesh(&syn).1));
            let data = segment(peer, server, ACK, 100);
            let (_, reset) = bench.arrive_from_mesh(&[&syn[..ETH], &data].concat());
            assert_reset(&reset, (server, peer), (ACKED, 0), RST);
            let open = segment(peer, server, SYN, 3);
            let (_, reset) = bench.arrive_from_mesh(&[&syn[..ETH], &open].concat());
            assert_reset(&reset, (server, peer), (0, SEQ + 4), RST | ACK);
            let reset = segment(peer, server, RST, 0);
            assert_eq!(bench.arrive_from_mesh(&[&syn[..ETH], &reset].concat()).0, SHOT, "never about a reset");
        }
        let drop = PolicyRule { action: peer_core::desired::Action::Drop, ..accept_all(true) };
        bench.rules(&[drop]);
        assert!(is_reset(&bench.arrive_from_mesh(&tcp((PEER, 1), (SERVER, 80), true)).1), "a rule that drops, too");
        let foreign = "100.64.0.99".parse().expect("an address");
        assert_eq!(bench.arrive_from_mesh(&tcp((foreign, 1), (SERVER, 80), true)).0, SHOT, "nobody's");
    });
}

/// RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f).
#[test]
fn what_one_peer_is_told_is_limited_and_others_are_told_still() {
    with_bench(|bench| {
        bench.peer(OTHER, 32, 2);
        bench.rules(&[]);
        bench.config(|config| config.answers = Config::REJECT);
        let started = std::time::Instant::now();
        let ask = |bench: &mut Bench, peer| is_reset(&bench.arrive_from_mesh(&tcp((peer, 1), (UPLINK, 80), true)).1);
        let told =
            (0..1000).filter(|_| bench.arrive_from_mesh(&tcp((PEER, 1), (SERVER, 80), true)).0 == REDIRECT).count();
        let earned = 50 * (started.elapsed().as_secs() as usize + 1);
        assert!((50..=50 + earned).contains(&told), "{told} of 1000");
        assert!(ask(bench, OTHER));
        assert_eq!(bench.counter(Counter::ResetsSent), told as u64 + 1);
    });
}
