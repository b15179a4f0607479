//! What many datagrams may cost.

use std::time::Duration;

use peer_ice::candidate::{Candidate, Kind};
use peer_ice::{DownReason, Event};

use crate::bench::{Bench, PEER, address, is_request};

#[test]
fn strangers_have_a_budget_of_verifications() {
    let mut bench = Bench::new();
    let forged = bench.check("wrong");
    for _ in 0..1000 {
        bench.receive("192.0.2.66:7", &forged);
    }
    let stats = bench.ice.stats();
    assert_eq!((stats.dropped.integrity.get(), stats.dropped.budget.get()), (256, 744));
    // Elsewhere nobody notices.
    bench.connect();
    // A known source may send what it likes, from its own port only.
    for _ in 0..1000 {
        bench.receive(crate::bench::REMOTE, &forged);
    }
    assert_eq!(stats.dropped.budget.get(), 744);
}

#[test]
fn a_session_checks_at_a_bounded_rate() {
    let mut bench = Bench::new();
    for number in 1..=16 {
        let text = Candidate::new(Kind::Host, address(&format!("192.0.2.{number}:7")), None).to_string();
        bench.ice.add_remote_candidate(&PEER, &text, bench.now);
    }
    let end = bench.now + Duration::from_secs(11);
    let mut sent = 0;
    while let Some(at) = bench.ice.poll_timeout().filter(|at| *at <= end) {
        bench.now = at;
        bench.ice.handle_timeout(at);
        sent += bench.transmits().iter().filter(|transmit| is_request(&transmit.bytes)).count();
    }
    assert!((100..=160).contains(&sent), "a burst of 50 and 10 per second: {sent}");
}

#[test]
fn a_peer_that_roams_too_often_begins_anew() {
    let mut bench = Bench::new();
    bench.connect();
    for port in 1000..2000 {
        let check = bench.check(&bench.local.pwd);
        bench.receive(&format!("192.0.2.1:{port}"), &check);
        if let Some(down) = bench.events().into_iter().find(|event| matches!(event, Event::Down { .. })) {
            assert_eq!(down, Event::Down { peer: PEER, attempt: 1, reason: DownReason::Exhausted });
            assert!((1050..1070).contains(&port), "{port}");
            return;
        }
        bench.transmits();
    }
    panic!("a thousand addresses of one peer");
}
