//! The scan over real maps. Needs CAP_BPF (root).

mod reading;
mod table;

use std::cell::RefCell;
use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use peer_common::next_hop::UNLISTED;
use peer_common::{Addr, Config, Flow, FlowKey, FlowKind, Mapping, NextHop, TcpSeen};

use self::table::Table;
use super::{FlowTables, PortCounts};
use crate::observe::{CloseReason, Ended};
use crate::sys::{lookup, monotonic_coarse, update_all};

const SECOND: u64 = 1_000_000_000;
const UDP: u32 = 17;
/// Long after every timer.
const NOW: u64 = 100_000 * SECOND;

struct Tables {
    flows: Table,
    mappings: Table,
    max: u32,
}

impl Tables {
    fn new(max: u32) -> Self {
        let failed = "these tests need root (CAP_BPF)";
        Self {
            flows: Table::new::<FlowKey, Flow>(max).expect(failed),
            mappings: Table::new::<FlowKey, Mapping>(max).expect(failed),
            max,
        }
    }

    fn view(&self) -> FlowTables<'_> {
        FlowTables {
            flows: self.flows.as_fd(),
            mappings: self.mappings.as_fd(),
            // No flow of these tests names one.
            next_hops: self.flows.as_fd(),
            max: self.max.into(),
            told: &|_| {},
        }
    }

    /// Puts a flow with its mapping, both last used at `seen`.
    fn put(&self, number: u32, seen: u64, packets: u64) -> (FlowKey, Flow, Mapping) {
        let (key, flow) = flow(number, seen, packets);
        let mapping = Mapping {
            peer_addr: key.src,
            last_seen: seen,
            peer_port: key.src_port,
            kind: flow.kind,
            packets: packets.saturating_sub(1),
            ..Mapping::default()
        };
        self.flows.put(&key, &flow).expect("room");
        self.mappings.put(&reply(&key, &flow), &mapping).expect("room");
        (key, flow, mapping)
    }

    fn has(&self, key: &FlowKey) -> bool {
        lookup::<_, Flow>(self.flows.as_fd(), key).expect("read").is_some()
    }

    fn has_mapping(&self, reply: &FlowKey) -> bool {
        lookup::<_, Mapping>(self.mappings.as_fd(), reply).expect("read").is_some()
    }
}

/// No port is in use.
fn none() -> PortCounts {
    PortCounts::default()
}

/// A UDP flow of its own for each number.
fn flow(number: u32, last_seen: u64, packets: u64) -> (FlowKey, Flow) {
    let key = FlowKey {
        src: Addr::from_v4_be(number.to_be()),
        dst: Addr::from_v4_be(7),
        src_port: 4000,
        dst_port: 53,
        protocol: UDP,
    };
    let nat_addr = Addr::from_v4_be((number ^ 0x8000_0000).to_be());
    let kind = FlowKind::Masqueraded as u8;
    (key, Flow { nat_addr, nat_port: 21000, last_seen, packets: packets.min(1), kind, ..Flow::default() })
}

fn reply(key: &FlowKey, flow: &Flow) -> FlowKey {
    key.reply_key(flow.nat_addr, flow.nat_port)
}

#[test]
fn a_flow_used_since_the_batch_was_read_stays() {
    let tables = Tables::new(16);
    let (key, stale, _) = tables.put(1, NOW - 400 * SECOND, 2);
    tables.flows.put(&key, &Flow { last_seen: NOW - SECOND, ..stale }).expect("room");
    assert!(!tables.view().expire_flow(&key, &stale, NOW.into(), false).expect("a scan"));
    assert!(tables.has(&key) && tables.has_mapping(&reply(&key, &stale)));
}

#[test]
fn a_mapping_used_since_it_was_looked_at_stays() {
    let tables = Tables::new(16);
    let (key, flow, stale) = tables.put(1, NOW - 400 * SECOND, 2);
    let reply = reply(&key, &flow);
    tables.mappings.put(&reply, &Mapping { last_seen: NOW, ..stale }).expect("room");
    tables.view().forget_mapping(&reply, &stale).expect("a scan");
    assert!(tables.has_mapping(&reply));
    assert!(!tables.view().expire_flow(&key, &flow, NOW.into(), false).expect("a scan"), "answers keep the flow");
    assert!(tables.has(&key));
}

