//! What a flow remembers of its connection: RFC 5382 §5, RFC 7857 §2 take their timers from it. And whom it believes: resets,
//! ends and opens count only where their numbers fit (RFC 9293 §3.10.7, RFC 5961).

use std::net::IpAddr;

use peer_common::{Counter, Flow, Mapping, TcpSeen, TcpWindow};

use crate::bench::with_bench;
use crate::lab::{FAMILIES, Family};
use crate::packet::read;
use crate::wire::{Ip, TCP, put16, seal, tcp_payload};
use crate::{Bench, REDIRECT};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const HALF: u8 = TcpSeen::SYN | TcpSeen::END;
const OPEN: u8 = TcpSeen::SYN | TcpSeen::ACK | TcpSeen::END | TcpSeen::WINDOW;

/// First numbers of both ends: they wrap within a test.
const PEER_ISS: u32 = u32::MAX - 20;
const SERVER_ISS: u32 = u32::MAX - 5;
const WINDOW: u16 = 1000;
/// Both ends shift their windows by two.
const ROOM: u32 = 4000;
const SCALE: [u8; 4] = [1, 3, 3, 2];

/// A connection, and the numbers of both ends.
struct Connection<'a> {
    bench: &'a mut Bench,
    family: Family,
    node: (IpAddr, u16),
    /// What the peer sends next.
    peer: u32,
    /// What the server sends next.
    server: u32,
}

impl<'a> Connection<'a> {
    fn syn(bench: &'a mut Bench, family: Family) -> Self {
        let syn = segment((family.peer, 40000), (family.server, 80), SYN, (PEER_ISS, 0), 0);
        let node = read(&bench.arrive_from_mesh(&syn).1).src;
        Self { bench, family, node, peer: PEER_ISS.wrapping_add(1), server: SERVER_ISS }
    }

    /// Established: either side has sent 100 bytes, all of which are acknowledged.
    fn open(bench: &'a mut Bench, family: Family) -> Self {
        let mut connection = Self::syn(bench, family);
        connection.back(SYN | ACK, 0);
        connection.out(ACK, 100);
        connection.back(ACK, 100);
        connection.out(ACK, 0);
        assert_eq!(connection.seen(), (OPEN, OPEN));
        connection
    }

    /// The peer's next segment.
    fn out(&mut self, flags: u8, data: usize) {
        self.forge_out(flags, (self.peer, self.server), data);
        self.peer = self.peer.wrapping_add(data as u32 + u32::from(flags & (SYN | FIN) != 0));
    }

    /// The server's next segment.
    fn back(&mut self, flags: u8, data: usize) {
        self.forge_back(flags, (self.server, self.peer), data);
        self.server = self.server.wrapping_add(data as u32 + u32::from(flags & (SYN | FIN) != 0));
    }

    /// A segment of the peer with any numbers: what it sends, and what it acknowledges.
    fn forge_out(&mut self, flags: u8, numbers: (u32, u32), data: usize) {
        let frame = segment((self.family.peer, 40000), (self.family.server, 80), flags, numbers, data);
        assert_eq!(self.bench.arrive_from_mesh(&frame).0, REDIRECT, "whatever it counts for, it passes");
    }

    /// One in the server's name.
    fn forge_back(&mut self, flags: u8, numbers: (u32, u32), data: usize) {
        let frame = segment((self.family.server, 80), self.node, flags, numbers, data);
        assert_eq!(self.bench.arrive_on_uplink(&frame).0, REDIRECT, "whatever it counts for, it passes");
    }

    fn entries(&mut self) -> (Flow, Mapping) {
        let family = self.family.peer.is_ipv4();
        let flow = self.bench.flows().into_iter().find(|(key, _)| key.src.is_v4() == family).expect("a flow").1;
        let mapping = self.bench.mappings().into_iter().find(|(key, _)| key.src.is_v4() == family).expect("one").1;
        (flow, mapping)
    }

    /// What each direction has seen.
    fn seen(&mut self) -> (u8, u8) {
        let (flow, mapping) = self.entries();
        (flow.tcp_seen, mapping.tcp_seen)
    }

