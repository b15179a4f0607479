//! Ports towards one service run out: whose is taken, whose is not, and how many each peer may have.

use std::net::IpAddr;

use peer_common::{Counter, DropReason, EventKind, Flow, FlowKey, Mapping, Observe, TcpSeen};

use crate::bench::with_bench;
use crate::lab::{FAMILIES, Family};
use crate::packet::{read, udp};
use crate::wire::{ETH, Ip, TCP, header, tcp_payload};
use crate::{Bench, REDIRECT};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A service, two peers, and as many ports as the test says.
struct Service<'a> {
    bench: &'a mut Bench,
    family: Family,
}

impl Service<'_> {
    /// A segment of the connection from a peer's port. Returns the port after NAT; `None`: it was dropped.
    fn out(&mut self, peer: IpAddr, port: u16, flags: u8, options: &[u8]) -> Option<u16> {
        let frame = segment((peer, port), (self.family.server, 443), flags, options);
        passed(self.bench.arrive_from_mesh(&frame), peer)
    }

    fn syn(&mut self, peer: IpAddr, port: u16) -> Option<u16> {
        self.out(peer, port, SYN, &[])
    }

    /// The server's segment to a port of the node.
    fn back(&mut self, nat: u16, flags: u8) {
        let frame = segment((self.family.server, 443), (self.family.uplink, nat), flags, &[]);
        assert_eq!(self.bench.arrive_on_uplink(&frame).0, REDIRECT, "drops: {:?}", self.bench.all_drops());
    }

    fn establish(&mut self, peer: IpAddr, port: u16) -> u16 {
        let nat = self.syn(peer, port).expect("a port");
        self.back(nat, SYN | ACK);
        assert_eq!(self.out(peer, port, ACK, &[]), Some(nat));
        nat
    }

    /// A connection that both have closed, the server first unless `by_client`. What the programs note of who was first, and of
    /// timestamps, is written by hand.
    fn closed(&mut self, peer: IpAddr, port: u16, by_client: bool, timestamp: Option<u32>) -> u16 {
        let nat = self.establish(peer, port);
        self.back(nat, FIN | ACK);
        assert_eq!(self.out(peer, port, FIN | ACK, &[]), Some(nat));
        self.back(nat, ACK);
        let (key, flow, reply, mapping) = self.entry(peer, port);
        let first = |is: bool| if is { TcpSeen::FIN_FIRST } else { 0 };
        let known = TcpSeen::SYN | TcpSeen::ACK | TcpSeen::FIN;
        let tcp_seen = flow.tcp_seen & known | first(by_client) | timestamp.map_or(0, |_| TcpSeen::TIMESTAMP);
        self.bench.put_flow(key, Flow { tcp_seen, tcp_timestamp: timestamp.unwrap_or(0), ..flow });
        let tcp_seen = mapping.tcp_seen & known | first(!by_client);
        self.bench.put_mapping(reply, Mapping { tcp_seen, ..mapping });
        nat
    }

    fn entry(&mut self, peer: IpAddr, port: u16) -> (FlowKey, Flow, FlowKey, Mapping) {
        let mut flows = self.bench.flows().into_iter();
        let (key, flow) =
            flows.find(|(key, _)| IpAddr::from(key.src) == peer && key.src_port == port.to_be()).expect("the flow");
        let reply = key.reply_key(flow.nat_addr, flow.nat_port);
        let mut mappings = self.bench.mappings().into_iter();
        (key, flow, reply, mappings.find(|(key, _)| *key == reply).expect("its mapping").1)
    }

    /// As many flows as mappings, ports and the peer's count say.
    fn assert_counted(&mut self, expected: usize) {
        let flows = self.bench.flows();
        assert_eq!((flows.len(), self.bench.mappings().len()), (expected, expected));
        for (key, flow) in &flows {
            let of_peer = flows.iter().filter(|(_, other)| other.peer_id == flow.peer_id).count();
            assert_eq!(self.bench.ports(key, flow), (expected as u32, of_peer as u32));
            assert_eq!(self.bench.peer_flows(flow.peer_id), of_peer as u32);
        }
    }
}

fn segment(src: (IpAddr, u16), dst: (IpAddr, u16), flags: u8, options: &[u8]) -> Vec<u8> {
    Ip::new(src.0, dst.0, TCP).frame(&tcp_payload(src, dst, flags, options, b""))
}

/// The options of a SYN of Linux: segment size, selective acknowledgements, timestamp, no-operation, window scale.
fn linux_options(timestamp: u32) -> Vec<u8> {
    let mut options = vec![2, 4, 0x05, 0x64, 4, 2, 8, 10];
    options.extend(timestamp.to_be_bytes());
    options.extend([0, 0, 0, 0, 1, 3, 3, 7]);
    options
}

