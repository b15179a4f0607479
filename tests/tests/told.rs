//! What the log, `status`, `doctor` and metrics say, and that they say the same.

mod common;

use common::{SECOND, joined, lab};
use peer_test_control::Account;
use peer_test_control::account::{Destination, Resource};
use peer_tests::lab::{Binaries, Lab, Mesh, MeshPlan, Plan, RouteEntry, wait_for};
use serde_json::Value;

/// Lines of the log at WARN and above that contain all of `parts`.
fn warnings(log: &str, parts: &[&str]) -> Vec<String> {
    let loud = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    loud.filter(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned).collect()
}

#[test]
fn an_outage_is_one_warning_per_reason_with_server_step_and_remedy() {
    let mut mesh = joined(&MeshPlan::default());
    let url = mesh.server.url();
    mesh.server.kill();
    let management = ["management cannot be reached", "step=\"connect\"", "refused", "remedy=", &url];
    let mut log = String::new();
    assert!(
        wait_for(SECOND * 20, || {
            log = mesh.node.daemon().expect("it runs").log();
            !warnings(&log, &management).is_empty()
        }),
        "{log}"
    );
    let (signal, relay) = (["signal cannot be reached", "refused"], ["cannot connect to the home relay", "refused"]);
    assert!(
        wait_for(SECOND * 20, || {
            log = mesh.node.daemon().expect("it runs").log();
            !warnings(&log, &signal).is_empty() && !warnings(&log, &relay).is_empty()
        }),
        "{log}"
    );
    // Attempts go on meanwhile: several of each.
    let failed =
        |mesh: &Mesh| mesh.node.metric("peer_management_errors_total", &[("class", "transient")]).expect("metric");
    let before = failed(&mesh);
    assert!(wait_for(SECOND * 60, || failed(&mesh) >= before + 3.0));
    log = mesh.node.daemon().expect("it runs").log();
    for parts in [&management[..], &signal, &relay] {
        assert_eq!(warnings(&log, parts).len(), 1, "{parts:?}:\n{log}");
    }
    mesh.server.resume().expect("back");
    let connected = |log: &str, what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert!(
        wait_for(SECOND * 90, || {
            log = mesh.node.daemon().expect("it runs").log();
            ["management is connected", "signal is connected", "home relay is connected"]
                .iter()
                .all(|what| connected(&log, what) == 2)
        }),
        "each came back once:\n{log}"
    );
}

#[test]
fn a_server_that_was_never_there_is_in_the_log_at_once() {
    let mut mesh = Mesh::prepare(&MeshPlan::default(), &Binaries::find().expect("programs")).expect("mesh");
    for (url, step) in [("http://no-such-name.invalid:80", "name"), ("http://127.0.0.1:9", "connect")] {
        mesh.node.joining.as_mut().expect("joins").url = url.to_owned();
        mesh.node.launch().expect("launch");
        let mut log = String::new();
        assert!(
            wait_for(SECOND * 15, || {
                log = mesh.node.daemon().expect("it runs").log();
                !warnings(&log, &["management cannot be reached", &format!("step=\"{step}\""), url]).is_empty()
            }),
            "{url}: {log}"
        );
        let doctor = mesh.node.doctor().expect("doctor");
        let found = doctor["findings"].as_array().expect("findings");
        let said = |finding: &Value| finding["check"] == "readiness" && finding["subject"] == url;
        assert!(found.iter().any(said), "{doctor}");
        assert!(mesh.node.stop().expect("stop").success());
    }
}

#[test]
fn a_clean_stop_says_nothing_at_warn_and_no_remedy_is_empty() {
    let mut lab = lab(&Plan::default());
    let mut mesh = joined(&MeshPlan::default());
    for node in [&mut lab.node, &mut mesh.node] {
        let daemon = node.daemon().expect("it runs");
        let before = daemon.log().lines().count();
        let status = daemon.terminate(SECOND * 15).expect("stop").expect("it ends");
        assert!(status.success(), "{status}");
        let log = daemon.log();
        let end: String = log.lines().skip(before).map(|line| format!("{line}\n")).collect();
        assert!(warnings(&end, &[]).is_empty(), "{end}");
        assert!(end.contains("stopping"), "{end}");
        assert!(!log.contains("remedy=\"\""), "{log}");
    }
}

/// Findings of that check.
fn of_check(findings: &Value, check: &str) -> Vec<Value> {
    let all = findings.as_array().expect("findings").iter();
    all.filter(|finding| finding["check"] == check).cloned().collect()
}

