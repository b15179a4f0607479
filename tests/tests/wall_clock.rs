//! A wall clock that goes back: peers take only initiations that are stamped later than all before.

mod common;

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{SECOND, page};
use peer_tests::lab::{Binaries, GATEWAY, Lab, Plan, wait_for};
use serde_json::{Value, json};

const STAMPS: &str = "/run/lab/state/stamps.json";
const DAY: Duration = Duration::from_secs(86_400);

/// Handshakes that the node began and the member answered, in this life of the daemon.
fn begun(lab: &Lab) -> f64 {
    lab.node.metric("peer_wireguard_handshakes_total", &[("result", "completed_as_initiator")]).expect("metrics")
}

fn kept(lab: &Lab) -> Value {
    serde_json::from_str(&lab.node.namespace.read(STAMPS).expect("kept")).expect("JSON")
}

#[test]
fn a_clock_set_back_before_a_restart_makes_no_handshake_fail() {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    // As if the wall clock had been a day ahead when the machine ran last.
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let ahead = u64::try_from((wall + DAY).as_nanos()).expect("before 2554");
    let stamps = json!({
        "public_key": lab.client().node_key(), "boot_id": "of another boot", "boot_time": 1, "stamp": ahead, "reserved": ahead,
    });
    lab.node.namespace.enter(|| fs::create_dir_all("/run/lab/state")).expect("a directory");
    lab.node.namespace.write(STAMPS.as_ref(), &stamps.to_string()).expect("written");
    lab.up().expect("up");
    page(lab.client(), GATEWAY);
    let log = lab.node.daemon().expect("daemon").log();
    assert_eq!(log.matches("the clock is wrong").count(), 1, "{log}");
    let doctor = lab.node.doctor().expect("doctor");
    let found = doctor["findings"].as_array().expect("findings").iter().filter(|found| found["check"] == "clock");
    let [finding] = &found.collect::<Vec<_>>()[..] else { panic!("doctor reports it, once: {doctor}") };
    assert_eq!(finding["severity"], "warning");
    assert!(finding["remedy"].as_str().expect("a remedy").contains("time service"), "{finding}");
    assert_eq!(lab.node.metric("peer_doctor_findings", &[("check", "clock")]).expect("metrics"), 1.0);
    // From then on the node begins the handshakes, as it knows where the member is.
    for life in 2..4 {
        assert!(lab.node.stop().expect("stop").success());
        let before = kept(&lab);
        assert!(before["stamp"].as_u64() >= Some(ahead), "{before}");
        assert_eq!(before["stamp"], before["reserved"], "a clean end needs no reserve");
        lab.node.start().expect("start");
        assert!(wait_for(SECOND * 4, || begun(&lab) == 1.0), "life {life}: the member takes what the node stamps");
        assert!(kept(&lab)["stamp"].as_u64() >= before["stamp"].as_u64());
        page(lab.client(), GATEWAY);
    }
    // Killed: what was reserved counts in another boot, and in this one the kernel's clock.
    lab.node.kill().expect("kill");
    lab.node.start().expect("start");
    assert!(wait_for(SECOND * 4, || begun(&lab) == 1.0), "after a crash");
    // Without what was kept the member refuses the node's, and begins by itself.
    assert!(lab.node.stop().expect("stop").success());
    lab.node.namespace.enter(|| fs::remove_file(STAMPS)).expect("removed");
    lab.node.start().expect("start");
    let initiated = [("result", "initiated")];
    let sent = lab.node.await_metric(SECOND * 4, 1.0, "peer_wireguard_handshakes_total", &initiated).expect("metrics");
    assert!(sent >= 1.0);
    lab.client().lose_session().expect("wg");
    page(lab.client(), GATEWAY);
    assert_eq!(begun(&lab), 0.0, "of the node's none was answered");
}
