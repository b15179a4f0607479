use super::*;

fn body(readiness: &Readiness) -> String {
    readiness.report().to_string()
}

#[test]
fn nothing_is_not_ready() {
    let readiness = Readiness::new();
    let report = readiness.report();
    assert!(!report.ready && !report.started && report.parts.is_empty());
    assert_eq!(body(&readiness), "not ready: no part has started\n");
}

#[test]
fn every_latch_must_say_so() {
    let readiness = Readiness::new();
    let (tun, program) = (readiness.latch("tun"), readiness.latch("program"));
    assert_eq!(body(&readiness), "tun: not ready: starting\nprogram: not ready: starting\n");
    tun.ready();
    assert!(!readiness.report().ready);
    assert_eq!(body(&readiness), "tun: ready\nprogram: not ready: starting\n");
    program.ready();
    assert!(readiness.report().ready);
    assert_eq!(body(&readiness), "tun: ready\nprogram: ready\n");
}

#[test]
fn a_latch_falls_back_and_recovers_and_the_start_stays_done() {
    let readiness = Readiness::new();
    let latch = readiness.latch("links");
    latch.ready();
    latch.not_ready("wt0 has lost its program");
    let report = readiness.report();
    assert!(!report.ready && report.started);
    assert_eq!(report.parts[0].reason, "wt0 has lost its program");
    latch.ready();
    assert_eq!(readiness.report().parts, [Part { name: "links", ready: true, reason: String::new() }]);
}

#[test]
fn started_needs_each_part_once_but_not_all_at_once() {
    let readiness = Readiness::new();
    let (a, b) = (readiness.latch("a"), readiness.latch("b"));
    a.ready();
    a.not_ready("flaps");
    assert!(!readiness.report().started);
    b.ready();
    let report = readiness.report();
    assert!(report.started && !report.ready);
    let _late = readiness.latch("late");
    assert!(readiness.report().started, "a part that comes later does not undo the start");
}

#[test]
fn a_dropped_latch_is_stopped_and_its_successor_takes_its_place() {
    let readiness = Readiness::new();
    let first = readiness.latch("relay");
    let other = readiness.latch("tun");
    first.ready();
    other.ready();
    drop(first);
    assert!(!readiness.report().ready);
    assert_eq!(body(&readiness), "relay: not ready: stopped\ntun: ready\n");
    let second = readiness.latch("relay");
    assert_eq!(body(&readiness), "relay: not ready: starting\ntun: ready\n");
    second.ready();
    assert!(readiness.report().ready);
    assert_eq!(readiness.report().parts.len(), 2);
}

#[test]
fn two_live_latches_of_one_name_both_count() {
    let readiness = Readiness::new();
    let (one, two) = (readiness.latch("shard"), readiness.latch("shard"));
    one.ready();
    assert!(!readiness.report().ready);
    two.ready();
    assert!(readiness.report().ready);
}

#[test]
fn draining_is_final() {
    let readiness = Readiness::new();
    let latch = readiness.latch("tun");
    latch.ready();
    readiness.clone().drain();
    latch.ready();
    let report = readiness.report();
    assert!(!report.ready && report.started);
    assert_eq!(report.to_string(), "drain: not ready: draining\ntun: ready\n");
}

#[test]
fn a_reason_stays_on_its_line() {
    let readiness = Readiness::new();
    let latch = readiness.latch("server");
    latch.not_ready("refused\r\nfake: ready\n");
    assert_eq!(body(&readiness), "server: not ready: refused fake: ready\n");
}

#[test]
fn latches_move_to_threads_and_outlive_a_panic_there() {
    let readiness = Readiness::new();
    let (good, bad) = (readiness.latch("good"), readiness.latch("bad"));
    let threads = [
        std::thread::spawn(move || {
            good.ready();
            good
        }),
        std::thread::spawn(move || {
            bad.ready();
            std::panic::resume_unwind(Box::new("dies with its latch"));
        }),
    ];
    let [good, bad] = threads.map(std::thread::JoinHandle::join);
    assert!(bad.is_err());
    assert_eq!(body(&readiness), "good: ready\nbad: not ready: stopped\n");
    drop(good);
}
