//! Random packets in random order through the real programs and through the reference: same verdict, same bytes, same
//! counters, same flows. `PEER_SEED` plays one sequence
//! again, `PEER_SEQUENCES` plays more of them.

mod packets;
mod random;
mod rules;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use peer_common::layout::program;
use peer_common::route::{NO_ROUTE, Route};
use peer_common::{
    Addr, Config, Counter, DropReason, FlowEvent, FlowKey, FlowKind, LocalKind, Mapping, PacketCount, TcpSeen,
    TcpWindow,
};
use peer_dataplane::observe::drop_reason;

use self::random::Random;
use crate::bench::with_bench;
use crate::lab::{ETH0, NODE, NODE6, UPLINK, UPLINK6};
use crate::reference::parse::{Tuple, parse};
use crate::reference::ports::Times;
use crate::reference::{BROADCAST, Network, Outcome, RefRoute, Reference, reply_of};
use crate::wire::{self, ETH, ICMP, ICMPV6, TCP, header, is_readable};
use crate::{Bench, REDIRECT, SHOT, UNSPEC};

const SEQUENCES: u64 = 400;
/// Fewer than the burst of errors of our own: its refill depends on the clock.
const PACKETS: usize = 45;

#[test]
fn random_packets_fare_as_the_reference_says() {
    with_bench(|bench| {
        prepare(bench);
        let seeds = match std::env::var("PEER_SEED") {
            Ok(seed) => vec![seed.parse().expect("a number")],
            Err(_) => (0..sequences()).collect(),
        };
        let mut met = BTreeMap::new();
        for seed in seeds {
            // The programs look after a mapping once a second, the reference when it is told: a sequence must be quicker.
            let in_time = (0..20).any(|_| Sequence::new(bench, seed, &mut met).run());
            assert!(in_time, "PEER_SEED={seed}: the machine is too slow");
        }
        eprintln!("outcomes: {met:?}");
        if std::env::var("PEER_SEED").is_err() {
            assert_covered(&met);
        }
    });
}

fn sequences() -> u64 {
    std::env::var("PEER_SEQUENCES").map_or(SEQUENCES, |count| count.parse().expect("a number"))
}

/// Every counter and every drop reason that a packet can cause must have been met, or the test shows less than it says.
fn assert_covered(met: &Counts) {
    let impossible = [
        Counter::PortSockets.name(),      // a test of its own: the reference has no sockets
        Counter::NextHopsUnlisted.name(), // a test of its own, as all of next hops
        Counter::NextHopsMade.name(),
        Counter::FibLookups.name(),
        DropReason::SilentNeighbours.name(),
        DropReason::HostUnreachable.name(),
        Counter::FragmentsLimited.name(), // a test of its own: it depends on the clock
        Counter::EventsLimited.name(),    // a test of its own: nobody listens here
        Counter::EventsLost.name(),
        DropReason::Unreachable.name(),
        DropReason::NoSourceAddress.name(),
        DropReason::TableFull.name(),
        DropReason::Rewrite.name(),
        DropReason::Unjudged.name(), // of the second program on wt0: a scenario
        DropReason::Internal.name(),
    ];
    let names = Counter::ALL.iter().map(|counter| counter.name());
    let names = names.chain(DropReason::ALL.iter().map(|reason| reason.name()));
    let missing: Vec<_> = names.filter(|name| !met.contains_key(name) && !impossible.contains(name)).collect();
    assert!(missing.is_empty(), "never met: {missing:?}");
    assert!(met.get("described").is_some_and(|count| *count > 1000), "descriptions were compared");
}

fn prepare(bench: &mut Bench) {
    for (text, len, id) in [("100.64.0.3", 32, 2), ("100.64.8.0", 24, 2), ("fd00:64::3", 128, 2)] {
        bench.peer(packets::addr(text), len, id);
    }
    let nowhere = 99;
    bench.route(packets::addr("2001:db8:3::"), 64, 3, 0);
    bench.route_by(packets::addr("198.18.0.0"), 24, 4, 0, nowhere);
    bench.route_by(packets::addr("198.18.1.0"), 24, 5, Route::MASQUERADE, nowhere);
    bench.route_by(packets::addr("169.254.169.254"), 32, 6, Route::MASQUERADE, ETH0);
    bench.listener(17, 51820);
    bench.listener(6, 8080);
}

