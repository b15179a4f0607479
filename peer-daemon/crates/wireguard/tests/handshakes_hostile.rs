//! Handshake messages that keep others out, if they can: floods, spoofed addresses, replays.

mod common;
#[path = "common/forge.rs"]
mod forge;

use std::net::SocketAddr;
use std::time::Duration;

use common::{Datagram, Net, addr, packet, public, relayed};
use peer_core::path::{Path, RelayId};
use peer_core::shard::Engine as _;
use peer_wireguard::stats::Handshake;
use peer_wireguard::{DatagramError, Event};

const ELSEWHERE: &str = "203.0.113.77:7777";
/// After this time the Noise core's timestamps differ, and what crossed has settled.
const SETTLED: Duration = Duration::from_millis(200);

/// Forged initiations for node 1 that bear `source`.
struct Flood {
    number: u64,
    source: SocketAddr,
    mac2: bool,
}

impl Flood {
    fn of(source: SocketAddr) -> Self {
        Self { number: 0, source, mac2: false }
    }

    fn burst(&mut self, net: &mut Net, count: u64) {
        for _ in 0..count {
            self.number += 1;
            net.deliver(1, self.source, &forge::initiation(&public(2), self.number, self.mac2));
        }
    }
}

/// Node 0 begins a handshake: its initiation, which is on its way.
fn begin(net: &mut Net) -> Datagram {
    let now = net.now;
    net.nodes[0].engine.start_handshake(now, &public(2));
    net.intercept().into_iter().find(|sent| sent.bytes.len() == 148).expect("an initiation")
}

fn answer_to(net: &mut Net, initiation: &Datagram) -> Datagram {
    net.intercept();
    net.deliver(1, initiation.from, &initiation.bytes);
    net.intercept().pop().expect("an answer")
}

fn drops(net: &Net, reason: DatagramError) -> u64 {
    net.nodes[1].engine.stats().datagram_drops(reason)
}

#[test]
fn a_member_with_a_cookie_is_in_at_once_while_its_address_is_spoofed() {
    let mut net = Net::pair();
    let mut flood = Flood::of(net.nodes[0].addr);
    flood.burst(&mut net, 400);
    let first = begin(&mut net);
    let reply = answer_to(&mut net, &first);
    assert_eq!((reply.to, reply.bytes.len()), (first.from, 64), "a cookie");
    // Wherever a cookie reply comes from, the peer does not move; one that is not for us is refused.
    net.deliver(0, addr(ELSEWHERE), &reply.bytes);
    net.deliver(0, addr(ELSEWHERE), &[reply.bytes[..8].to_vec(), vec![9; 56]].concat());
    assert_eq!(net.endpoint(0), Some(net.nodes[1].addr));
    let stats = net.nodes[0].engine.stats();
    assert_eq!((stats.handshakes(Handshake::CookieReceived), stats.datagram_drops(DatagramError::BadCookie)), (1, 1));
    // The member starts anew up to two minutes later, with the flood at its loudest.
    net.now += Duration::from_secs(119);
    flood.burst(&mut net, 8_000);
    flood.mac2 = true;
    flood.burst(&mut net, 4_000);
    let second = begin(&mut net);
    let response = answer_to(&mut net, &second);
    assert_eq!((response.to, response.bytes.len()), (second.from, 92), "a response");
    net.deliver(0, response.from, &response.bytes);
    net.run();
    assert!(net.connected(0) && net.connected(1));
    assert_eq!(drops(&net, DatagramError::SourceLimited), 0);
}

#[test]
fn a_flood_from_invented_addresses_does_not_concern_a_member_at_a_known_one() {
    let mut net = Net::connected_pair();
    let stats = net.nodes[1].engine.stats();
    for host in 0..8_000_u32 {
        let source = SocketAddr::from((std::net::Ipv4Addr::from_bits(0xc633_0000 | host), 9));
        net.deliver(1, source, &forge::initiation(&public(2), host.into(), false));
    }
    assert_eq!(drops(&net, DatagramError::InitiationFlood), 6_000);
    assert!(stats.handshakes(Handshake::CookieSent) <= 600);
    assert_eq!(stats.source_buckets.get(), 0, "invented addresses take no memory");
    net.intercept();
    let mut initiation = begin(&mut net);
    assert_eq!(answer_to(&mut net, &initiation).bytes.len(), 92, "a response");
    // Elsewhere the member is a stranger among strangers.
    initiation.from = addr(ELSEWHERE);
    let refused = drops(&net, DatagramError::InitiationFlood);
    net.deliver(1, initiation.from, &initiation.bytes);
    assert_eq!(drops(&net, DatagramError::InitiationFlood), refused + 1);
}

