//! What a flow remembers of its connection: RFC 5382 §5, RFC 7857 §2 take their timers from it.

use peer_common::TcpSeen;

use crate::bench::with_bench;
use crate::lab::{FAMILIES, Family};
use crate::packet::read;
use crate::wire::{Ip, TCP, tcp_payload};
use crate::{Bench, REDIRECT};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

struct Connection<'a> {
    bench: &'a mut Bench,
    family: Family,
    node: (std::net::IpAddr, u16),
}

impl<'a> Connection<'a> {
    fn open(bench: &'a mut Bench, family: Family) -> Self {
        let syn = segment((family.peer, 40000), (family.server, 80), SYN);
        let node = read(&bench.arrive_from_mesh(&syn).1).src;
        Self { bench, family, node }
    }

    fn out(&mut self, flags: u8) {
        let frame = segment((self.family.peer, 40000), (self.family.server, 80), flags);
        assert_eq!(self.bench.arrive_from_mesh(&frame).0, REDIRECT);
    }

    fn back(&mut self, flags: u8) {
        let frame = segment((self.family.server, 80), self.node, flags);
        assert_eq!(self.bench.arrive_on_uplink(&frame).0, REDIRECT);
    }

    /// What each direction has seen.
    fn seen(&mut self) -> (u8, u8) {
        let family = self.family.peer.is_ipv4();
        let flow = self.bench.flows().into_iter().find(|(key, _)| key.src.is_v4() == family).expect("a flow").1;
        let mapping = self.bench.mappings().into_iter().find(|(key, _)| key.src.is_v4() == family).expect("one").1;
        (flow.tcp_seen, mapping.tcp_seen)
    }
}

fn segment(src: (std::net::IpAddr, u16), dst: (std::net::IpAddr, u16), flags: u8) -> Vec<u8> {
    Ip::new(src.0, dst.0, TCP).frame(&tcp_payload(src, dst, flags, &[], b"x"))
}

#[test]
fn a_connection_is_followed_from_syn_to_close() {
    with_bench(|bench| {
        for family in FAMILIES {
            let mut connection = Connection::open(bench, family);
            assert_eq!(connection.seen(), (TcpSeen::SYN, 0), "half-open");
            connection.back(SYN | ACK);
            assert_eq!(connection.seen(), (TcpSeen::SYN, TcpSeen::SYN | TcpSeen::ACK));
            connection.out(ACK);
            assert_eq!(connection.seen(), (TcpSeen::SYN | TcpSeen::ACK, TcpSeen::SYN | TcpSeen::ACK), "established");
            connection.out(FIN | ACK);
            assert_eq!(connection.seen().0, TcpSeen::SYN | TcpSeen::ACK | TcpSeen::FIN, "half-closed");
            connection.back(FIN | ACK);
            assert_eq!(connection.seen().1, TcpSeen::SYN | TcpSeen::ACK | TcpSeen::FIN, "closed");
        }
    });
}

#[test]
fn a_syn_on_a_closed_flow_begins_anew() {
    with_bench(|bench| {
        for family in FAMILIES {
            let mut connection = Connection::open(bench, family);
            connection.back(SYN | ACK);
            connection.out(ACK);
            connection.out(FIN | ACK);
            connection.back(RST);
            assert_ne!(connection.seen().1 & TcpSeen::RST, 0);
            connection.out(SYN);
            assert_eq!(connection.seen().0, TcpSeen::SYN, "what the old connection showed is gone");
            connection.back(SYN | ACK);
            assert_eq!(connection.seen().1, TcpSeen::SYN | TcpSeen::ACK);
            connection.out(ACK);
            assert_eq!(connection.seen(), (TcpSeen::SYN | TcpSeen::ACK, TcpSeen::SYN | TcpSeen::ACK), "established");
        }
    });
}

#[test]
fn a_reset_is_remembered_and_ends_nothing_at_once() {
    with_bench(|bench| {
        let mut connection = Connection::open(bench, FAMILIES[0]);
        connection.back(SYN | ACK);
        connection.out(ACK);
        connection.back(RST | ACK);
        assert_eq!(connection.seen().1, TcpSeen::SYN | TcpSeen::ACK | TcpSeen::RST);
        connection.out(RST);
        connection.out(ACK);
        connection.back(ACK);
        assert_eq!(connection.seen().0, TcpSeen::SYN | TcpSeen::ACK | TcpSeen::RST);
    });
}

#[test]
fn the_servers_retransmitted_syn_does_not_hide_the_acknowledgement() {
    with_bench(|bench| {
        let mut connection = Connection::open(bench, FAMILIES[0]);
        connection.back(SYN | ACK);
        connection.out(ACK);
        connection.back(SYN | ACK);
        assert_eq!(connection.seen().1, TcpSeen::SYN | TcpSeen::ACK);
    });
}

#[test]
fn a_simultaneous_open_is_an_established_connection() {
    with_bench(|bench| {
        for family in FAMILIES {
            let mut connection = Connection::open(bench, family);
            connection.back(SYN);
            assert_eq!(connection.seen(), (TcpSeen::SYN, TcpSeen::SYN));
            connection.out(SYN | ACK);
            connection.back(SYN | ACK);
            connection.out(ACK);
            connection.back(ACK);
            assert_eq!(connection.seen(), (TcpSeen::SYN | TcpSeen::ACK, TcpSeen::SYN | TcpSeen::ACK));
        }
    });
}
