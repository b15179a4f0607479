//! Long spans of time.

mod common;
#[path = "common/forge.rs"]
mod forge;

use std::time::Duration;

use common::{Net, packet, peer, public, with_keepalive};
use peer_core::shard::Engine as _;
use peer_wireguard::stats::Handshake;
use peer_wireguard::{DatagramError, Event, PacketError};

const SECOND: Duration = Duration::from_secs(1);

/// Addresses nowhere: what node 0 sends is lost.
fn unplug(net: &mut Net) {
    net.nodes[1].addr = common::addr("203.0.113.250:1");
}

fn plug(net: &mut Net) {
    net.nodes[1].addr = common::addr("192.0.2.2:1002");
}

#[test]
fn sessions_are_renewed_without_a_gap() {
    let mut net = Net::connected_pair();
    for _ in 0..400 {
        net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
        net.advance(SECOND);
    }
    let stats = net.nodes[0].engine.stats();
    assert_eq!(stats.handshakes(Handshake::CompletedAsInitiator), 4, "every 120 s");
    assert!(!net.nodes[0].events.contains(&Event::SessionExpired { peer: public(2) }));
    let age = net.nodes[1].engine.peers(net.now)[0].last_handshake.expect("connected");
    assert!(age < 121 * SECOND, "{age:?}");
}

#[test]
fn unanswered_initiations_are_repeated_with_jitter_and_given_up() {
    let mut net = Net::pair();
    unplug(&mut net);
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    net.run();
    let start = net.now;
    let mut sent = vec![start];
    while net.now - start < 120 * SECOND {
        let before = net.log.len();
        net.advance(Duration::from_millis(5));
        sent.extend(std::iter::repeat_n(net.now, net.log.len() - before));
    }
    let gaps: Vec<_> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((15..=17).contains(&gaps.len()), "{gaps:?}");
    assert!(gaps.iter().all(|gap| (5000..5350).contains(&gap.as_millis())), "{gaps:?}");
    assert!(gaps.iter().max() > gaps.iter().min(), "{gaps:?}");
    let stats = net.nodes[0].engine.stats();
    assert_eq!(stats.handshakes(Handshake::TimedOut), 1);
    assert_eq!(stats.packet_drops(PacketError::HandshakeTimeout), 1);
    assert_eq!(net.nodes[0].events, [Event::HandshakeTimedOut { peer: public(2) }]);
    assert_eq!(net.nodes[0].engine.poll_timeout(), None, "no timer runs any more");
    plug(&mut net);
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 2));
    net.run();
    assert_eq!(net.nodes[1].received, [packet("10.0.0.1", "10.0.0.2", 8, 2)], "new traffic tries anew");
}

#[test]
fn an_idle_session_expires_and_new_traffic_brings_it_back() {
    let mut net = Net::connected_pair();
    net.advance(175 * SECOND);
    assert!(net.connected(0) && net.connected(1));
    net.advance(6 * SECOND);
    assert!(!net.connected(0) && !net.connected(1));
    for (node, other) in [(0, 2), (1, 1)] {
        assert!(net.nodes[node].events.contains(&Event::SessionExpired { peer: public(other) }));
        assert_eq!(net.nodes[node].engine.stats().connected.get(), 0);
    }
    net.advance(600 * SECOND);
    for node in &mut net.nodes {
        assert_eq!(node.engine.poll_timeout(), None, "idle peers have no timer");
    }
    net.advance(4000 * SECOND);
    net.assert_traffic(1, "10.0.0.2", 0, "10.0.0.1");
    net.advance(20 * SECOND);
    assert!(net.connected(0) && net.connected(1), "the new session is not taken for an old one");
}

#[test]
fn an_idle_tunnel_is_quiet() {
    let mut net = Net::connected_pair();
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
    net.log.clear();
    net.advance(60 * SECOND);
    assert!(net.log.len() <= 2, "{} datagrams in an idle minute", net.log.len());
}

#[test]
fn two_initiations_of_one_stamp_end_in_a_session_soon() {
    let mut net = Net::pair();
    // Official clients send both with one stamp. To the responder that is the same as the older one behind the newer; the
    // answer to the first is lost on the initiator.
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 1));
    net.nodes[0].engine.start_handshakes(net.now);
    net.nodes[0].engine.handle_timeout(net.now);
    let both = net.intercept();
    net.deliver(1, both[1].from, &both[1].bytes);
    net.intercept();
    net.deliver(1, both[0].from, &both[0].bytes);
    assert_eq!(net.nodes[1].engine.stats().datagram_drops(DatagramError::StaleInitiation), 1);
    // Node 0 takes ours for one that crosses its own, and waits a moment with the answer.
    net.advance(Duration::from_millis(100));
    assert_eq!(net.nodes[1].received.len(), 1);
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
}