    /// All that entries know of the connection.
    fn state(&mut self) -> ((u8, TcpWindow), (u8, TcpWindow)) {
        let (flow, mapping) = self.entries();
        ((flow.tcp_seen, flow.tcp), (mapping.tcp_seen, mapping.tcp))
    }

    /// Insists that `forged` changes nothing and is counted as such.
    fn counts_for_nothing(&mut self, forged: impl FnOnce(&mut Self)) {
        let before = (self.state(), self.bench.counter(Counter::TcpOutOfWindow));
        forged(self);
        let after = (self.state(), self.bench.counter(Counter::TcpOutOfWindow));
        assert_eq!(after, (before.0, before.1 + 1));
    }

    fn is_reset(&mut self) -> bool {
        let (out, back) = self.seen();
        assert_eq!(out & TcpSeen::RST, back & TcpSeen::RST, "a reset is marked on both sides");
        out & TcpSeen::RST != 0
    }
}

fn segment(src: (IpAddr, u16), dst: (IpAddr, u16), flags: u8, (seq, ack): (u32, u32), data: usize) -> Vec<u8> {
    let timestamp = seq.to_be_bytes();
    let options = match flags & (SYN | FIN) {
        SYN => SCALE.to_vec(),
        FIN => [&[1, 1, 8, 10], &timestamp[..], &[0; 4]].concat(),
        _ => vec![],
    };
    let mut bytes = tcp_payload(src, dst, flags, &options, &vec![7; data]);
    bytes[4..8].copy_from_slice(&seq.to_be_bytes());
    bytes[8..12].copy_from_slice(&ack.to_be_bytes());
    put16(&mut bytes, 14, WINDOW);
    seal(src.0, dst.0, TCP, &mut bytes);
    Ip::new(src.0, dst.0, TCP).frame(&bytes)
}

fn each(test: impl Fn(&mut Bench, Family) + Send + 'static) {
    with_bench(move |bench| FAMILIES.into_iter().for_each(|family| test(bench, family)));
}

#[test]
fn a_connection_is_followed_from_syn_to_close() {
    each(|bench, family| {
        let mut connection = Connection::syn(bench, family);
        assert_eq!(connection.seen(), (HALF, 0), "half-open");
        connection.back(SYN | ACK, 0);
        assert_eq!(connection.seen(), (HALF, OPEN));
        connection.out(ACK, 0);
        assert_eq!(connection.seen(), (OPEN, OPEN), "established");
        connection.out(FIN | ACK, 10);
        let closed_first = OPEN | TcpSeen::FIN | TcpSeen::FIN_FIRST | TcpSeen::TIMESTAMP;
        assert_eq!(connection.seen(), (closed_first, OPEN), "half-closed");
        connection.back(ACK, 500);
        connection.out(ACK, 0);
        connection.back(FIN | ACK, 0);
        connection.out(ACK, 0);
        assert_eq!(connection.seen(), (closed_first, OPEN | TcpSeen::FIN), "closed");
        assert_eq!(connection.bench.counter(Counter::TcpOutOfWindow), 0);
    });
}

#[test]
fn numbers_are_followed_over_their_end() {
    each(|bench, family| {
        let mut connection = Connection::open(bench, family);
        let (flow, mapping) = connection.entries();
        let (peer, server) = (PEER_ISS.wrapping_add(101), SERVER_ISS.wrapping_add(101));
        assert_eq!((flow.tcp.end, flow.tcp.ack, flow.tcp.window, flow.tcp.scale), (peer, server, WINDOW, 2));
        assert_eq!(
            (mapping.tcp.end, mapping.tcp.ack, mapping.tcp.window, mapping.tcp.scale),
            (server, peer, WINDOW, 2)
        );
        // An old one changes nothing.
        connection.forge_out(ACK, (peer.wrapping_sub(50), server.wrapping_sub(50)), 20);
        assert_eq!(connection.entries().0.tcp, flow.tcp);
        connection.back(ACK, 1_300);
        assert_eq!(connection.entries().1.tcp.end, server.wrapping_add(1_300));
    });
}