fn network(random: &mut Random) -> Network {
    let route = |text, id, masquerade, served| RefRoute { destination: rules::net(text), id, masquerade, served };
    let peers = [
        ("100.64.0.2/32", 1),
        ("fd00:64::2/128", 1),
        ("100.64.0.3/32", 2),
        ("100.64.8.0/24", 2),
        ("fd00:64::3/128", 2),
    ];
    Network {
        peers: peers.map(|(text, id)| (rules::net(text), id)).to_vec(),
        routes: vec![
            route("198.51.100.0/24", 0, true, true),
            route("2001:db8:2::/64", 1, true, true),
            route("203.0.113.0/24", 2, false, true),
            route("2001:db8:3::/64", 3, false, true),
            route("198.18.0.0/24", 4, false, false),
            route("198.18.1.0/24", 5, true, false),
            route("169.254.169.254/32", 6, true, true),
        ],
        protect_node: random.one_in(3),
        locals: [(NODE, true), (NODE6, true), (UPLINK, false), (UPLINK6, false)].into(),
        listeners: [(17, 51820), (6, 8080)].into(),
        overlay: [NODE, NODE6],
        uplink: [UPLINK, UPLINK6],
        hash_key: [random.next(), random.next()],
        ports: (20480, random.pick(&[3, 7, 9511])),
        quota: random.pick(&[4, u32::MAX, u32::MAX]),
        reject: random.one_in(3),
        wt0_mtu: random.pick(&[1280, 1420]),
        uplink_mtu: random.pick(&[1500, 1300]),
    }
}

/// One sequence of packets.
struct Sequence<'a> {
    bench: &'a mut Bench,
    reference: Reference,
    random: Random,
    seed: u64,
    started: Instant,
    /// All want the same endpoint: ports run out.
    crowded: bool,
    /// What went out of the uplink, and into the mesh: ICMP errors speak of it.
    out: Vec<Outcome>,
    back: Vec<Outcome>,
    /// Counters and drop reasons met so far, by all sequences.
    met: &'a mut Counts,
}

impl<'a> Sequence<'a> {
    fn new(bench: &'a mut Bench, seed: u64, met: &'a mut Counts) -> Self {
        let mut random = Random(seed);
        let network = network(&mut random);
        bench.clear();
        for own in [UPLINK, UPLINK6] {
            bench.local(own, if network.protect_node { LocalKind::Protected } else { LocalKind::Node });
        }
        bench.local(packets::addr(BROADCAST), LocalKind::Broadcast);
        bench.uplink_mtu(network.uplink_mtu as u32);
        bench.config(|config| {
            config.hash_key = network.hash_key;
            config.wt0_mtu = network.wt0_mtu as u32;
            (config.nat_port_min, config.nat_port_count) = network.ports;
            config.peer_quota = network.quota;
            config.answers = if network.reject { Config::REJECT } else { 0 };
        });
        let started = Instant::now();
        let reference = Reference::new(network);
        let crowded = random.one_in(4);
        let mut sequence =
            Self { bench, reference, random, seed, started, crowded, out: Vec::new(), back: Vec::new(), met };
        sequence.change_rules();
        sequence
    }

    /// `false`: it took too long to be compared to its end.
    fn run(mut self) -> bool {
        for step in 0..PACKETS {
            self.step(step);
        }
        self.compare_tables();
        self.in_time()
    }

    fn in_time(&self) -> bool {
        self.started.elapsed() < Duration::from_millis(800)
    }

    fn step(&mut self, step: usize) {
        match self.random.below(40) {
            0 => self.change_rules(),
            1 => self.age(),
            2 => self.lose_mapping(),
            3..=17 => {
                let frame =
                    if self.crowded { packets::crowd(&mut self.random) } else { packets::from_mesh(&mut self.random) };
                self.mesh(step, frame);
            }
            18..=20 => self.again(step),
            21..=29 => {
                if let Some(frame) = packets::reply(&mut self.random, &self.reference) {
                    self.uplink(step, frame);
                }
            }
            30..=32 => {
                if let Some(frame) = packets::error(&mut self.random, &self.out) {
                    self.uplink(step, frame);
                }
            }
            33..=35 => {
                if let Some(frame) = packets::error(&mut self.random, &self.back) {
                    self.mesh(step, frame);
                }
            }
            36 => {
                let frame = packets::stray(&mut self.random);
                self.uplink(step, frame);
            }
            _ => self.node(step),
        }
    }