#[test]
fn a_peer_with_keepalive_is_tried_for_ever() {
    let mut net = Net::pair();
    let there = Some(net.nodes[1].addr);
    unplug(&mut net);
    net.set_peers(0, &[with_keepalive(peer(2, there, &["10.0.0.2/32"]), 25)]);
    net.advance(1800 * SECOND);
    assert!(net.nodes[0].engine.stats().handshakes(Handshake::TimedOut) >= 10);
    assert!(!net.connected(0));
    plug(&mut net);
    net.advance(26 * SECOND);
    assert!(net.connected(0) && net.connected(1));
    net.log.clear();
    net.advance(3600 * SECOND);
    assert!(net.connected(0) && net.connected(1), "and held");
    assert!(net.log.len() < 400, "{} datagrams in an idle hour", net.log.len());
}

#[test]
fn a_thread_that_slept_does_not_use_a_dead_session() {
    let mut net = Net::connected_pair();
    net.now += 300 * SECOND;
    net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, 3));
    net.collect();
    assert_eq!(net.log.last().expect("sent").bytes.len(), 148, "an initiation, not data");
    net.run();
    assert_eq!(net.nodes[1].received, [packet("10.0.0.1", "10.0.0.2", 8, 3)]);
}

#[test]
fn a_cookie_is_used_by_the_next_repetition() {
    let mut net = Net::pair();
    net.nodes[0].engine.start_handshakes(net.now);
    net.nodes[0].engine.handle_timeout(net.now);
    let first = net.intercept().remove(0);
    for n in 0..600_u16 {
        let [high, low] = n.to_be_bytes();
        net.deliver(1, std::net::SocketAddr::from(([198, 51, high, low], 9)), &first.bytes);
    }
    let stats = net.nodes[1].engine.stats();
    assert_eq!(stats.handshakes(Handshake::CookieSent), 350);
    net.intercept();
    net.deliver(1, first.from, &first.bytes);
    net.run();
    assert_eq!(net.nodes[0].engine.stats().handshakes(Handshake::CookieReceived), 1);
    assert!(!net.connected(0));
    net.advance(6 * SECOND);
    assert!(net.connected(0) && net.connected(1));
    let initiation = |datagram: &&common::Datagram| datagram.from == first.from && datagram.bytes.len() == 148;
    let sent: Vec<_> = net.log.iter().filter(initiation).collect();
    assert_eq!((sent.len(), &sent[0].bytes[132..]), (2, &[0; 16][..]));
    assert_ne!(sent[1].bytes[132..], [0; 16], "the second MAC is made with the cookie");
}

#[test]
fn a_young_cookie_is_in_the_first_initiation_of_the_next_handshake_and_an_old_one_is_not() {
    for (pause, used) in [(118, true), (122, false)] {
        let mut net = Net::pair();
        let now = net.now;
        net.nodes[0].engine.start_handshake(now, &public(2));
        let first = net.intercept().remove(0);
        for n in 0..251_u16 {
            net.deliver(1, std::net::SocketAddr::from(([198, 51, 100, n as u8], 9)), &first.bytes);
        }
        net.intercept();
        net.deliver(1, first.from, &first.bytes);
        net.run();
        assert_eq!(net.nodes[0].engine.stats().handshakes(Handshake::CookieReceived), 1);
        net.advance(pause * SECOND);
        let now = net.now;
        net.nodes[0].engine.start_handshake(now, &public(2));
        let next = net.intercept().into_iter().rfind(|sent| sent.bytes.len() == 148).expect("an initiation");
        assert_eq!(next.bytes[132..] != [0; 16], used, "{pause} s");
    }
}

#[test]
fn a_member_without_a_cookie_is_in_by_the_next_try_while_its_address_is_spoofed() {
    for known in [false, true] {
        let mut net = if known { Net::connected_pair() } else { Net::pair() };
        if known {
            // The member starts anew: its session and its cookie are gone, and its address is known.
            net.restart(0);
            let there = Some(net.nodes[1].addr);
            net.set_peers(0, &[peer(2, there, &["10.0.0.2/32", "fd00::2/128"])]);
        }
        let mut number = 0;
        let mut spoof = |net: &mut Net, count: u64| {
            for _ in 0..count {
                number += 1;
                net.deliver(1, net.nodes[0].addr, &forge::initiation(&public(2), number, false));
            }
        };
        spoof(&mut net, 400);
        let (start, stats) = (net.now, net.nodes[0].engine.stats());
        net.nodes[0].engine.start_handshake(start, &public(2));
        while stats.handshakes(Handshake::CompletedAsInitiator) == 0 && net.now - start < 20 * SECOND {
            // 5 000 a second.
            spoof(&mut net, 50);
            net.advance(SECOND / 100);
        }
        let took = net.now - start;
        assert!(took > 4 * SECOND && took <= 6 * SECOND, "{took:?}, known: {known}");
        assert!(stats.handshakes(Handshake::CookieReceived) > 0);
        net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
    }
}
