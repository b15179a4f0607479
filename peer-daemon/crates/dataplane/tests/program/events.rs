//! What the programs tell of flows and packets, and that they tell no more than they may.

use std::net::IpAddr;

use peer_common::route::NO_ROUTE;
use peer_common::{Addr, Counter, DropReason, EventKind, FlowEvent, FlowKind, Judged, Observe, TraceFilter, Way};

use crate::bench::{accept_all, with_bench};
use crate::lab::{ETH0, NODE, OTHER, PEER, PEER6, SERVER, SERVER6, UPLINK};
use crate::packet::{echo_request, protocol, read, tcp, udp};
use crate::{Bench, REDIRECT, SHOT};

const FOREVER: u64 = u64::MAX;

/// Lets the programs tell, once a microsecond.
fn observe(bench: &mut Bench, what: u32) {
    bench.config(|config| (config.observe, config.event_interval) = (what, 1000));
}

fn only(bench: &mut Bench) -> FlowEvent {
    let mut events = bench.events();
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

fn follow_all() -> TraceFilter {
    TraceFilter { until: FOREVER, ..TraceFilter::default() }
}

#[test]
fn a_flow_that_opens_is_told_once_with_all_that_it_has() {
    with_bench(|bench| {
        observe(bench, Observe::FLOWS);
        let (_, out) = bench.arrive_from_mesh(&tcp((PEER, 1000), (SERVER, 80), true));
        bench.arrive_from_mesh(&tcp((PEER, 1000), (SERVER, 80), false));
        let event = only(bench);
        assert_eq!(event.event, EventKind::Opened as u8);
        let (key, flow) = bench.flows()[0];
        assert_eq!((event.key, event.created), (key, flow.created));
        assert!((0..1_000_000_000).contains(&(event.time - flow.created)), "told at once: {event:?}");
        assert_eq!((event.nat_addr, event.nat_port), (UPLINK.into(), read(&out).src.1.to_be()));
        assert_eq!((event.uplink, event.route_id, event.policy_id, event.peer_id), (ETH0, 0, 1, 1));
        assert_eq!((event.kind, event.mtu), (FlowKind::Masqueraded as u8, 1500));
        assert_eq!((event.packets, event.bytes), (0, 0), "its first packet is not counted yet");
    });
}

#[test]
fn flows_of_the_node_are_told_too() {
    with_bench(|bench| {
        observe(bench, Observe::FLOWS);
        bench.arrive_from_mesh(&udp((PEER, 1000), (NODE, 53)));
        bench.leave_to_mesh(&udp((NODE, 2000), (PEER, 53)));
        let events = bench.events();
        let kinds: Vec<u8> = events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [FlowKind::ToNode as u8, FlowKind::FromNode as u8]);
        assert_eq!(events[1].key.src, PEER.into(), "under the tuple that enters from the mesh");
        assert_eq!((events[0].route_id, events[0].policy_id, events[1].policy_id), (NO_ROUTE, 1, 0));
    });
}

#[test]
fn a_flow_that_a_program_forgets_is_told_with_its_counts() {
    with_bench(|bench| {
        let node = read(&bench.arrive_from_mesh(&udp((PEER, 1000), (SERVER, 53))).1).src;
        assert_eq!(bench.arrive_on_uplink(&udp((SERVER, 53), node)).0, REDIRECT);
        observe(bench, Observe::FLOWS);
        // The mapping goes to another, which the next packet finds.
        let (key, mapping) = bench.mappings()[0];
        bench.age_flows();
        bench.put_mapping(key, peer_common::Mapping { peer_addr: OTHER.into(), ..mapping });
        assert_eq!(bench.arrive_from_mesh(&udp((PEER, 1000), (SERVER, 53))).0, SHOT);
        let event = only(bench);
        assert_eq!((event.event, event.verdict), (EventKind::Closed as u8, DropReason::SourceChanged as u32 + 1));
        assert_eq!((event.packets, event.reply_packets), (1, 0), "what another's mapping counts is not its own");
        // The uplink gets another address: its own mapping is there to be counted.
        let node = read(&bench.arrive_from_mesh(&udp((PEER, 1001), (SERVER, 53))).1).src;
        assert_eq!(bench.arrive_on_uplink(&udp((SERVER, 53), node)).0, REDIRECT);
        bench.events();
        bench.uplink_addr4("198.51.100.9".parse().expect("an address"));
        bench.resolve_again();
        assert_eq!(bench.arrive_from_mesh(&udp((PEER, 1001), (SERVER, 53))).0, SHOT);
        let event = only(bench);
        assert_eq!((event.packets, event.reply_packets, event.reply_bytes > 0), (1, 1, true));
    });
}