    /// Another packet of a flow that stands.
    fn again(&mut self, step: usize) {
        let flows: Vec<Tuple> = self.reference.flows.keys().copied().collect();
        if flows.is_empty() {
            return;
        }
        let tuple = self.random.pick(&flows);
        let frame = packets::carrying(&mut self.random, tuple, true);
        self.mesh(step, frame);
    }

    fn mesh(&mut self, step: usize, frame: Vec<u8>) {
        let outcome = self.compare(step, program::TEST_WT0_INGRESS, frame);
        self.out.push(outcome);
    }

    fn uplink(&mut self, step: usize, frame: Vec<u8>) {
        let outcome = self.compare(step, program::UPLINK_INGRESS, frame);
        self.back.push(outcome);
    }

    fn node(&mut self, step: usize) {
        let frame = packets::to_mesh(&mut self.random);
        let outcome = self.compare(step, program::TEST_WT0_EGRESS, frame);
        self.back.push(outcome);
    }

    fn compare(&mut self, step: usize, program: &'static str, mut frame: Vec<u8>) -> Outcome {
        self.number(program, &mut frame);
        packets::disturb(&mut self.random, &mut frame);
        let gso = self.gso(&frame);
        let before = (self.bench.counters(), self.bench.drop_counts());
        let described = (program == program::TEST_WT0_INGRESS && gso == 0).then(|| self.bench.describe(&frame));
        self.reference.times = self.times();
        let (verdict, bytes) = self.bench.run_segmented(program, &frame, gso as u32);
        let expected = match program {
            program::TEST_WT0_INGRESS => self.reference.arrive_from_mesh(&frame, gso),
            program::UPLINK_INGRESS => self.reference.arrive_on_uplink(&frame, gso),
            _ => self.reference.leave_to_mesh(&frame, gso),
        };
        let found = match verdict {
            UNSPEC => Outcome::Next(bytes),
            REDIRECT => Outcome::Redirect(bytes),
            SHOT => Outcome::Drop,
            other => panic!("verdict {other}"),
        };
        let what = format!("PEER_SEED={} step {step}, {program}, gso {gso}:\n{frame:02x?}", self.seed);
        let (counted, dropped) = self.counted(&before);
        if !self.in_time() {
            return expected;
        }
        let told = (std::mem::take(&mut self.reference.counters), std::mem::take(&mut self.reference.drops));
        assert_eq!((&counted, &dropped), (&told.0, &told.1), "counters (program, reference) of {what}");
        assert_eq!(found, expected, "outcome (program, reference) of {what}");
        if let Some(described) = described {
            self.compare_description(&described, &frame, &dropped, &what);
        }
        let drops = dropped.into_iter().map(|(name, count)| (name, count.0));
        for (name, count) in counted.into_iter().chain(drops) {
            *self.met.entry(name).or_default() += count;
        }
        expected
    }

    /// Gives a TCP segment numbers by what its connection has shown.
    fn number(&mut self, program: &'static str, frame: &mut [u8]) {
        let Some(parsed) = parse(&frame[ETH..]) else { return };
        let tuple = parsed.tuple;
        let reference = &self.reference;
        let (own, other) = if program == program::TEST_WT0_INGRESS {
            let flow = reference.flows.get(&tuple);
            let mapping = flow.and_then(|flow| reference.mappings.get(&reply_of(tuple, flow.nat)));
            (flow.map(|flow| flow.tcp), mapping.map(|mapping| mapping.tcp))
        } else {
            let mapping = reference.mappings.get(&tuple);
            let asked = mapping.map(|mapping| Tuple { src: mapping.peer, dst: tuple.src, protocol: tuple.protocol });
            let flow = asked.and_then(|asked| reference.flows.get(&asked));
            (mapping.map(|mapping| mapping.tcp), flow.map(|flow| flow.tcp))
        };
        packets::number(&mut self.random, frame, own.unwrap_or_default(), other.unwrap_or_default());
    }

