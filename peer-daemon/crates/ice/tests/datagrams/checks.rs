//! Connectivity checks and responses.

use peer_ice::Event;

use crate::bench::{Bench, LOCAL, PEER, REMOTE, address, is_request, with_candidate_ids};

#[test]
fn candidate_ids_behind_the_fingerprint_are_accepted() {
    let mut bench = Bench::new();
    let check = with_candidate_ids(bench.check(&bench.local.pwd));
    assert_eq!(check.len() % 4, 0);
    bench.receive(REMOTE, &check);
    let sent = bench.transmits();
    assert!(sent.iter().any(|transmit| transmit.bytes[..2] == [1, 1] && transmit.remote == address(REMOTE)));
    let request = sent.iter().find(|transmit| is_request(&transmit.bytes)).expect("a triggered check");
    let response = with_candidate_ids(bench.respond(&request.bytes, LOCAL));
    bench.receive(REMOTE, &response);
    assert!(matches!(bench.events().last(), Some(Event::Up { .. })));
}

#[test]
fn without_valid_integrity_there_is_no_answer() {
    let mut bench = Bench::new();
    let right = bench.check(&bench.local.pwd);
    let mut unknown = right.clone();
    // In USERNAME, at its start.
    unknown[24] ^= 1;
    let mut peer = right.clone();
    // The peer's fragment in it.
    peer[24 + 17] ^= 1;
    let mut without = right.clone();
    without.truncate(20);
    without[2..4].copy_from_slice(&[0, 0]);
    for bytes in [bench.check("wrong"), unknown, peer, without, b"\x6e\x62".to_vec(), Vec::new()] {
        bench.receive(REMOTE, &bytes);
        assert!(bench.transmits().is_empty(), "{bytes:?}");
    }
    let stats = bench.ice.stats();
    assert_eq!((stats.dropped.integrity.get(), stats.dropped.unknown.get(), stats.dropped.malformed.get()), (2, 2, 2));
    assert_eq!(stats.checks_received.get(), 0);
    bench.receive(REMOTE, &right);
    assert_eq!(stats.checks_received.get(), 1);
    assert!(!bench.transmits().is_empty());
}

#[test]
fn a_response_counts_from_where_the_request_went_and_once() {
    let mut bench = Bench::new();
    let check = bench.check(&bench.local.pwd);
    bench.receive(REMOTE, &check);
    let sent = bench.transmits();
    let request = &sent.iter().find(|transmit| is_request(&transmit.bytes)).expect("a triggered check").bytes;
    let response = bench.respond(request, LOCAL);
    bench.receive("192.0.2.2:51820", &response);
    bench.receive("192.0.2.1:51821", &response);
    let stats = bench.ice.stats();
    assert_eq!((stats.dropped.unexpected.get(), bench.ice.pair(&PEER)), (2, None));
    bench.receive(REMOTE, &response);
    assert!(bench.ice.pair(&PEER).is_some());
    // Else a peer could make us keep one mapping per copy.
    let other = bench.respond(request, "198.51.100.9:9");
    bench.receive(REMOTE, &other);
    assert_eq!((stats.dropped.unexpected.get(), stats.responses.get()), (3, 1));
}

#[test]
fn requests_to_addresses_that_are_no_candidates_are_dropped() {
    let mut bench = Bench::new();
    let check = bench.check(&bench.local.pwd);
    bench.ice.handle_datagram(bench.now, address(REMOTE), Some(address("10.9.9.9:1").ip()), &check);
    bench.ice.handle_datagram(bench.now, address("[2001:db8::1]:7"), None, &check);
    assert!(bench.transmits().is_empty());
    assert_eq!(bench.ice.stats().dropped.local.get(), 2);
    bench.ice.handle_datagram(bench.now, address("[::ffff:192.0.2.1]:51820"), None, &check);
    assert_eq!(bench.transmits()[0].remote, address(REMOTE), "a dual-stack socket shows IPv4 so");
}

#[test]
fn no_stun_from_forbidden_prefixes() {
    let mut bench = Bench::new();
    bench.ice.set_forbidden(["100.64.0.0/10".parse().expect("a prefix")]);
    let check = bench.check(&bench.local.pwd);
    for source in ["100.64.0.5:51820", "127.0.0.1:51820", "169.254.169.254:80", "[fe80::1]:7", "192.0.2.1:0"] {
        bench.receive(source, &check);
    }
    assert!(bench.transmits().is_empty());
    assert_eq!(bench.ice.stats().dropped.source.get(), 5);
}

#[test]
fn a_closed_session_answers_nothing() {
    let mut bench = Bench::new();
    bench.connect();
    bench.ice.close(&PEER, 2, bench.now);
    assert!(bench.ice.pair(&PEER).is_some(), "another attempt");
    bench.ice.close(&PEER, 1, bench.now);
    let check = bench.check(&bench.local.pwd);
    bench.receive(REMOTE, &check);
    assert_eq!((bench.transmits().len(), bench.events().len()), (0, 0));
    assert_eq!(bench.ice.poll_timeout(), None);
    let stats = bench.ice.stats();
    assert_eq!((stats.sessions.get(), stats.connected.get()), (0, 0));
}

#[test]
fn a_new_session_replaces_the_old_one() {
    let mut bench = Bench::new();
    bench.connect();
    bench.open(2);
    assert_eq!(bench.ice.pair(&PEER), None);
    assert!(bench.events().iter().all(|event| matches!(event, Event::Candidate { attempt: 2, .. })));
    let stats = bench.ice.stats();
    assert_eq!((stats.sessions.get(), stats.connected.get(), stats.opened.get()), (1, 0, 2));
}