#[test]
fn a_replayed_initiation_from_elsewhere_does_nothing() {
    let mut net = Net::pair();
    let recorded = begin(&mut net);
    net.deliver(1, recorded.from, &recorded.bytes);
    net.run();
    net.assert_traffic(0, "10.0.0.1", 1, "10.0.0.2");
    net.now += Duration::from_secs(10);
    let (stats, place) = (net.nodes[1].engine.stats(), net.endpoint(1));
    let before = net.nodes[1].engine.peers(net.now).remove(0);
    net.intercept();
    net.nodes[1].events.clear();
    // Also with the member's own address on it.
    for from in [addr(ELSEWHERE), addr("192.0.2.1:2002"), recorded.from] {
        for _ in 0..20 {
            net.deliver(1, from, &recorded.bytes);
            net.now += Duration::from_millis(100);
        }
    }
    assert!(net.intercept().is_empty(), "no handshake, no answer");
    assert_eq!((stats.handshakes(Handshake::Forced), drops(&net, DatagramError::StaleInitiation)), (0, 60));
    assert_eq!(net.endpoint(1), place);
    assert!(!net.nodes[1].events.iter().any(|event| matches!(event, Event::PathChanged { .. })));
    let after = net.nodes[1].engine.peers(net.now).remove(0);
    assert_eq!((after.rx_bytes, after.tx_bytes, after.connected), (before.rx_bytes, before.tx_bytes, true));
    net.assert_traffic(1, "10.0.0.2", 0, "10.0.0.1");
}

#[test]
fn a_replayed_initiation_does_not_take_the_place_of_one_that_waits() {
    let mut net = Net::pair();
    let recorded = begin(&mut net);
    net.deliver(1, recorded.from, &recorded.bytes);
    net.run();
    net.now += SETTLED;
    // Node 1 begins a handshake that gets lost, node 0's crosses it and has to wait; the replay comes meanwhile.
    let now = net.now;
    net.nodes[1].engine.start_handshake(now, &public(1));
    net.intercept();
    let crossing = begin(&mut net);
    let stats = net.nodes[1].engine.stats();
    let answered = stats.handshakes(Handshake::Responded);
    net.deliver(1, crossing.from, &crossing.bytes);
    assert!(net.intercept().is_empty(), "it waits");
    net.deliver(1, addr(ELSEWHERE), &recorded.bytes);
    assert_eq!(drops(&net, DatagramError::StaleInitiation), 1);
    net.now += SETTLED;
    let now = net.now;
    net.nodes[1].engine.handle_timeout(now);
    assert_eq!(stats.handshakes(Handshake::Responded), answered + 1);
    assert_eq!(net.endpoint(1), Some(crossing.from));
}

#[test]
fn a_loud_peer_of_a_relay_keeps_nobody_out() {
    let mut net = Net::pair();
    let loud = relayed(RelayId { connection: 7, peer: 9 });
    for number in 0..5_000 {
        net.deliver(1, loud, &forge::initiation(&public(2), number, number % 2 == 0));
    }
    assert_eq!(drops(&net, DatagramError::SourceLimited), 4_900);
    let first = begin(&mut net);
    let by_relay = relayed(RelayId { connection: 7, peer: 1 });
    net.deliver(1, by_relay, &first.bytes);
    let answer = net.intercept().pop().expect("an answer");
    assert_eq!((answer.to, answer.bytes.len()), (by_relay, 92), "through the relay");
    net.now += SETTLED;
    let second = begin(&mut net);
    assert_eq!(answer_to(&mut net, &second).bytes.len(), 92, "past the relay");
    assert!(matches!(net.nodes[1].engine.peers(net.now)[0].path, Some(Path::Udp { .. })));
}

#[test]
fn the_bucket_of_a_source_is_forgotten_when_full_again() {
    let mut net = Net::pair();
    let first = begin(&mut net);
    net.deliver(1, relayed(RelayId { connection: 7, peer: 1 }), &first.bytes);
    let (stats, now) = (net.nodes[1].engine.stats(), net.now);
    assert_eq!(stats.source_buckets.get(), 1);
    net.nodes[1].engine.handle_timeout(now + Duration::from_secs(5));
    assert_eq!(stats.source_buckets.get(), 0);
}

#[test]
fn a_flood_does_not_touch_sessions() {
    let mut net = Net::connected_pair();
    let mut flood = Flood::of(net.nodes[0].addr);
    for round in 0..50 {
        flood.mac2 = round % 2 == 0;
        flood.burst(&mut net, 400);
        net.send(0, &packet("10.0.0.1", "10.0.0.2", 8, round));
        net.advance(Duration::from_millis(1));
    }
    assert_eq!(net.nodes[1].received.len(), 50);
    assert_eq!(net.endpoint(1), Some(net.nodes[0].addr));
    net.assert_traffic(1, "10.0.0.2", 0, "10.0.0.1");
}