#[test]
fn who_closed_first_and_the_timestamp_of_the_end_are_known() {
    each(|bench, family| {
        let mut connection = Connection::open(bench, family);
        connection.back(FIN | ACK, 0);
        connection.out(ACK, 0);
        let last = connection.peer;
        connection.out(FIN | ACK, 0);
        let end = OPEN | TcpSeen::FIN;
        assert_eq!(connection.seen(), (end | TcpSeen::TIMESTAMP, end | TcpSeen::FIN_FIRST));
        assert_eq!(connection.entries().0.tcp_timestamp, last);
        connection.forge_out(FIN | ACK, (last, connection.server), 0);
        assert_eq!(connection.seen(), (end | TcpSeen::TIMESTAMP, end | TcpSeen::FIN_FIRST), "sent again");
    });
}

#[test]
fn a_syn_on_a_closed_flow_begins_anew() {
    each(|bench, family| {
        for by_reset in [true, false] {
            let mut connection = Connection::syn(bench, family);
            connection.back(SYN | ACK, 0);
            connection.out(ACK, 0);
            if by_reset {
                connection.back(RST, 0);
            } else {
                connection.out(FIN | ACK, 0);
                connection.back(FIN | ACK, 0);
                connection.out(ACK, 0);
            }
            let next = 77_u32;
            connection.forge_out(SYN, (next, 0), 0);
            let (flow, mapping) = connection.entries();
            assert_eq!((flow.tcp_seen, flow.tcp.end), (HALF, next + 1), "what the old connection showed is gone");
            assert_eq!((mapping.tcp_seen, mapping.tcp), (0, Default::default()), "on both sides");
            (connection.peer, connection.server) = (next + 1, 99);
            connection.back(SYN | ACK, 0);
            connection.out(ACK, 0);
            assert_eq!(connection.seen(), (OPEN, OPEN), "established");
            connection.out(RST, 0);
        }
    });
}

#[test]
fn a_syn_sent_again_and_one_of_another_attempt() {
    each(|bench, family| {
        let mut connection = Connection::syn(bench, family);
        connection.back(SYN | ACK, 0);
        connection.forge_out(SYN, (PEER_ISS, 0), 0);
        assert_eq!(connection.seen(), (HALF, OPEN), "sent again: the answer stands");
        connection.forge_out(SYN, (1, 0), 0);
        assert_eq!(connection.seen(), (HALF, 0), "another attempt: the answer was not to this");
    });
}

#[test]
fn a_syn_on_an_established_connection_restarts_nothing() {
    each(|bench, family| {
        let mut connection = Connection::open(bench, family);
        connection.counts_for_nothing(|connection| connection.forge_out(SYN, (5000, 0), 0));
        // The server asks back; the peer that has lost the connection resets it, and tries once more (RFC 5961 §4.2).
        connection.back(ACK, 0);
        connection.forge_out(RST, (connection.peer, 0), 0);
        assert!(connection.is_reset());
        connection.forge_out(SYN, (5000, 0), 0);
        assert_eq!(connection.seen(), (HALF, 0));
    });
}

#[test]
fn a_forged_syn_changes_nothing() {
    each(|bench, family| {
        let mut connection = Connection::open(bench, family);
        for numbers in [(1, 0), (connection.server, connection.peer), (connection.peer, 1)] {
            connection.counts_for_nothing(|connection| connection.forge_back(SYN, numbers, 0));
            connection.counts_for_nothing(|connection| connection.forge_back(SYN | ACK, numbers, 0));
        }
        connection.out(FIN | ACK, 0);
        connection.back(FIN | ACK, 0);
        connection.counts_for_nothing(|connection| connection.forge_back(SYN, (1, 0), 0));
        connection.forge_out(RST, (connection.peer, 0), 0);
        connection.forge_out(SYN, (1, 0), 0);
    });
}