    /// What the description of the packet said must have come true. Errors of ICMP are none of the packets that it is for.
    fn compare_description(&mut self, described: &FlowEvent, frame: &[u8], dropped: &Drops, what: &str) {
        let l3 = &frame[ETH..];
        let is_icmp = |protocol| matches!(protocol, ICMP | ICMPV6);
        let is_error = is_readable(l3) && is_icmp(header(l3).protocol) && {
            let at = header(l3).l4;
            l3.get(at).is_some_and(|kind| wire::is_error(header(l3).protocol, *kind))
        };
        if is_error {
            return;
        }
        let reason = drop_reason(described.verdict).map(DropReason::name);
        assert_eq!(reason, dropped.keys().next().copied(), "described and real drop of {what}");
        let flow = self.bench.flows().into_iter().find(|(key, _)| *key == described.key);
        if described.verdict == 0 && described.kind != 0 {
            let (_, flow) = flow.unwrap_or_else(|| panic!("described, but not there: the flow of {what}"));
            let hop = self.bench.next_hop(flow.next_hop);
            let found = (flow.nat_addr, flow.nat_port, flow.route_id, flow.policy_id, hop.uplink, flow.kind, hop.mtu);
            let route = if described.kind == FlowKind::ToNode as u8 { NO_ROUTE } else { described.route_id };
            let nat = match described.uplink {
                0 => (flow.nat_addr, flow.nat_port),
                _ => (described.nat_addr, described.nat_port),
            };
            let said = (nat.0, nat.1, route, described.policy_id, described.uplink, described.kind, described.mtu);
            assert_eq!(found, said, "the flow as it is, and as it was described: {what}");
        }
        *self.met.entry("described").or_default() += 1;
    }

    /// What the programs counted since `before`.
    fn counted(&mut self, before: &(Vec<u64>, Vec<PacketCount>)) -> (Counts, Drops) {
        let counters = self.bench.counters().into_iter().zip(&before.0).map(|(after, before)| after - before);
        // The reference has no next hops: it is told by which device a route leaves.
        let hops = [Counter::FibLookups, Counter::NextHopsMade].map(Counter::name);
        let counters = Counter::ALL.iter().map(|counter| counter.name()).zip(counters);
        let counters = counters.filter(|(name, count)| *count > 0 && !hops.contains(name));
        let drops = self.bench.drop_counts();
        let drops =
            drops.iter().zip(&before.1).map(|(after, old)| (after.packets - old.packets, after.bytes - old.bytes));
        let drops = DropReason::ALL.iter().map(|reason| reason.name()).zip(drops).filter(|(_, count)| count.0 > 0);
        (counters.collect(), drops.collect())
    }

    /// TCP may come in super-packets.
    fn gso(&mut self, frame: &[u8]) -> usize {
        let l3 = &frame[ETH..];
        let is_tcp = is_readable(l3) && header(l3).protocol == TCP && !header(l3).is_fragment;
        if is_tcp && l3.len() > 400 && self.random.one_in(2) { self.random.pick(&[200, 536, 1300, 1460]) } else { 0 }
    }

    fn change_rules(&mut self) {
        let rules = rules::random(&mut self.random);
        self.bench.desired_rules(&rules);
        self.reference.rules = rules;
        self.reference.generation += 1;
    }

    fn age(&mut self) {
        // Past a second, past the wait for an answer, past TIME-WAIT.
        let seconds = self.random.pick(&[2, 2, 31, 61]);
        self.bench.age(seconds);
        self.reference.age();
    }

    /// Times as the tables have them: the reference has no clock.
    fn times(&mut self) -> Times {
        let flows = self.bench.flows().into_iter();
        let mappings = self.bench.mappings().into_iter();
        Times {
            now: crate::sys::monotonic_coarse(),
            flows: flows.map(|(key, flow)| (tuple(&key), flow.last_seen)).collect(),
            mappings: mappings.map(|(key, mapping)| (tuple(&key), mapping.last_seen)).collect(),
        }
    }