/// A thread is the traffic: it uses every live flow again and again, while scans run with a clock that leaves each flow
/// one second between two packets. Whatever a scan took from under it would be missing at the next packet.
#[test]
fn scans_under_traffic_remove_the_dead_and_none_that_lives() {
    const FLOWS: u32 = 8000;
    let tables = Tables::new(4 * FLOWS);
    let started = monotonic_coarse();
    let live: Vec<_> = (0..FLOWS).map(|number| tables.put(number, started, 2)).collect();
    let (stop, missing) = (AtomicBool::new(false), AtomicU32::new(0));
    let mut removed = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for (key, flow, _) in &live {
                    let used = Flow { last_seen: monotonic_coarse(), ..*flow };
                    missing.fetch_add(u32::from(!tables.flows.change(key, &used).expect("write")), Ordering::Relaxed);
                }
            }
        });
        for round in 1..=20 {
            for number in 0..200 {
                tables.put(round * 100_000 + number, started.saturating_sub(10 * SECOND), 2);
            }
            let now = monotonic_coarse() + 295 * SECOND;
            removed += tables.view().collect(now.into(), 0, &none(), none()).expect("a scan").collected.expired;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(missing.load(Ordering::Relaxed), 0, "no packet missed its flow");
    assert_eq!(removed, 20 * 200);
    assert!(live.iter().all(|(key, flow, _)| tables.has(key) && tables.has_mapping(&reply(key, flow))));
}

#[test]
fn under_pressure_flows_of_one_packet_go_first() {
    let tables = Tables::new(100);
    let (one, ..) = tables.put(1, NOW - 31 * SECOND, 1);
    let (more, ..) = tables.put(2, NOW - 31 * SECOND, 3);
    assert_eq!(
        tables.view().collect(NOW.into(), 80, &none(), none()).expect("a scan").flows,
        2,
        "80 of 100 is no pressure yet"
    );
    assert_eq!(tables.view().collect(NOW.into(), 81, &none(), none()).expect("a scan").collected.expired, 1);
    assert!(!tables.has(&one) && tables.has(&more));
}

#[test]
fn mappings_without_their_flow_go_when_they_are_old() {
    let tables = Tables::new(16);
    let (key, flow, mapping) = tables.put(1, NOW - 299 * SECOND, 2);
    let old = Mapping { last_seen: NOW - 301 * SECOND, ..mapping };
    let (own, stray) = (reply(&key, &flow), key.reply_key(flow.nat_addr, 21001));
    tables.mappings.put(&own, &old).expect("room");
    tables.mappings.put(&stray, &old).expect("room");
    let young = key.reply_key(flow.nat_addr, 21002);
    tables.mappings.put(&young, &Mapping { last_seen: NOW - SECOND, ..mapping }).expect("room");
    let scan = tables.view().collect(NOW.into(), 0, &none(), none()).expect("a scan");
    assert_eq!((scan.collected.orphans, scan.mappings, scan.flows), (1, 2, 1));
    assert!(tables.has_mapping(&own), "an old mapping of a live flow is no orphan");
    assert!(tables.has_mapping(&young), "its flow may just be on its way");
    assert!(!tables.has_mapping(&stray));
}

#[test]
fn flows_of_an_address_that_is_gone_are_flushed() {
    let tables = Tables::new(16);
    let (one, flow, _) = tables.put(1, NOW, 2);
    let (other, kept, _) = tables.put(2, NOW, 2);
    assert_eq!(tables.view().flush(&[flow.nat_addr].into()).expect("a flush"), 1);
    assert!(!tables.has(&one) && !tables.has_mapping(&reply(&one, &flow)));
    assert!(tables.has(&other) && tables.has_mapping(&reply(&other, &kept)));
}