#[test]
fn a_dropped_packet_is_told_with_reason_rule_and_tuple() {
    with_bench(|bench| {
        observe(bench, Observe::DROPS);
        bench.rules(&[accept_all(false)]);
        let mut truncated = udp((PEER, 1), (SERVER, 2));
        truncated.truncate(14 + 20 + 4);
        let nowhere: IpAddr = "192.0.2.1".parse().expect("an address");
        let cases = [
            (tcp((PEER, 1), (SERVER, 80), true), DropReason::PolicyDefault, Judged::New, 0),
            (tcp((PEER, 1), (nowhere, 80), true), DropReason::NoRoute, Judged::New, NO_ROUTE),
            (tcp((OTHER, 1), (SERVER, 80), true), DropReason::ForeignSource, Judged::New, NO_ROUTE),
            (protocol(PEER6, SERVER6, 132), DropReason::Protocol, Judged::New, 1),
            (truncated, DropReason::Malformed, Judged::Not, NO_ROUTE),
        ];
        for (packet, reason, judged, route) in cases {
            assert!(bench.refuses(&packet));
            let event = only(bench);
            assert_eq!((event.event, event.verdict), (EventKind::Dropped as u8, reason as u32 + 1));
            assert_eq!(
                (event.way, event.judged, event.route_id),
                (Way::FromMesh as u8, judged as u8, route),
                "{event:?}"
            );
            assert_eq!(event.key.protocol == 0, reason == DropReason::Malformed, "no tuple of a former packet");
        }
        let drop = crate::bench::PolicyRule { action: peer_core::desired::Action::Drop, id: 9, ..accept_all(true) };
        bench.rules(&[drop]);
        bench.arrive_from_mesh(&tcp((PEER, 1), (SERVER, 80), true));
        let event = only(bench);
        assert_eq!((event.verdict, event.policy_id), (DropReason::PolicyRule as u32 + 1, 9));
        assert!(event.identity != 0 && event.class != 0, "{event:?}");
    });
}

#[test]
fn a_dropped_answer_is_told_under_the_tuple_of_its_flow() {
    with_bench(|bench| {
        let node = read(&bench.arrive_from_mesh(&tcp((PEER, 1000), (SERVER, 80), true)).1).src;
        bench.rules(&[]);
        observe(bench, Observe::DROPS);
        let (_, reset) = bench.arrive_on_uplink(&tcp((SERVER, 80), node, false));
        assert_eq!(read(&reset).dst, (SERVER, 80), "the server gets a reset");
        let event = only(bench);
        assert_eq!((event.key.src, event.key.src_port), (PEER.into(), 1000_u16.to_be()));
        assert_eq!(
            (event.key.dst, event.way, event.judged),
            (SERVER.into(), Way::FromUplink as u8, Judged::Again as u8)
        );
        // The LAN towards the mesh, where no route keeps sources.
        assert_eq!(bench.leave_to_mesh(&udp((SERVER, 53), (PEER, 7))).0, SHOT);
        let event = only(bench);
        assert_eq!((event.key.src, event.way), (PEER.into(), Way::ToMesh as u8));
        assert_eq!(bench.leave_to_mesh(&udp(("192.0.2.7".parse().expect("an address"), 53), (PEER, 7))).0, SHOT);
        assert_eq!(only(bench).key.src, PEER.into(), "also before any route was found");
    });
}

