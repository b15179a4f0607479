//! How programs are attached is the kernel's choice: TCX where it has it, else legacy filters; all else is the same.

mod common;

use std::fs;

use common::{PATIENCE, SECOND, answered, flow, lab, page};
use peer_tests::lab::{Binaries, Capabilities, GATEWAY, GATEWAY6, Lab, Namespace, Plan, wait_for};

/// The first kernel with TCX.
const TCX: (u32, u32) = (6, 6);

#[test]
fn attached_as_the_kernel_has_it_and_nothing_is_left() {
    let mut lab = lab(&Plan { capabilities: Capabilities::Deployed, ..Plan::default() });
    assert!(page(lab.client(), GATEWAY).starts_with("Hello"));
    assert!(page(lab.client(), GATEWAY6).starts_with("Hello"));
    assert!(flow(lab.client(), GATEWAY).ask(b"by UDP", SECOND * 2).expect("send"));
    let status = lab.node.status().expect("status");
    let why = status["dataplane"]["why"].as_str().expect("why");
    assert!(why.contains(if has_tcx() { "TCX" } else { "clsact" }), "{why}");
    let programs = status["dataplane"]["programs"].as_array().expect("programs");
    assert!(programs.len() >= 3, "{programs:?}");
    assert!(programs.iter().all(|program| program["position"] == 0), "each is first: {programs:?}");
    assert_eq!(clsact_devices(&lab), if has_tcx() { vec![] } else { vec!["eth0", "wt0"] });
    assert_eq!(lab.node.kernel_forwarded().expect("counters"), 0);
    lab.node.stop().expect("stop");
    assert_eq!(clsact_devices(&lab), [""; 0], "the qdiscs were ours");
    assert_eq!(lab.node.pins().expect("pins"), Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_kill_9_leaves_is_taken_over() {
    let mut lab = lab(&Plan::default());
    let socket = flow(lab.client(), GATEWAY);
    assert!(answered(&socket, b"before"));
    assert!(wait_for(SECOND * 10, || !lab.node.state_files().expect("state").is_empty()), "endpoints are kept");
    let pins = lab.node.pins().expect("pins");
    let qdiscs = clsact_devices(&lab);
    lab.node.kill().expect("kill");
    assert_eq!(clsact_devices(&lab), qdiscs, "filters stay");
    lab.node.start().expect("second start");
    // What comes under the old session is lost.
    assert!(wait_for(PATIENCE, || socket.ask_within(b"after", SECOND).expect("send")), "the flow goes on");
    let senders = [&b"before"[..], b"after"].map(|content| lab.gateway.senders_of(content)[0]);
    assert_eq!(senders[0], senders[1], "by the same mapping");
    assert_eq!((lab.node.pins().expect("pins"), clsact_devices(&lab)), (pins, qdiscs), "in place");
}

#[test]
fn a_refused_flow_is_said_in_the_log() {
    const QUOTA: usize = 16;
    let line = "new flow refused: its peer has too many";
    for capabilities in [Capabilities::Deployed, Capabilities::Minimal] {
        let mut lab = Lab::prepare(&Plan { capabilities, ..Plan::default() }, &Binaries::find().expect("programs"));
        let lab = lab.as_mut().expect("lab");
        lab.node.arguments = vec!["--peer-flows".to_owned(), QUOTA.to_string()];
        lab.up().expect("up");
        let open: Vec<_> = (0..QUOTA).map(|_| flow(lab.client(), GATEWAY)).collect();
        assert!(open.iter().all(|flow| answered(flow, b"within the quota")));
        let is_said = |lab: &mut Lab| lab.node.daemon().expect("daemon").log().contains(line);
        // A scan that counts while flows open may forget some until the next one: each try is another flow.
        let is_refused = |lab: &Lab| !flow(lab.client(), GATEWAY).ask_within(b"more", SECOND / 2).expect("send");
        assert!(wait_for(PATIENCE, || is_refused(lab) && is_said(lab)), "the flow is refused, and it is said");
        let log = lab.node.daemon().expect("daemon").log();
        let said = log.lines().find(|said| said.contains(line)).expect("said");
        // With CAP_PERFMON every verifier takes the program that logs.
        let by_program = said.contains("WARN peer_ebpf::log: ");
        assert!(by_program || capabilities == Capabilities::Minimal, "{log}");
    }
}

fn has_tcx() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().expect("major"), numbers.next().expect("minor")) >= TCX
}

/// Devices of the node with a clsact qdisc, sorted.
fn clsact_devices(lab: &Lab) -> Vec<String> {
    let node: &Namespace = &lab.node.namespace;
    let table = node.exec("tc", &["qdisc", "show"]).expect("tc");
    let clsact = table.lines().filter(|line| line.starts_with("qdisc clsact "));
    let mut devices: Vec<_> =
        clsact.filter_map(|line| Some(line.split_once(" dev ")?.1.split(' ').next()?.to_owned())).collect();
    devices.sort();
    devices
}
