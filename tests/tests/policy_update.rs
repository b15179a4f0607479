//! 10 000 rules are replaced by others under traffic: every packet is judged by all of the old ones or all of the new ones.

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::{SECOND, alone, answered, flow, lab, tell};
use peer_common::DropReason;
use peer_tests::lab::{
    Download, ECHO_PORT, EchoSocket, GATEWAY, LAN, LAN6, Lab, Namespace, OVERLAY, Plan, RuleEntry, Udp,
};

const RULES: usize = 10_000;
const REPLACEMENTS: usize = 8;
/// What the daemon is to need, by its own clock, on a machine that does nothing else.
const WANTED: Duration = Duration::from_millis(200);
/// What is a failure on any machine.
const TOO_LONG: Duration = Duration::from_secs(3);
/// Ports that one half of the rules opens and the other half closes.
const CLOSED: [u16; 4] = [7101, 7102, 7103, 7104];
const FORBIDDEN: &[u8] = b"forbidden by every policy";

/// Rules of which everything but `seed` says the same about the lab: the LAN is open to the overlay, but for some ports.
/// Written in halves, the tables would let pass what is forbidden or drop what is not: all numbers in them differ.
fn rules(seed: usize) -> Vec<RuleEntry> {
    let filler = |number: usize| {
        let number = number * 7 + seed * 13;
        let net = format!("10.{}.{}.0/24", number / 250 % 250, number % 250);
        RuleEntry {
            sources: vec![format!("100.64.{}.0/24", number % 200)],
            ..RuleEntry::new("accept", "tcp", &[&net], &[1000 + (number % 5000) as u16])
        }
    };
    let mut rules: Vec<_> = (0..RULES - 1 - CLOSED.len()).map(filler).collect();
    let place = |part: usize| (seed * 1013 + part * 2003) % (RULES - 100);
    rules.insert(place(0), RuleEntry::new("accept", "any", &[LAN, LAN6], &[]));
    for (part, port) in (1..).zip(CLOSED) {
        rules.insert(place(part), RuleEntry::new("drop", "udp", &[LAN], &[port]));
    }
    assert_eq!(rules.len(), RULES);
    rules
}

/// New flows, one after the other, until told to stop: each to an open port, which must answer, and to a closed one.
fn knock(member: &Namespace, stop: &AtomicBool, knocked: &AtomicU64) -> u64 {
    let any = "0.0.0.0".parse().expect("an address");
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let open = EchoSocket::open(member, (GATEWAY, ECHO_PORT).into()).expect("socket");
        assert!(answered(&open, b"open"), "a flow that every policy permits, after {answers}");
        answers += 1;
        let closed = Udp::bind(member, any, 0).expect("socket");
        for port in CLOSED {
            closed.send_to(FORBIDDEN, SocketAddr::new(GATEWAY, port)).expect("send");
            knocked.fetch_add(1, Ordering::Relaxed);
        }
    }
    answers
}

fn update_time(lab: &Lab) -> (Duration, Duration) {
    let metrics = lab.node.metrics().expect("metrics");
    let time = |name| Duration::from_secs_f64(metrics.sum(name, &[]));
    (time("peer_policy_compile_seconds"), time("peer_policy_write_seconds"))
}

#[test]
fn ten_thousand_rules_are_replaced_under_traffic_at_once_and_nothing_is_lost() {
    let _alone = alone();
    let mut lab = lab(&Plan::default());
    for port in CLOSED {
        lab.gateway.open_echo(GATEWAY, port).expect("echo");
    }
    assert!(lab.node.config.rules[0].sources.contains(&OVERLAY.to_owned()));
    lab.node.config.rules = rules(0);
    lab.node.reload().expect("reload");
    assert!(answered(&flow(lab.client(), GATEWAY), b"warm"));
    let count = |lab: &Lab, reason| lab.node.dropped(reason).expect("metrics");
    let before = [DropReason::PolicyDefault, DropReason::PolicyRule].map(|reason| count(&lab, reason));

    let download = Download::start(&lab.client().namespace, GATEWAY, 1 << 40).expect("download");
    let long_lived = flow(lab.client(), GATEWAY);
    let (stop, knocked) = (AtomicBool::new(false), AtomicU64::new(0));
    let member = lab.client().namespace.clone();
    let mut slowest = Duration::ZERO;
    let answers = thread::scope(|scope| {
        let knocking = scope.spawn(|| knock(&member, &stop, &knocked));
        for seed in 1..=REPLACEMENTS {
            lab.node.config.rules = rules(seed);
            let said = lab.node.reload().expect("reload");
            assert!(!said[0].contains("not reloaded"), "{said:?}");
            let (compiled, written) = update_time(&lab);
            tell(&format!("{RULES} rules replaced: compiled in {compiled:.1?}, written and in force in {written:.1?}"));
            slowest = slowest.max(compiled + written);
            assert!(long_lived.ask(b"a flow that stands", SECOND * 2).expect("send"), "after replacement {seed}");
        }
        stop.store(true, Ordering::Relaxed);
        knocking.join().expect("every flow was answered")
    });
    let stall = download.stop().expect("every byte was right");
    let entries = lab.node.metric("peer_policy_entries", &[]).expect("metrics");
    let knocked = knocked.load(Ordering::Relaxed);
    tell(&format!(
        "{answers} new flows answered and {knocked} refused meanwhile; {entries} entries; the slowest replacement took \
         {slowest:.1?} of {WANTED:?}; a download stood still for {stall:.1?} at most"
    ));
    assert!(answers > 20 && entries >= RULES as f64, "{answers} answers, {entries} entries");
    assert_eq!(lab.gateway.senders_of(FORBIDDEN), [], "nothing passed that every policy forbids");
    let after = [DropReason::PolicyDefault, DropReason::PolicyRule].map(|reason| count(&lab, reason));
    assert_eq!(after[0], before[0], "no packet found a policy without its rule");
    assert_eq!(after[1] - before[1], knocked as f64, "every forbidden packet was dropped by the rule that says so");
    assert!(stall < SECOND * 3, "the download stood still for {stall:?}");
    assert!(slowest < TOO_LONG, "{slowest:?}");
}
