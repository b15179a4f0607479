//! The table of next hops, with real devices, neighbours and routes: test runs ask the FIB of the namespace that they are in.

use std::net::IpAddr;
use std::process::Command;
use std::time::Instant;

use peer_common::next_hop::{UNLISTED, tick};
use peer_common::route::Route;
use peer_common::{Counter, DropReason, Flow, NextHop};

use crate::bench::{NEXT_HOPS, with_bench};
use crate::lab::{FAMILIES, Family, OTHER, OTHER6};
use crate::packet::udp;
use crate::sys::device::index;
use crate::{Bench, REDIRECT};

/// Ethernet addresses of the uplink and of neighbours; packets of tests come with other ones.
const OWN: &str = "02:00:00:00:00:01";
const THERE: &str = "02:00:00:00:00:22";
const MOVED: &str = "02:00:00:00:00:03";
const HEADERS: [[u8; 14]; 2] =
    [[2, 0, 0, 0, 0, 0x22, 2, 0, 0, 0, 0, 1, 0x08, 0x00], [2, 0, 0, 0, 0, 0x22, 2, 0, 0, 0, 0, 1, 0x86, 0xdd]];

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}

/// An uplink with forwarding on, over which both routes of each family go.
fn with_uplink(test: impl FnOnce(&mut Bench, u32) + Send + 'static) {
    with_bench(|bench| {
        ip(&format!("link add eth0 address {OWN} type veth peer name lan0"));
        ip("link set eth0 up");
        ip("link set lan0 up");
        for family in ["ipv4", "ipv6"] {
            std::fs::write(format!("/proc/sys/net/{family}/conf/eth0/forwarding"), "1").expect("a namespace's own");
        }
        let uplink = index(c"eth0").expect("an index");
        for family in FAMILIES {
            let (len, dad) = if family.uplink.is_ipv4() { (16, "") } else { (64, " nodad") };
            ip(&format!("address add {}/{len} dev eth0{dad}", family.uplink));
            bench.route_by(family.server, if len == 16 { 24 } else { len }, 10 + len, Route::MASQUERADE, uplink);
        }
        bench.route_by("198.51.0.0".parse().expect("an address"), 16, 9, Route::MASQUERADE, uplink);
        bench.peer(OTHER, 32, 2);
        bench.peer(OTHER6, 128, 2);
        bench.uplink(uplink, 1500);
        test(bench, uplink);
    });
}

fn only_flow(bench: &mut Bench) -> Flow {
    let [(_, flow)] = bench.flows()[..] else { panic!("one flow") };
    flow
}

/// The address of a host on the LAN.
fn host(family: &Family, number: u16) -> IpAddr {
    match family.server {
        IpAddr::V4(_) => IpAddr::from([198, 51, 110 + (number >> 8) as u8, number as u8]),
        IpAddr::V6(_) => format!("2001:db8:2::5:{number:x}").parse().expect("an address"),
    }
}

#[test]
fn a_known_neighbour_has_its_header_stored_and_is_asked_for_once_in_a_tick() {
    with_uplink(|bench, uplink| {
        for (family, header) in FAMILIES.iter().zip(HEADERS) {
            bench.clear();
            ip(&format!("neighbour replace {} lladdr {THERE} dev eth0", family.server));
            let packet = udp((family.peer, 4000), (family.server, 53));
            assert_eq!(bench.arrive_from_mesh(&packet).0, REDIRECT);
            let flow = only_flow(bench);
            let hop = bench.next_hop(flow.next_hop);
            assert_eq!((hop.addr, hop.source), (family.server.into(), family.uplink.into()));
            let flags = NextHop::HEADER | if family.server.is_ipv4() { NextHop::V4 } else { 0 };
            assert_eq!((hop.uplink, hop.mtu, hop.header, hop.flags), (uplink, 1500, header, flags));
            // The first packet went by the kernel's table, so that the kernel goes on asking.
            assert_ne!(hop.asked, 0);
            // A tick may end between two packets, hardly between four.
            let stored = (0..4).any(|_| {
                let (verdict, out) = bench.arrive_from_mesh(&packet);
                assert_eq!(verdict, REDIRECT);
                out[..14] == header
            });
            assert!(stored, "the stored header is written");
            bench.set_next_hop(flow.next_hop, NextHop { asked: hop.asked - 1, ..hop });
            let (verdict, out) = bench.arrive_from_mesh(&packet);
            assert_eq!((verdict, out[..14] == header), (REDIRECT, false), "the kernel writes it");
            assert!(bench.next_hop(flow.next_hop).asked >= hop.asked);
        }
    });
}