/// Runs `test` in each family, with a range of `ports` and two peers.
fn with_service(ports: u16, test: impl Fn(&mut Service<'_>) + Send + 'static) {
    with_bench(move |bench| {
        bench.config(|config| config.nat_port_count = ports);
        for family in FAMILIES {
            bench.peer(family.other, if family.other.is_ipv4() { 32 } else { 128 }, 2);
            test(&mut Service { bench, family });
            bench.clear();
        }
    });
}

/// The port after NAT of a packet of `peer`; `None`: it went no further, be the peer told or not.
fn passed((verdict, frame): (i32, Vec<u8>), peer: IpAddr) -> Option<u16> {
    (verdict == REDIRECT && header(&frame[ETH..]).dst != peer).then(|| read(&frame).src.1)
}

#[test]
fn the_oldest_unanswered_syn_gives_its_port_away() {
    with_service(3, |service| {
        let Family { peer, other, .. } = service.family;
        let reused = service.bench.counter(Counter::PortsReused);
        let mut ports = Vec::new();
        for port in [4000, 4001, 4002] {
            ports.push(service.syn(peer, port).expect("a free port"));
            service.bench.age(10);
        }
        assert_eq!(service.syn(other, 5000), Some(ports[0]));
        assert_eq!(service.syn(other, 5001), Some(ports[0]), "it has its share: its own, fresh as it is");
        assert_eq!(service.syn(peer, 4003), Some(ports[1]), "its own, too");
        assert_eq!(service.bench.counter(Counter::PortsReused) - reused, 3);
        service.assert_counted(3);
    });
}

#[test]
fn a_syn_whose_answer_is_on_its_way_is_taken_last() {
    with_service(3, |service| {
        let Family { peer, other, .. } = service.family;
        let old = service.establish(peer, 4000);
        service.back(old, RST | ACK);
        service.bench.age(3);
        service.syn(peer, 4001).expect("a port");
        service.syn(peer, 4002).expect("a port");
        assert_eq!(service.syn(other, 5000), Some(old), "the reset connection, not a fresh SYN");
    });
}

#[test]
fn established_connections_keep_their_ports() {
    with_service(3, |service| {
        let Family { peer, other, .. } = service.family;
        let before = [DropReason::PortsExhausted, DropReason::PortShare].map(|reason| service.bench.drops(reason));
        let ports = [4000, 4001, 4002].map(|port| service.establish(peer, port));
        // Half-closed is alive.
        service.back(ports[0], FIN | ACK);
        service.bench.age(1000);
        assert_eq!(service.syn(other, 5000), None);
        assert_eq!(service.syn(peer, 4003), None);
        let after = [DropReason::PortsExhausted, DropReason::PortShare].map(|reason| service.bench.drops(reason));
        assert_eq!([after[0] - before[0], after[1] - before[1]], [1, 1]);
        assert_eq!([4000, 4001, 4002].map(|port| service.out(peer, port, ACK, &[]).expect("alive")), ports);
    });
}

#[test]
fn what_the_client_closed_first_is_taken_from_anybody() {
    with_service(3, |service| {
        let Family { peer, other, .. } = service.family;
        let closed = service.closed(peer, 4000, true, None);
        service.bench.age(3);
        service.establish(peer, 4001);
        service.establish(peer, 4002);
        assert_eq!(service.syn(other, 5000), Some(closed));
        service.assert_counted(3);
    });
}

#[test]
fn a_server_in_time_wait_is_not_met_without_proof() {
    with_service(3, |service| {
        let Family { peer, other, .. } = service.family;
        let closed = service.closed(peer, 4000, false, Some(1000));
        service.establish(peer, 4001);
        service.establish(peer, 4002);
        service.bench.age(50);
        assert_eq!(service.syn(other, 5000), None, "no timestamp");
        assert_eq!(service.out(other, 5001, SYN, &linux_options(1000)), None, "not later");
        assert_eq!(service.syn(peer, 4003), None, "nor may the same peer");
        assert_eq!(service.out(peer, 4004, SYN, &linux_options(1001)), Some(closed), "the server must accept it");
    });
    with_service(3, |service| {
        let Family { peer, other, .. } = service.family;
        let closed = service.closed(peer, 4000, false, None);
        service.establish(peer, 4001);
        service.establish(peer, 4002);
        service.bench.age(50);
        assert_eq!(service.out(other, 5001, SYN, &linux_options(u32::MAX)), None, "the old one had no timestamp");
        service.bench.age(10);
        assert_eq!(service.syn(other, 5002), Some(closed), "it is over");
    });
}

#[test]
fn a_peer_that_has_its_share_takes_its_own_closed_connection() {
    with_service(7, |service| {
        let Family { peer, other, .. } = service.family;
        let theirs = service.closed(other, 5000, true, None);
        service.bench.age(100);
        let own = service.closed(peer, 4000, true, None);
        service.bench.age(3);
        for port in 4001..4005 {
            service.establish(peer, port);
        }
        assert_eq!(service.syn(peer, 4100), Some(own), "not another's older one, nor the free port");
        assert_eq!(service.syn(other, 5001), Some(theirs));
    });
}

#[test]
fn only_a_syn_takes_a_port() {
    with_service(3, |service| {
        let Family { peer, other, .. } = service.family;
        for port in [4000, 4001, 4002] {
            service.syn(peer, port).expect("a port");
        }
        service.bench.age(100);
        for flags in [ACK, FIN | ACK, SYN | ACK, RST] {
            assert_eq!(service.out(other, 5000, flags, &[]), None);
        }
        assert!(service.syn(other, 5000).is_some());
    });
}

#[test]
fn an_answered_datagram_keeps_its_port_and_an_old_unanswered_one_does_not() {
    with_service(3, |service| {
        let Family { peer, other, server, uplink, .. } = service.family;
        let send =
            |bench: &mut Bench, src: (IpAddr, u16)| passed(bench.arrive_from_mesh(&udp(src, (server, 53))), src.0);
        let ports = [4000, 4001, 4002].map(|port| send(service.bench, (peer, port)).expect("a free port"));
        for nat in &ports[1..] {
            assert_eq!(service.bench.arrive_on_uplink(&udp((server, 53), (uplink, *nat))).0, REDIRECT);
        }
        service.bench.age(29);
        assert_eq!(send(service.bench, (other, 5000)), None);
        service.bench.age(2);
        assert_eq!(send(service.bench, (other, 5000)), Some(ports[0]));
        service.bench.age(290);
        assert_eq!(send(service.bench, (peer, 4003)), None, "its own two were answered");
    });
}

#[test]
fn each_peer_has_a_share_once_ports_are_scarce() {
    // 17 ports: scarce from 13 on, a share is 2.
    with_service(17, |service| {
        let Family { peer, other, .. } = service.family;
        for port in 0..13 {
            service.establish(peer, 4000 + port);
        }
        let before = service.bench.drops(DropReason::PortShare);
        assert_eq!(service.syn(peer, 4100), None);
        assert_eq!(service.bench.drops(DropReason::PortShare), before + 1);
        service.establish(other, 5000);
        service.establish(other, 5001);
        assert_eq!(service.syn(other, 5002), None, "that was its share");
        service.assert_counted(15);
        // Another service has ports of its own.
        let frame = segment((peer, 4100), (service.family.server, 444), SYN, &[]);
        assert_eq!(service.bench.arrive_from_mesh(&frame).0, REDIRECT);
    });
}

#[test]
fn a_flood_of_one_peer_leaves_ports_for_the_others() {
    with_service(2003, |service| {
        let Family { peer, other, .. } = service.family;
        for port in 0..2103 {
            assert!(service.syn(peer, 10_000 + port).is_some(), "its own oldest SYN gives way: {port}");
        }
        for port in 0..20 {
            assert!(service.syn(other, 5000 + port).is_some(), "connection {port} of another peer");
        }
        let [mine, theirs] = [1, 2].map(|id| service.bench.peer_flows(id));
        assert_eq!((mine, theirs), (1503, 20), "three quarters, then nothing but its own");
    });
}

#[test]
fn the_flow_that_lost_its_port_is_told_of_and_forgotten() {
    with_service(3, |service| {
        let Family { peer, other, .. } = service.family;
        service.bench.config(|config| config.observe = Observe::FLOWS);
        service.bench.events();
        for port in [4000, 4001, 4002] {
            service.syn(peer, port).expect("a port");
        }
        service.bench.age(5);
        service.syn(other, 5000).expect("a port");
        let closed: Vec<_> =
            service.bench.events().into_iter().filter(|event| event.event == EventKind::Closed as u8).collect();
        assert_eq!(closed.len(), 1);
        assert_eq!(closed[0].verdict, DropReason::PortsExhausted as u32 + 1);
        assert_eq!(IpAddr::from(closed[0].key.src), peer);
        assert!(!service.bench.flows().iter().any(|(key, _)| *key == closed[0].key));
        service.bench.config(|config| config.observe = 0);
    });
}

#[test]
fn a_taken_port_answers_its_new_flow_only() {
    with_service(3, |service| {
        let Family { peer, other, server, uplink, .. } = service.family;
        let old = service.syn(peer, 4000).expect("a port");
        service.bench.age(5);
        service.establish(peer, 4001);
        service.establish(peer, 4002);
        assert_eq!(service.syn(other, 5000), Some(old));
        let frame = segment((server, 443), (uplink, old), SYN | ACK, &[]);
        let (verdict, frame) = service.bench.arrive_on_uplink(&frame);
        assert_eq!((verdict, read(&frame).dst), (REDIRECT, (other, 5000)));
        // The one that lost it asks again: it has no flow any more, and all ports are in use.
        assert!(service.bench.refuses(&segment((peer, 4000), (server, 443), SYN, &[])));
    });
}
