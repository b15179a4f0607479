//! The segment size that a SYN announces (RFC 9293 §3.7.1), lowered both ways to what fits.

use std::net::IpAddr;

use peer_common::Counter;

use crate::bench::with_bench;
use crate::lab::{FAMILIES, Family, PEER, SERVER};
use crate::packet::{read, tcp};
use crate::wire::{ETH, Ip, TCP, assert_sound, tcp_payload};
use crate::{Bench, REDIRECT, UNSPEC};

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

fn frame(src: (IpAddr, u16), dst: (IpAddr, u16), flags: u8, options: &[u8]) -> Vec<u8> {
    Ip::new(src.0, dst.0, TCP).frame(&tcp_payload(src, dst, flags, options, &[]))
}

/// The options of a frame that must be sound.
fn options(frame: &[u8]) -> &[u8] {
    let l4 = assert_sound(frame).l4;
    &frame[ETH + l4 + 20..]
}

fn mss(value: u16) -> [u8; 4] {
    let [high, low] = value.to_be_bytes();
    [2, 4, high, low]
}

/// What a segment may have at an MTU.
fn most(family: &Family, mtu: u16) -> u16 {
    mtu - if family.peer.is_ipv4() { 40 } else { 60 }
}

fn out(bench: &mut Bench, family: &Family, flags: u8, options: &[u8]) -> Vec<u8> {
    let (verdict, frame) = bench.arrive_from_mesh(&frame((family.peer, 4000), (family.server, 80), flags, options));
    assert_eq!(verdict, REDIRECT);
    frame
}

#[test]
fn a_syn_is_lowered_in_every_direction() {
    with_bench(|bench| {
        for family in FAMILIES {
            let there = out(bench, &family, SYN, &mss(8960));
            assert_eq!(options(&there), mss(most(&family, 1420)));
            let node = read(&there).src;
            let (_, back) = bench.arrive_on_uplink(&frame((family.server, 80), node, SYN_ACK, &mss(8960)));
            assert_eq!(options(&back), mss(most(&family, 1420)));
            let (verdict, own) = bench.leave_to_mesh(&frame((family.node, 4000), (family.peer, 80), SYN, &mss(8960)));
            assert_eq!((verdict, options(&own)), (UNSPEC, &mss(most(&family, 1420))[..]));
            let (_, own) = bench.leave_to_mesh(&frame((family.node, 22), (family.peer, 4001), SYN_ACK, &mss(8960)));
            assert_eq!(options(&own), mss(most(&family, 1420)));
        }
        assert_eq!(bench.counter(Counter::MssClamped), 8);
    });
}

#[test]
fn the_smaller_of_both_sides_counts_in_both_directions() {
    with_bench(|bench| {
        bench.uplink_mtu(1300);
        for family in FAMILIES {
            let there = out(bench, &family, SYN, &mss(1460));
            assert_eq!(options(&there), mss(most(&family, 1300)));
            let (_, back) = bench.arrive_on_uplink(&frame((family.server, 80), read(&there).src, SYN_ACK, &mss(1460)));
            assert_eq!(options(&back), mss(most(&family, 1300)));
        }
    });
}

#[test]
fn the_option_is_found_at_any_offset_among_others() {
    with_bench(|bench| {
        for family in FAMILIES {
            let limit = mss(most(&family, 1420));
            let before: [&[u8]; 8] = [
                &[],
                &[1],
                &[1, 1],
                &[4, 2],
                &[3, 3, 7],
                &[1, 3, 3, 7],
                &[8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
                &[4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7, 254, 9, 1, 2, 3, 4, 5, 6, 7],
            ];
            for (port, before) in (5000..).zip(before) {
                let pad = |option: [u8; 4]| {
                    let mut options = [before, &option[..]].concat();
                    options.resize(options.len().next_multiple_of(4), 1);
                    options
                };
                let syn = frame((family.peer, port), (family.server, 80), SYN, &pad(mss(1460)));
                let (_, there) = bench.arrive_from_mesh(&syn);
                assert_eq!(options(&there), pad(limit), "behind {before:?}");
            }
        }
    });
}

#[test]
fn nothing_else_is_touched() {
    with_bench(|bench| {
        for family in FAMILIES {
            let limit = most(&family, 1420);
            let untouched: [&[u8]; 9] = [
                &[],
                &mss(limit),
                &mss(536),
                &mss(0),
                // No option of that kind is four bytes long, and the list ends.
                &[2, 3, 255, 0],
                &[2, 0, 2, 4, 35, 0, 1, 1],
                &[0, 2, 4, 35, 0, 0, 0, 0],
                // The size points behind the end.
                &[3, 60, 2, 4],
                // Cut by the end of the header.
                &[1, 1, 2, 4],
            ];
            for (port, given) in (5000..).zip(untouched) {
                let syn = frame((family.peer, port), (family.server, 80), SYN, given);
                assert_eq!(options(&bench.arrive_from_mesh(&syn).1), given);
            }
            let data = frame((family.peer, 4000), (family.server, 80), 0x10, &mss(1460));
            assert_eq!(options(&bench.arrive_from_mesh(&data).1), mss(1460), "only a SYN announces");
        }
        assert_eq!(bench.counter(Counter::MssClamped), 0);
    });
}

#[test]
fn a_header_that_is_longer_than_its_packet_is_malformed() {
    with_bench(|bench| {
        let mut syn = tcp((PEER, 4000), (SERVER, 80), true);
        syn.truncate(ETH + 40);
        syn[ETH + 3] = 40;
        syn[ETH + 32] = 0xf0;
        assert_eq!(bench.arrive_from_mesh(&syn).0, crate::SHOT);
        syn[ETH + 32] = 0x40;
        assert_eq!(bench.arrive_from_mesh(&syn).0, crate::SHOT);
        assert_eq!(bench.drops(peer_common::DropReason::Malformed), 2);
    });
}