#[test]
fn an_answer_must_acknowledge_the_syn() {
    each(|bench, family| {
        let mut connection = Connection::syn(bench, family);
        for ack in [connection.peer.wrapping_add(1), connection.peer.wrapping_sub(1461), 0x1234_5678] {
            connection.counts_for_nothing(|connection| connection.forge_back(SYN | ACK, (9, ack), 0));
            connection.counts_for_nothing(|connection| connection.forge_back(RST | ACK, (0, ack), 0));
        }
        connection.counts_for_nothing(|connection| connection.forge_back(RST, (connection.peer, 0), 0));
        connection.forge_back(ACK, (9, 0x1234_5678), 10);
        assert_eq!(connection.seen(), (HALF, 0), "other data is none of this connection");
        connection.forge_back(RST | ACK, (0, connection.peer), 0);
        assert!(connection.is_reset(), "refused");
    });
}

#[test]
fn a_reset_is_remembered_and_ends_nothing_at_once() {
    each(|bench, family| {
        let mut connection = Connection::open(bench, family);
        connection.forge_back(RST, (connection.server, 0), 0);
        assert_eq!(connection.seen(), (OPEN | TcpSeen::RST, OPEN | TcpSeen::RST));
        connection.out(ACK, 0);
        connection.back(ACK, 0);
        assert!(connection.is_reset(), "what had crossed it does not hide it");
    });
}

#[test]
fn a_reset_behind_data_on_the_way_counts() {
    each(|bench, family| {
        let mut connection = Connection::open(bench, family);
        connection.back(ACK, 2000);
        connection.back(RST | ACK, 0);
        assert!(connection.is_reset());
        connection.out(ACK, 0);
        assert!(connection.is_reset(), "the data is acknowledged, up to the reset and no further");
    });
}

#[test]
fn a_forged_reset_marks_nothing() {
    each(|bench, family| {
        let mut connection = Connection::open(bench, family);
        let (peer, server) = (connection.peer, connection.server);
        for seq in [server.wrapping_sub(1), server.wrapping_add(1), server.wrapping_add(ROOM), peer] {
            connection.counts_for_nothing(|connection| connection.forge_back(RST, (seq, 0), 0));
        }
        let outside = [server.wrapping_sub(1), server.wrapping_add(ROOM + 2)];
        for seq in outside {
            connection.counts_for_nothing(|connection| connection.forge_back(RST | ACK, (seq, peer), 0));
        }
        for ack in [peer.wrapping_add(1), peer.wrapping_sub((1 << 20) + 1)] {
            let numbers = (server.wrapping_add(1), ack);
            connection.counts_for_nothing(|connection| connection.forge_back(RST | ACK, numbers, 0));
        }
    });
}

#[test]
fn forged_data_makes_no_forged_reset_fit() {
    each(|bench, family| {
        let mut connection = Connection::open(bench, family);
        for seq in [10_000_000, 20_000_000] {
            let seq = connection.server.wrapping_add(seq);
            connection.forge_back(ACK, (seq, 3), 100);
            connection.counts_for_nothing(|connection| connection.forge_back(RST, (seq.wrapping_add(100), 0), 0));
            connection.counts_for_nothing(|connection| connection.forge_back(FIN | ACK, (seq.wrapping_add(100), 3), 0));
        }
        // What it has moved does not keep the peer from closing, either.
        connection.out(FIN | ACK, 0);
        connection.back(FIN | ACK, 0);
        let (out, back) = connection.seen();
        assert_eq!(out & back & TcpSeen::FIN, TcpSeen::FIN);
    });
}

#[test]
fn data_after_a_reset_clears_the_mark() {
    each(|bench, family| {
        for data in [true, false] {
            let mut connection = Connection::open(bench, family);
            connection.forge_back(RST, (connection.server, 0), 0);
            connection.back(ACK, 100);
            assert!(connection.is_reset(), "on the LAN anybody may say so");
            connection.out(ACK, if data { 10 } else { 0 });
            assert_eq!(connection.seen(), (OPEN, OPEN), "the peer goes on, so it was not reset");
            connection.out(RST | ACK, 0);
            connection.forge_out(SYN, (PEER_ISS, 0), 0);
        }
    });
}