    /// A mapping vanishes under its flow, or becomes another's.
    fn lose_mapping(&mut self) {
        self.age();
        let replies: Vec<Tuple> = self.reference.mappings.keys().copied().collect();
        if replies.is_empty() {
            return;
        }
        let reply = self.random.pick(&replies);
        if self.random.one_in(2) {
            self.reference.mappings.remove(&reply);
            self.bench.forget_mapping(&key(reply));
            return;
        }
        let other = if reply.src.0.is_ipv4() { "100.64.8.8" } else { "fd00:64::3" };
        let (addr, port) = (packets::addr(other), 4000_u16);
        self.reference.mappings.get_mut(&reply).expect("picked").peer = (addr, port);
        let mappings = self.bench.mappings();
        let (key, mapping) = mappings.into_iter().find(|(found, _)| *found == key(reply)).expect("compared");
        self.bench.put_mapping(key, Mapping { peer_addr: addr.into(), peer_port: port.to_be(), ..mapping });
    }

    fn compare_tables(&mut self) {
        if !self.in_time() {
            return;
        }
        let seed = self.seed;
        let flows: BTreeMap<FlowKey, _> =
            self.bench.flows().into_iter().map(|(key, flow)| (key, flow_view(&flow))).collect();
        let told = self.reference.flows.iter().map(|(&tuple, flow)| {
            let (seen, tcp) = flow.tcp.stored();
            let seen = if flow.timestamp.is_some() { seen | TcpSeen::TIMESTAMP } else { seen };
            let nat = (Addr::from(flow.nat.0), flow.nat.1, flow.kind as u8, seen, tcp);
            (key(tuple), (nat, flow.timestamp, flow.packets, flow.bytes, flow.peer, flow.by_uplink))
        });
        assert_eq!(flows, told.collect(), "flows (program, reference) of PEER_SEED={seed}");
        let mappings: BTreeMap<FlowKey, _> =
            self.bench.mappings().into_iter().map(|(key, mapping)| (key, mapping_view(&mapping))).collect();
        let told = self.reference.mappings.iter().map(|(&tuple, mapping)| {
            let (seen, tcp) = mapping.tcp.stored();
            let peer = (Addr::from(mapping.peer.0), mapping.peer.1, mapping.kind as u8, seen, tcp);
            (key(tuple), (peer, mapping.packets, mapping.bytes))
        });
        assert_eq!(mappings, told.collect(), "mappings (program, reference) of PEER_SEED={seed}");
    }
}

/// Packets by counter.
type Counts = BTreeMap<&'static str, u64>;
/// Packets and bytes by reason.
type Drops = BTreeMap<&'static str, (u64, u64)>;

type View = (Addr, u16, u8, u8, TcpWindow);

fn flow_view(flow: &peer_common::Flow) -> (View, Option<u32>, u64, u64, u32, bool) {
    let view = (flow.nat_addr, u16::from_be(flow.nat_port), flow.kind, flow.tcp_seen, flow.tcp);
    let timestamp = (flow.tcp_seen & TcpSeen::TIMESTAMP != 0).then_some(flow.tcp_timestamp);
    (view, timestamp, flow.packets, flow.bytes, flow.peer_id, flow.next_hop != 0)
}

fn mapping_view(mapping: &Mapping) -> (View, u64, u64) {
    let view = (mapping.peer_addr, u16::from_be(mapping.peer_port), mapping.kind, mapping.tcp_seen, mapping.tcp);
    (view, mapping.packets, mapping.bytes)
}

fn tuple(key: &FlowKey) -> Tuple {
    Tuple {
        src: (key.src.into(), u16::from_be(key.src_port)),
        dst: (key.dst.into(), u16::from_be(key.dst_port)),
        protocol: key.protocol as u8,
    }
}

fn key(tuple: Tuple) -> FlowKey {
    FlowKey {
        src: tuple.src.0.into(),
        dst: tuple.dst.0.into(),
        src_port: tuple.src.1.to_be(),
        dst_port: tuple.dst.1.to_be(),
        protocol: tuple.protocol.into(),
    }
}