#[test]
fn packets_that_are_followed_come_to_their_verdict_both_ways() {
    with_bench(|bench| {
        observe(bench, Observe::TRACE);
        let mask = Addr { words: [u32::MAX; 4] };
        let filter = TraceFilter {
            remote: SERVER.into(),
            remote_mask: mask,
            protocols: [6, 6],
            remote_port: 80_u16.to_be(),
            ..follow_all()
        };
        bench.follow(filter);
        let out = tcp((PEER, 1000), (SERVER, 80), true);
        let node = read(&bench.arrive_from_mesh(&out).1).src;
        let first = only(bench);
        assert_eq!((first.event, first.verdict, first.judged), (EventKind::Traced as u8, 0, Judged::New as u8));
        assert_eq!((first.uplink, first.policy_id, first.ttl, first.tcp_flags), (ETH0, 1, 64, 2));
        bench.arrive_from_mesh(&out);
        assert_eq!(only(bench).judged, Judged::Not as u8, "its flow is known");
        bench.arrive_on_uplink(&tcp((SERVER, 80), node, false));
        let back = only(bench);
        assert_eq!((back.key, back.way, back.verdict), (first.key, Way::FromUplink as u8, 0));
        bench.arrive_on_uplink(&tcp((SERVER, 80), (node.0, 9), false));
        let stray = only(bench);
        assert_eq!((stray.kind, stray.way, stray.key.src), (0, Way::Unmatched as u8, UPLINK.into()), "of no flow");
        for other in
            [tcp((PEER, 1000), (SERVER, 81), true), udp((PEER, 1000), (SERVER, 80)), echo_request(PEER, SERVER, 80)]
        {
            bench.arrive_from_mesh(&other);
            assert_eq!(bench.events(), []);
        }
        bench.rules(&[]);
        bench.arrive_from_mesh(&out);
        let last = only(bench);
        assert_eq!((last.judged, last.verdict), (Judged::Again as u8, DropReason::PolicyDefault as u32 + 1));
    });
}

#[test]
fn nobody_follows_for_ever() {
    with_bench(|bench| {
        observe(bench, Observe::TRACE);
        bench.follow(TraceFilter { until: 1, ..TraceFilter::default() });
        bench.arrive_from_mesh(&tcp((PEER, 1000), (SERVER, 80), true));
        assert_eq!(bench.events(), []);
        bench.follow(follow_all());
        bench.arrive_from_mesh(&tcp((PEER, 1000), (SERVER, 80), true));
        assert_eq!(bench.events().len(), 1);
    });
}

#[test]
fn nothing_is_told_that_nobody_wants() {
    with_bench(|bench| {
        for what in [Observe::DROPS | Observe::TRACE, 0] {
            observe(bench, what);
            bench.clear();
            bench.arrive_from_mesh(&tcp((PEER, 1000), (SERVER, 80), true));
        }
        bench.arrive_from_mesh(&tcp((OTHER, 1000), (SERVER, 80), true));
        assert_eq!(bench.events(), []);
    });
}

#[test]
fn what_is_too_much_is_counted_and_flows_do_not_suffer_from_drops() {
    with_bench(|bench| {
        const INTERVAL: u32 = u32::MAX;
        bench.config(|config| {
            (config.observe, config.event_interval) = (Observe::DROPS | Observe::FLOWS, INTERVAL);
        });
        let dropped = tcp((OTHER, 1000), (SERVER, 80), true);
        let told = (0..1500).map(|_| bench.arrive_from_mesh(&dropped)).count();
        let events = bench.events().len() as u64;
        let limited = bench.counter(Counter::EventsLimited);
        assert_eq!(events + limited, told as u64);
        assert!((1024..1500).contains(&events), "{events} were told at once, by each processor that ran it");
        bench.arrive_from_mesh(&tcp((PEER, 1000), (SERVER, 80), true));
        assert_eq!(only(bench).event, EventKind::Opened as u8);
    });
}

#[test]
fn what_nobody_reads_is_lost_and_counted() {
    with_bench(|bench| {
        observe(bench, Observe::DROPS);
        let dropped = tcp((OTHER, 1000), (SERVER, 80), true);
        for _ in 0..10_000 {
            assert_eq!(bench.arrive_from_mesh(&dropped).0, SHOT);
            if bench.counter(Counter::EventsLost) > 10 {
                break;
            }
        }
        let (lost, read) = (bench.counter(Counter::EventsLost), bench.events().len() as u64);
        let limited = bench.counter(Counter::EventsLimited);
        assert!(lost > 10 && read > 1000, "{lost} lost, {read} read");
        assert_eq!(lost + read + limited, bench.drops(DropReason::ForeignSource));
    });
}