/// The tables, and what is told of the flows that are removed from them.
fn told_by(tables: &Tables, work: impl FnOnce(&FlowTables<'_>)) -> Vec<(FlowKey, CloseReason, Option<u64>)> {
    let told = RefCell::new(Vec::new());
    let tell = |ended: &Ended<'_>| {
        told.borrow_mut().push((*ended.key, ended.why, ended.mapping.map(|mapping| mapping.packets)));
    };
    work(&FlowTables { told: &tell, ..tables.view() });
    told.into_inner()
}

#[test]
fn each_removed_flow_is_told_once_with_its_reason_and_its_answers() {
    let tables = Tables::new(100);
    let (old, ..) = tables.put(1, NOW - 301 * SECOND, 5);
    let (idle, ..) = tables.put(2, NOW - 31 * SECOND, 1);
    let (alive, flow, mapping) = tables.put(3, NOW - SECOND, 5);
    let mut told =
        told_by(&tables, |view| assert_eq!(view.collect(NOW.into(), 90, &none(), none()).expect("a scan").flows, 1));
    told.sort();
    let expected = [(old, CloseReason::Expired, Some(4)), (idle, CloseReason::Evicted, Some(0))];
    assert_eq!(told, expected, "under pressure the idle one gives way");
    // A mapping that is another's by now says nothing of this flow.
    let other = Mapping { peer_port: 9, ..mapping };
    tables.mappings.put(&reply(&alive, &flow), &other).expect("room");
    let told = told_by(&tables, |view| assert_eq!(view.flush(&[flow.nat_addr].into()).expect("a flush"), 1));
    assert_eq!(told, [(alive, CloseReason::AddressChanged, None)]);
}

#[test]
fn a_sweep_asks_about_each_flow_of_an_older_policy_once_and_takes_what_is_revoked() {
    let tables = Tables::new(100);
    let later = || Instant::now() + Duration::from_secs(9);
    let flows: Vec<_> = (0..20).map(|number| tables.put(number, NOW, 2)).collect();
    // One has been judged by the current policy.
    tables.flows.put(&flows[0].0, &Flow { policy_generation: 7, ..flows[0].1 }).expect("room");
    let mut asked = HashSet::new();
    let mut questions = 0;
    let revoked = flows[5].0;
    let told = told_by(&tables, |view| {
        let mut ask = |key: &FlowKey| {
            questions += 1;
            Ok((*key == revoked).then_some(CloseReason::PolicyRevoked))
        };
        assert!(!view.sweep(7, (&mut asked, Instant::now()), false, &mut ask).expect("a sweep"), "no time for any");
        assert!(view.sweep(7, (&mut asked, later()), false, &mut ask).expect("a sweep"));
        assert!(view.sweep(7, (&mut asked, later()), false, &mut ask).expect("a sweep"), "nothing is left to ask");
    });
    assert_eq!((questions, told), (19, vec![(revoked, CloseReason::PolicyRevoked, Some(1))]));
    assert!(!tables.has(&revoked) && !tables.has_mapping(&reply(&revoked, &flows[5].1)));
    assert!(flows.iter().filter(|(key, ..)| *key != revoked).all(|(key, ..)| tables.has(key)));
}

#[test]
fn bytes_to_destinations_that_do_not_answer_are_summed_and_those_to_gateways_are_not() {
    let tables = Tables::new(8);
    let hops = Table::new::<u32, NextHop>(8).expect("a table");
    let flags = [NextHop::HEADER, 0, NextHop::V4, NextHop::GATEWAY, NextHop::GATEWAY | NextHop::HEADER];
    for (number, flags) in (1..).zip(flags) {
        update_all(hops.as_fd(), &[number], &[NextHop { flags, ..NextHop::default() }]).expect("an entry");
    }
    for number in 0..=6_u32 {
        let (key, flow) = flow(number, NOW, 1);
        // The last has no entry: the kernel finds its neighbour.
        let next_hop = if number == 6 { UNLISTED } else { number };
        let flow = Flow { next_hop, bytes: 10_u64.pow(number), ..flow };
        update_all(tables.flows.as_fd(), &[key], &[flow]).expect("a flow");
    }
    let view = FlowTables { next_hops: hops.as_fd(), ..tables.view() };
    assert_eq!(view.collect(NOW.into(), 0, &none(), none()).expect("a scan").silent_bytes, 1_000_000 + 1000 + 100);
}