#[test]
fn in_netbird_mode_doctor_needs_no_file_to_tell_of_unserved_routes() {
    // Of IPv6: the default route of the lab serves all of IPv4.
    const NETS: [&str; 2] = ["fd22:2::/64", "fd22:3::/64"];
    let more = |_: &mut peer_test_control::Options, account: &mut Account| {
        let network = &mut account.networks[0];
        for net in NETS {
            let known = network.resources[0].clone();
            let destination = Destination::Prefix(net.parse().expect("a prefix"));
            network.resources.push(Resource { id: format!("far-{net}"), name: net.to_owned(), destination, ..known });
        }
    };
    let mut mesh = Mesh::prepare_with(&MeshPlan::default(), &Binaries::find().expect("programs"), more).expect("mesh");
    mesh.node.start().expect("start");
    // Neither --config nor --bpffs: the daemon says both.
    let mut command = mesh.node.namespace.command(&mesh.node.binary);
    let finished =
        command.args(["doctor", "--json", "--control-socket", "/run/netbird.sock"]).output().expect("doctor");
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    let report: Value = serde_json::from_slice(&finished.stdout).expect("JSON");
    let found = of_check(&report["findings"], "uplinks");
    assert_eq!(found.len(), NETS.len(), "{report}");
    for finding in &found {
        assert!(NETS.iter().any(|net| finding["subject"] == *net), "{finding}");
        let remedy = finding["remedy"].as_str().expect("a remedy");
        assert!(remedy.contains("dashboard") && !remedy.contains("`uplink`"), "{remedy}");
    }
    assert!(of_check(&report["findings"], "bpffs").iter().all(|finding| finding["severity"] == "note"), "{report}");
    assert_eq!(mesh.node.metric("peer_doctor_findings", &[("check", "uplinks")]).expect("metric"), 2.0);
}

#[test]
fn a_route_that_nobody_serves_is_told_by_all_alike() {
    for destination in ["10.222.0.0/24", "fd22:2::/64"] {
        let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
        lab.node.config.routes.push(RouteEntry::masqueraded(destination));
        lab.up().expect("up");
        let doctor = lab.node.doctor().expect("doctor");
        let status = lab.node.status().expect("status");
        let of_doctor = of_check(&doctor["findings"], "uplinks");
        assert_eq!(of_doctor.len(), 1, "{doctor}");
        assert_eq!((&of_doctor[0]["severity"], &of_doctor[0]["subject"]), (&"problem".into(), &destination.into()));
        assert_eq!(of_doctor, of_check(&status["dataplane"]["findings"], "uplinks"));
        let counted = lab.node.metric("peer_doctor_findings", &[("check", "uplinks")]).expect("metric");
        assert_eq!(counted, 1.0);
        let log = lab.node.daemon().expect("it runs").log();
        assert_eq!(warnings(&log, &["[uplinks]", destination]).len(), 1, "{log}");
    }
}

/// Members that select such a network are worse off than without it: said once, with the name of the network and what they see.
#[test]
fn what_this_version_cannot_serve_is_a_warning_and_a_finding() {
    let more = |_: &mut peer_test_control::Options, account: &mut Account| {
        let network = &mut account.networks[0];
        let known = network.resources[0].clone();
        let all = Destination::Prefix("0.0.0.0/0".parse().expect("a prefix"));
        let named = Destination::Domain("svc.test".to_owned());
        for (id, destination) in [("exit", all), ("named", named)] {
            network.resources.push(Resource { id: id.to_owned(), name: id.to_owned(), destination, ..known.clone() });
        }
    };
    let mut mesh = Mesh::prepare_with(&MeshPlan::default(), &Binaries::find().expect("programs"), more).expect("mesh");
    mesh.node.start().expect("start");
    let mut log = String::new();
    for (detail, seen) in [("0.0.0.0/0", "lose their Internet"), ("svc.test", "do not reach it")] {
        let told = ["[unsupported]", detail, seen, "remedy="];
        let once = wait_for(SECOND * 5, || {
            log = mesh.node.daemon().expect("it runs").log();
            warnings(&log, &told).len() == 1
        });
        assert!(once, "{told:?}:\n{log}");
    }
    let status = mesh.node.status().expect("status");
    assert_eq!(of_check(&status["dataplane"]["findings"], "unsupported").len(), 2, "{status}");
    assert_eq!(mesh.node.metric("peer_doctor_findings", &[("check", "unsupported")]).expect("metric"), 2.0);
}
