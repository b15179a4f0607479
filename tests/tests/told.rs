//! What the log, `status`, `doctor` and metrics say, and that they say the same.

mod common;

use common::{SECOND, joined, lab};
use peer_tests::lab::{Binaries, Lab, Mesh, MeshPlan, Plan, RouteEntry, wait_for};

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
        let said = |finding: &serde_json::Value| finding["check"] == "readiness" && finding["subject"] == url;
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

#[test]
fn a_route_that_nobody_serves_is_told_by_all_alike() {
    for destination in ["10.222.0.0/24", "fd22:2::/64"] {
        let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
        lab.node.config.routes.push(RouteEntry::masqueraded(destination));
        lab.up().expect("up");
        let finding = |found: &serde_json::Value| {
            let found = found.as_array().expect("findings").iter();
            found.filter(|finding| finding["check"] == "uplinks").cloned().collect::<Vec<_>>()
        };
        let doctor = lab.node.doctor().expect("doctor");
        let status = lab.node.status().expect("status");
        let of_doctor = finding(&doctor["findings"]);
        assert_eq!(of_doctor.len(), 1, "{doctor}");
        assert_eq!((&of_doctor[0]["severity"], &of_doctor[0]["subject"]), (&"problem".into(), &destination.into()));
        assert_eq!(of_doctor, finding(&status["dataplane"]["findings"]));
        let counted = lab.node.metric("peer_doctor_findings", &[("check", "uplinks")]).expect("metric");
        assert_eq!(counted, 1.0);
        let log = lab.node.daemon().expect("it runs").log();
        assert_eq!(warnings(&log, &["[uplinks]", destination]).len(), 1, "{log}");
    }
}