#[test]
fn flows_with_the_same_way_share_an_entry() {
    with_uplink(|bench, _| {
        for family in FAMILIES {
            bench.clear();
            ip(&format!("neighbour replace {} lladdr {THERE} dev eth0", family.server));
            let made = bench.counter(Counter::NextHopsMade);
            for port in 4000..4010 {
                assert_eq!(bench.arrive_from_mesh(&udp((family.peer, port), (family.server, 53))).0, REDIRECT);
            }
            let flows = bench.flows();
            assert!(flows.iter().all(|(_, flow)| flow.next_hop == flows[0].1.next_hop));
            assert_eq!(bench.counter(Counter::NextHopsMade) - made, 1);
        }
    });
}

#[test]
fn a_way_that_may_be_another_is_resolved_again_by_its_own_flows_only() {
    with_uplink(|bench, _| {
        let family = FAMILIES[0];
        let [near, far]: [IpAddr; 2] = ["198.51.100.81", "203.0.113.9"].map(|text| text.parse().expect("an address"));
        for gateway in ["198.51.100.2", "198.51.100.3"] {
            ip(&format!("neighbour add {gateway} lladdr {THERE} dev eth0"));
        }
        ip(&format!("neighbour add {near} lladdr {THERE} dev eth0"));
        ip("route add 203.0.113.0/24 via 198.51.100.2");
        bench.route_by(far, 24, 30, Route::MASQUERADE, index(c"eth0").expect("an index"));
        let (to_near, to_far) = (udp((family.peer, 1), (near, 53)), udp((family.peer, 2), (far, 53)));
        for packet in [&to_near, &to_far] {
            assert_eq!(bench.arrive_from_mesh(packet).0, REDIRECT);
        }
        let entry = |bench: &mut Bench, to: IpAddr| {
            let flow = bench.flows().into_iter().find(|(key, _)| key.dst == to.into()).expect("a flow").1;
            (flow.next_hop, bench.next_hop(flow.next_hop))
        };
        let (number, hop) = entry(bench, far);
        assert_eq!(
            (IpAddr::from(hop.addr).to_string().as_str(), hop.flags & NextHop::GATEWAY != 0),
            ("198.51.100.2", true)
        );
        ip("route replace 203.0.113.0/24 via 198.51.100.3");
        let lookups = bench.counter(Counter::FibLookups);
        bench.arrive_from_mesh(&to_far);
        assert_eq!(entry(bench, far).0, number, "nobody has said so yet");
        bench.set_next_hop(number, NextHop { generation: hop.generation + 1, ..hop });
        for packet in [&to_near, &to_far, &to_near, &to_far] {
            assert_eq!(bench.arrive_from_mesh(packet).0, REDIRECT);
        }
        assert_eq!(IpAddr::from(entry(bench, far).1.addr).to_string(), "198.51.100.3");
        assert_eq!(bench.counter(Counter::FibLookups) - lookups, 1);
    });
}