#[test]
fn a_scan_of_a_full_table_takes_bounded_time() {
    let tables = Tables::new(peer_common::layout::DEFAULT_FLOWS);
    for number in 0..tables.max {
        tables.put(number, if number % 2 == 0 { NOW } else { NOW - 301 * SECOND }, 2);
    }
    let scan = tables.view().collect(NOW.into(), 0, &none(), none()).expect("a scan");
    eprintln!(
        "{} flows scanned, {} removed, in {:?}",
        scan.collected.scanned, scan.collected.expired, scan.collected.took
    );
    assert_eq!((scan.collected.scanned, scan.collected.expired, scan.flows), (131_072, 65_536, 65_536));
    assert!(scan.collected.took < Duration::from_secs(20), "the driver scans every few seconds");
}

#[test]
fn flows_towards_a_remote_with_scarce_ports_end_sooner_and_no_others() {
    let tables = Tables::new(100);
    let config = Config { hash_key: [1, 2], nat_port_count: 3, ..Config::default() };
    let mut known = PortCounts::new(&config);
    let (crowded, flow, _) = tables.put(1, NOW - 31 * SECOND, 1);
    let (quiet, ..) = tables.put(2, NOW - 31 * SECOND, 1);
    (0..3).for_each(|_| known.add(&crowded, &flow));
    let scan = tables.view().collect(NOW.into(), 0, &known, PortCounts::new(&config)).expect("a scan");
    assert_eq!((scan.collected.expired, scan.flows, scan.port_counts.busiest()), (1, 1, 1));
    assert!(!tables.has(&crowded) && tables.has(&quiet));
}

#[test]
fn a_sweep_leaves_connections_to_the_packet_that_ends_them() {
    let connection = || {
        let tables = Tables::new(100);
        let (key, flow) = flow(1, NOW, 2);
        let key = FlowKey { protocol: 6, ..key };
        let tcp_seen = TcpSeen::SYN | TcpSeen::ACK;
        let mapping =
            Mapping { peer_addr: key.src, peer_port: key.src_port, kind: flow.kind, tcp_seen, ..Mapping::default() };
        tables.flows.put(&key, &Flow { tcp_seen, ..flow }).expect("room");
        tables.mappings.put(&reply(&key, &flow), &mapping).expect("room");
        (tables, key)
    };
    let later = || Instant::now() + Duration::from_secs(9);
    for (why, pressure, stays) in [
        (CloseReason::PolicyRevoked, false, true),
        (CloseReason::RouteRemoved, false, true),
        (CloseReason::PeerRemoved, false, false),
        (CloseReason::PolicyRevoked, true, false),
    ] {
        let (tables, key) = connection();
        let told = told_by(&tables, |view| {
            assert!(view.sweep(7, (&mut HashSet::new(), later()), pressure, |_| Ok(Some(why))).expect("a sweep"));
        });
        assert_eq!((tables.has(&key), told.is_empty()), (stays, stays), "{why:?}, pressure: {pressure}");
    }
}

#[test]
fn flows_from_before_a_sleep_are_as_old_as_the_machine_slept_too() {
    let tables = Tables::new(100);
    // Both were seen a second ago on the programs' clock; between them the machine slept for ten minutes.
    let mut ages = crate::ebpf::ages::Ages::new(NOW - 2 * SECOND, NOW);
    let (before, ..) = tables.put(1, NOW - 2 * SECOND, 5);
    let (after, ..) = tables.put(2, NOW - SECOND, 5);
    let now = ages.look(NOW, NOW + 602 * SECOND);
    let scan = tables.view().collect(now, 0, &none(), none()).expect("a scan");
    assert_eq!((scan.collected.expired, scan.flows), (1, 1), "UDP lives for five minutes");
    assert!(tables.has(&after) && !tables.has(&before));
}
