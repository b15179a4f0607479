//! Further source addresses of an uplink.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use peer_common::DropReason;

use crate::bench::with_bench;
use crate::lab::{FAMILIES, Family};
use crate::packet::{read, tcp, udp};
use crate::{Bench, REDIRECT, SHOT};

const SOURCES: [&str; 5] = ["198.51.100.11", "198.51.100.12", "198.51.100.13", "2001:db8:2::11", "2001:db8:2::12"];
/// Three of IPv4 from the first place on, then two of IPv6.
const PLACES: [u8; 4] = [0, 3, 3, 2];

fn give(bench: &mut Bench) {
    let addresses = SOURCES.map(|text| text.parse().expect("an address"));
    bench.sources(&addresses, PLACES);
}

/// A server of the lab's network.
fn server(family: &Family, number: u8) -> IpAddr {
    match family.server {
        IpAddr::V4(_) => Ipv4Addr::new(198, 51, 100, 100 + number).into(),
        IpAddr::V6(addr) => {
            let mut segments = addr.segments();
            segments[7] = 0x100 + u16::from(number);
            IpAddr::from(segments)
        }
    }
}

#[test]
fn a_peer_keeps_one_of_several_addresses_for_each_remote() {
    with_bench(|bench| {
        give(bench);
        for family in FAMILIES {
            bench.peer(family.other, if family.other.is_ipv4() { 32 } else { 128 }, 2);
            let mut used: BTreeMap<IpAddr, u32> = BTreeMap::new();
            for number in 0..40 {
                for peer in [family.peer, family.other] {
                    let to = server(&family, number);
                    let mut seen = Vec::new();
                    for port in [80, 81, 443] {
                        let (verdict, frame) = bench.arrive_from_mesh(&tcp((peer, 4000 + port), (to, port), true));
                        assert_eq!(verdict, REDIRECT, "drops: {:?}", bench.all_drops());
                        seen.push(read(&frame).src.0);
                        let (_, frame) = bench.arrive_from_mesh(&udp((peer, 4000 + port), (to, port)));
                        seen.push(read(&frame).src.0);
                    }
                    seen.dedup();
                    assert_eq!(seen.len(), 1, "{peer} towards {to}: {seen:?}");
                    *used.entry(seen[0]).or_default() += 1;
                }
            }
            let own: Vec<IpAddr> = SOURCES.iter().map(|text| text.parse().expect("an address")).collect();
            let own: Vec<_> = own.into_iter().filter(|addr| addr.is_ipv4() == family.peer.is_ipv4()).collect();
            assert!(own.iter().all(|addr| used.get(addr).is_some_and(|count| *count > 8)), "all are used: {used:?}");
            assert_eq!(used.len(), own.len(), "and nothing else: {used:?}");
        }
    });
}

#[test]
fn answers_to_each_address_come_back_and_a_way_resolved_anew_keeps_it() {
    with_bench(|bench| {
        give(bench);
        for family in FAMILIES {
            for number in 0..8 {
                let to = (server(&family, number), 443);
                let frame = tcp((family.peer, 4000), to, true);
                let (_, out) = bench.arrive_from_mesh(&frame);
                let node = read(&out).src;
                bench.resolve_again();
                let (verdict, again) = bench.arrive_from_mesh(&frame);
                assert_eq!((verdict, read(&again).src), (REDIRECT, node));
                let (verdict, back) = bench.arrive_on_uplink(&tcp(to, node, false));
                assert_eq!((verdict, read(&back).dst), (REDIRECT, (family.peer, 4000)));
            }
        }
        assert_eq!(bench.all_drops(), []);
    });
}

#[test]
fn a_flow_whose_address_is_taken_from_the_list_is_opened_anew() {
    with_bench(|bench| {
        give(bench);
        let frame = tcp((FAMILIES[0].peer, 4000), (FAMILIES[0].server, 443), true);
        bench.arrive_from_mesh(&frame);
        bench.sources(&[], [0; 4]);
        bench.resolve_again();
        assert_eq!(bench.arrive_from_mesh(&frame).0, SHOT);
        assert_eq!(bench.drops(DropReason::SourceChanged), 1);
        let (verdict, frame) = bench.arrive_from_mesh(&frame);
        assert_eq!((verdict, read(&frame).src.0), (REDIRECT, FAMILIES[0].uplink));
    });
}