#[test]
fn what_finds_no_entry_is_resolved_for_each_packet() {
    with_uplink(|bench, _| {
        let family = FAMILIES[0];
        let hosts: Vec<IpAddr> = (1..=NEXT_HOPS as u16 + 2).map(|number| host(&family, number)).collect();
        for host in &hosts {
            ip(&format!("neighbour add {host} lladdr {THERE} dev eth0"));
            assert_eq!(bench.arrive_from_mesh(&udp((family.peer, 4000), (*host, 53))).0, REDIRECT);
        }
        let unlisted: Vec<_> = bench.flows().into_iter().filter(|(_, flow)| flow.next_hop == UNLISTED).collect();
        assert_eq!(unlisted.len(), hosts.len() + 1 - NEXT_HOPS as usize, "entry 0 is nobody's");
        let lookups = bench.counter(Counter::FibLookups);
        let to = IpAddr::from(unlisted[0].0.dst);
        let (verdict, out) = bench.arrive_from_mesh(&udp((family.peer, 4000), (to, 53)));
        assert_eq!((verdict, out.is_empty()), (REDIRECT, false));
        assert_eq!(bench.counter(Counter::FibLookups) - lookups, 1);
        assert!(bench.counter(Counter::NextHopsUnlisted) > 0);
    });
}

#[test]
fn a_peer_reaches_for_few_silent_neighbours_at_once_and_others_for_theirs() {
    for family in FAMILIES {
        with_uplink(move |bench, _| {
            let started = Instant::now();
            let ask = |bench: &mut Bench, number| !bench.refuses(&udp((family.peer, 9), (host(&family, number), 9)));
            let passed = (1..=400).filter(|&number| ask(bench, number)).count() as u64;
            let earned = 32 * (started.elapsed().as_secs() + 1);
            assert!((64..=64 + earned).contains(&passed), "{passed} of 400 passed");
            assert_eq!(bench.drops(DropReason::SilentNeighbours), 400 - passed);
            // A neighbour that is known costs nothing, and another peer has its own.
            ip(&format!("neighbour replace {} lladdr {THERE} dev eth0", family.server));
            for port in 1..100 {
                assert_eq!(bench.arrive_from_mesh(&udp((family.peer, port), (family.server, 53))).0, REDIRECT);
            }
            assert_eq!(bench.arrive_from_mesh(&udp((family.other, 9), (host(&family, 401), 9))).0, REDIRECT);
        });
    }
}

#[test]
fn packets_to_one_silent_neighbour_count_once_in_a_tick() {
    with_uplink(|bench, _| {
        let family = FAMILIES[0];
        let to = host(&family, 1);
        let first = bench.arrive_from_mesh(&udp((family.peer, 1), (to, 9)));
        let number = only_flow(bench).next_hop;
        let asked = bench.next_hop(number).asked;
        for port in 1..300 {
            assert_eq!(bench.arrive_from_mesh(&udp((family.peer, port), (to, 9))).0, REDIRECT);
        }
        assert_eq!((first.0, bench.drops(DropReason::SilentNeighbours)), (REDIRECT, 0));
        assert!(asked > 0 && tick(u64::MAX) > asked);
    });
}

#[test]
fn a_neighbour_that_moved_is_where_the_table_says() {
    with_uplink(|bench, _| {
        let family = FAMILIES[0];
        ip(&format!("neighbour replace {} lladdr {THERE} dev eth0", family.server));
        let packet = udp((family.peer, 4000), (family.server, 53));
        bench.arrive_from_mesh(&packet);
        ip(&format!("neighbour replace {} lladdr {MOVED} dev eth0", family.server));
        let number = only_flow(bench).next_hop;
        let hop = bench.next_hop(number);
        // What the daemon does when the kernel tells of it.
        let mut header = hop.header;
        header[5] = 3;
        bench.set_next_hop(number, NextHop { header, ..hop });
        let moved = (0..4).any(|_| bench.arrive_from_mesh(&packet).1[..6] == [2, 0, 0, 0, 0, 3]);
        assert!(moved, "the new header is written");
    });
}

#[test]
fn an_entry_belongs_to_the_verdict_refused_only_without_a_device() {
    with_uplink(|bench, uplink| {
        let family = FAMILIES[0];
        bench.route_by("203.0.113.0".parse().expect("an address"), 24, 30, Route::MASQUERADE, uplink + 50);
        let far = "203.0.113.9".parse().expect("an address");
        assert!(bench.refuses(&udp((family.peer, 1), (far, 53))));
        assert_eq!((bench.drops(DropReason::NotUplink), bench.counter(Counter::NextHopsMade)), (1, 0));
    });
}