#[test]
fn a_peer_cannot_close_for_us_alone() {
    each(|bench, family| {
        let mut connection = Connection::open(bench, family);
        let (peer, server) = (connection.peer, connection.server);
        let beyond = peer.wrapping_add(ROOM + 2);
        connection.counts_for_nothing(|connection| connection.forge_out(RST, (peer.wrapping_add(1), 0), 0));
        connection.counts_for_nothing(|connection| connection.forge_out(RST | ACK, (beyond, server), 0));
        connection.counts_for_nothing(|connection| connection.forge_out(FIN | ACK, (beyond, server), 0));
        connection.forge_out(RST, (peer, 0), 0);
        assert!(connection.is_reset());
    });
}

#[test]
fn an_end_counts_in_the_window_and_data_behind_it_clears_it() {
    each(|bench, family| {
        let mut connection = Connection::open(bench, family);
        let (peer, server) = (connection.peer, connection.server);
        for numbers in [(server.wrapping_sub(2), peer), (server.wrapping_add(ROOM + 1), peer), (server, peer + 1)] {
            connection.counts_for_nothing(|connection| connection.forge_back(FIN | ACK, numbers, 0));
        }
        connection.counts_for_nothing(|connection| connection.forge_back(FIN, (server, peer), 0));
        connection.forge_back(FIN | ACK, (server, peer), 0);
        assert_eq!(connection.seen().1, OPEN | TcpSeen::FIN | TcpSeen::FIN_FIRST, "it had the numbers");
        connection.forge_back(ACK, (server, peer), 1);
        assert_ne!(connection.seen().1 & TcpSeen::FIN, 0, "no further than the end");
        connection.forge_back(ACK, (server.wrapping_add(90_000), peer), 100);
        assert_ne!(connection.seen().1 & TcpSeen::FIN, 0, "out of the window");
        connection.back(ACK, 100);
        assert_eq!(connection.seen().1, OPEN, "the server goes on, so it was not its end");
        connection.out(ACK, 0);
        connection.out(FIN | ACK, 0);
        connection.out(ACK, 10);
        assert_eq!(connection.seen(), (OPEN, OPEN), "the same for the peer");
    });
}

#[test]
fn a_connection_met_in_its_middle_is_believed() {
    each(|bench, family| {
        for flags in [RST, FIN | ACK] {
            let mut connection = Connection::syn(bench, family);
            // As after a loss of state.
            connection.bench.clear();
            connection.forge_out(ACK, (5_000_000, 6_000_000), 10);
            let (flow, mapping) = connection.entries();
            assert_eq!((flow.tcp_seen, mapping.tcp_seen), (OPEN & !TcpSeen::SYN, 0));
            assert_eq!((flow.tcp.end, flow.tcp.ack, flow.tcp.scale), (5_000_010, 6_000_000, 14));
            connection.forge_out(flags, (5_100_000, 6_000_000), 0);
            let mark = if flags == RST { TcpSeen::RST } else { TcpSeen::FIN };
            assert_ne!(connection.seen().0 & mark, 0);
            connection.forge_out(SYN, (PEER_ISS, 0), 0);
        }
    });
}

#[test]
fn the_servers_retransmitted_syn_does_not_hide_the_acknowledgement() {
    each(|bench, family| {
        let mut connection = Connection::syn(bench, family);
        connection.back(SYN | ACK, 0);
        connection.out(ACK, 0);
        connection.forge_back(SYN | ACK, (SERVER_ISS, connection.peer), 0);
        assert_eq!(connection.seen(), (OPEN, OPEN));
    });
}

#[test]
fn a_simultaneous_open_is_an_established_connection() {
    each(|bench, family| {
        let mut connection = Connection::syn(bench, family);
        connection.back(SYN, 0);
        assert_eq!(connection.seen(), (HALF, HALF));
        connection.forge_out(SYN | ACK, (PEER_ISS, connection.server), 0);
        connection.forge_back(SYN | ACK, (SERVER_ISS, connection.peer), 0);
        connection.out(ACK, 0);
        connection.back(ACK, 0);
        assert_eq!(connection.seen(), (OPEN, OPEN));
    });
}
