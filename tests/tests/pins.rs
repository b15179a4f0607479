//! Pins have one owner, and nothing of an earlier life stays in force beside it.

mod common;

use common::{PATIENCE, SECOND, flow, lab, page};
use peer_common::DropReason;
use peer_tests::lab::{
    Binaries, ForeignProgram, GATEWAY, GATEWAY6, Lab, NODE_OVERLAY, NODE_OVERLAY6, OVERLAY, OVERLAY6, Plan, RuleEntry,
    page_within, ping, wait_for,
};

const OTHER: &str = "/run/lab/other-bpffs";

/// As after an update that mounts another bpffs: the old pins keep the old programs where they are.
fn killed_and_moved(plan: &Plan) -> Lab {
    let mut lab = lab(plan);
    page(lab.client(), GATEWAY);
    lab.node.kill().expect("kill");
    lab.node.namespace.mount_bpffs(OTHER.as_ref()).expect("a second bpffs");
    lab.node.bpffs = OTHER.into();
    lab
}

#[track_caller]
fn pages_come(lab: &Lab) {
    for service in [GATEWAY, GATEWAY6] {
        page_within(PATIENCE, &lab.client().namespace, service).expect("a page");
    }
}

#[test]
fn a_second_daemon_for_the_same_pins_is_refused_and_the_first_goes_on() {
    let mut lab = lab(&Plan::default());
    page(lab.client(), GATEWAY);
    let refused = lab.node.run_beside().expect("it ends");
    let pid = lab.node.daemon().expect("it runs").pid();
    assert!(!refused.status.success());
    let said = refused.stderr + &refused.stdout;
    let owner = format!("process {pid} (peer-daemon), in the network namespace net:[");
    for part in ["belongs to another running peer", &owner, "--interface-name", "--bpffs"] {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
    pages_come(&lab);
    // The lock ends with its owner, whichever way that goes.
    lab.node.kill().expect("kill");
    lab.node.start().expect("it has its pins back");
    pages_come(&lab);
}

#[test]
fn a_device_of_another_life_is_made_anew_where_its_pins_are_elsewhere() {
    let mut lab = killed_and_moved(&Plan::default());
    // What the old pins keep on the uplink is another matter.
    lab.node.namespace.exec("rm", &["-r", "/run/lab/bpffs/peer"]).expect("rm");
    lab.node.start().expect("start");
    assert_eq!(ForeignProgram::chain(&lab.node.namespace, "wt0").expect("query").len(), 2, "ours alone");
    pages_come(&lab);
    let log = lab.node.daemon().expect("it runs").log();
    assert!(log.contains("it is made anew"), "{log}");
    // A start with pins of its own adopts the device.
    lab.node.kill().expect("kill");
    lab.node.start().expect("start");
    pages_come(&lab);
    let log = lab.node.daemon().expect("it runs").log();
    assert!(!log.contains("it is made anew") && log.contains("adopted=true"), "{log}");
}

#[test]
fn tables_that_are_not_pinned_any_more_are_pinned_again() {
    let lab = lab(&Plan::default());
    let pins = lab.node.pins().expect("pins");
    lab.node.namespace.exec("sh", &["-c", "rm /run/lab/bpffs/peer/wt0/v*/maps/*"]).expect("rm");
    assert!(wait_for(PATIENCE, || lab.node.pins().expect("pins") == pins));
    pages_come(&lab);
}

#[test]
fn nothing_is_forwarded_unjudged_while_the_first_program_is_detached() {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    lab.node.config.rules = vec![RuleEntry::new("accept", "any", &[OVERLAY, OVERLAY6], &[])];
    lab.up().expect("up");
    let node_answers = || {
        [NODE_OVERLAY, NODE_OVERLAY6]
            .into_iter()
            .all(|address| ping(&lab.client().namespace, address, 1, SECOND).is_ok_and(|pings| pings.all_answered()))
    };
    assert!(wait_for(PATIENCE, node_answers), "what is permitted passes both programs");
    let sockets = [GATEWAY, GATEWAY6].map(|service| flow(lab.client(), service));
    let refused = || lab.node.dropped(DropReason::Unjudged).expect("metrics");
    let repaired = || lab.node.metric("peer_order_repairs_total", &[("kind", "attached")]).expect("metrics");
    let (forwarded, before) = (lab.node.kernel_forwarded().expect("counters"), refused());
    // Without its pin the link ends, and the program is out of its chain until the next look.
    lab.node.namespace.exec("sh", &["-c", "rm /run/lab/bpffs/peer/wt0/v*/links/peer_wt0_in-wt0"]).expect("rm");
    let mended = wait_for(SECOND * 15, || {
        for socket in &sockets {
            socket.ask(b"nobody permits this", SECOND / 50).expect("send");
        }
        repaired() > 0.0
    });
    assert!(mended, "it is attached again");
    assert!(refused() > before, "the second program has seen packets that the first did not pass");
    assert_eq!(lab.node.kernel_forwarded().expect("counters"), forwarded);
    assert!(wait_for(PATIENCE, node_answers), "what is permitted passes again");
    // The other way round nobody notices, and the second is put back behind the first.
    lab.node.namespace.exec("sh", &["-c", "rm /run/lab/bpffs/peer/wt0/v*/links/peer_wt0_last-wt0"]).expect("rm");
    assert!(wait_for(SECOND * 15, || repaired() > 1.0));
    assert!(wait_for(PATIENCE, node_answers));
}

/// A lab on a node that has no bpffs.
fn without_bpffs(arguments: &[&str]) -> Lab {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    lab.node.bpffs = "/run/lab/no-bpffs".into();
    lab.node.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    lab
}

#[test]
fn without_a_bpffs_the_node_serves_says_so_and_starts_anew_after_a_crash() {
    for attach in ["tcx", "clsact"] {
        let mut lab = without_bpffs(&["--attach", attach]);
        lab.up().expect("up");
        pages_come(&lab);
        let findings = lab.node.doctor().expect("doctor")["findings"].to_string();
        assert!(findings.contains("flows end with the daemon"), "{findings}");
        assert!(lab.node.daemon().expect("it runs").log().contains("nothing is pinned"));
        lab.node.kill().expect("kill");
        let chain = |device| ForeignProgram::chain(&lab.node.namespace, device).expect("query");
        assert!(wait_for(PATIENCE, || chain("eth0").is_empty()), "links end with the daemon");
        lab.node.start().expect("the next start finds nothing in its way");
        pages_come(&lab);
        let filters = lab.node.namespace.exec("tc", &["filter", "show", "dev", "eth0", "ingress"]).expect("tc");
        let expected = usize::from(attach == "clsact");
        assert_eq!(filters.matches("peer_uplink_in/wt0").count(), expected, "{filters}");
        assert!(lab.node.stop().expect("stop").success());
        let filters = lab.node.namespace.exec("tc", &["filter", "show", "dev", "eth0", "ingress"]).expect("tc");
        assert!(!filters.contains("peer_"), "{filters}");
        assert!(!lab.node.namespace.exec("ip", &["link"]).expect("ip").contains("wt0"));
    }
}

#[test]
fn where_pins_are_required_or_flows_kept_a_node_without_a_bpffs_is_refused() {
    for option in ["--require-pins", "--keep-dataplane"] {
        let refused = without_bpffs(&[option]).node.run_to_end().expect("it ends");
        let said = refused.stderr + &refused.stdout;
        assert!(!refused.status.success() && said.contains("is not a BPF file system"), "{option}: {said}");
    }
}
