//! A policy that the tables cannot hold, at the first start: nothing is served and the reason is said, until one fits.

mod common;

use std::net::Ipv4Addr;

use common::{PATIENCE, SECOND, answered, flow, page, page_by_relay};
use peer_test_control::account::{Action, Destination, Policy, Protocol, Resource};
use peer_test_control::member::Habits;
use peer_tests::lab::{Binaries, GATEWAY, Lab, MEMBERS, Mesh, MeshPlan, Node, Plan, RuleEntry, wait_for};

/// More prefixes of destinations than fit.
const PREFIXES: u32 = 66_000;
/// More routes than fit.
const ROUTES: u32 = 4100;
/// A debug build reads and compiles for a while.
const STARTED: std::time::Duration = SECOND.saturating_mul(30);

/// Waits until it says that it serves nothing, and why.
fn serves_nothing(node: &mut Node, why: &str) {
    let mut last = String::new();
    let said = wait_for(STARTED, || {
        last = node
            .probe("/readyz")
            .map_or_else(|error| format!("{error:#}"), |(status, body)| format!("{status} {body}"));
        last.starts_with("503") && last.contains("nothing is served") && last.contains(why)
    });
    let daemon = node.daemon().expect("started");
    assert!(daemon.ended().expect("a process").is_none(), "it lives:\n{}", daemon.log());
    assert!(said, "{last}:\n{}", daemon.log());
    assert_eq!(node.probe("/livez").expect("an answer").0, 200);
}

#[test]
fn a_file_with_too_large_a_policy_serves_nothing_until_it_is_smaller() {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    let fits = lab.node.config.rules.clone();
    let prefixes: Vec<_> =
        (0..PREFIXES).map(|number| format!("{}/32", Ipv4Addr::from((11 << 24) + 2 * number))).collect();
    let many = prefixes
        .chunks(1000)
        .map(|some| RuleEntry { destinations: some.to_vec(), ..RuleEntry::new("accept", "tcp", &[], &[80]) });
    lab.node.config.rules.extend(many);
    lab.node.launch().expect("launch");
    serves_nothing(&mut lab.node, "65536 fit");
    let log = lab.node.daemon().expect("daemon").log();
    assert!(log.contains("SIGHUP reads it again") && !log.contains("former policy"), "{log}");
    lab.clients[0].connect().expect("tunnel");
    let echo = flow(lab.client(), GATEWAY);
    assert!(!echo.ask(b"served?", SECOND * 2).expect("send"), "also what the file permits is not served in part");
    let said = lab.node.reload().expect("reload");
    assert!(said[0].contains("not reloaded") && said[0].contains("65536 fit"), "{said:?}");
    serves_nothing(&mut lab.node, "65536 fit");

    lab.node.config.rules = fits;
    let said = lab.node.reload().expect("reload");
    assert!(!said[0].contains("not reloaded"), "{said:?}");
    assert!(wait_for(PATIENCE, || lab.node.probe("/readyz").is_ok_and(|(status, _)| status == 200)));
    assert!(wait_for(PATIENCE, || answered(&echo, b"served")));
    page(lab.client(), GATEWAY);
    // Too large again: now there is a former policy, which stays.
    lab.node.config.rules = prefixes
        .chunks(1000)
        .map(|some| RuleEntry { destinations: some.to_vec(), ..RuleEntry::new("accept", "tcp", &[], &[80]) })
        .collect();
    let said = lab.node.reload().expect("reload");
    assert!(said[0].contains("not reloaded"), "{said:?}");
    assert_eq!(lab.node.probe("/readyz").expect("an answer").0, 200);
    page(lab.client(), GATEWAY);
    assert!(lab.node.stop().expect("stop").success());
}

#[test]
fn a_network_map_with_too_many_routes_serves_nothing_until_there_are_fewer() {
    let binaries = Binaries::find().expect("programs");
    let mut small = 0;
    let mut mesh = Mesh::prepare_with(&MeshPlan::default(), &binaries, |_, account| {
        let resources = &mut account.networks[0].resources;
        small = resources.len();
        resources.extend((0..ROUTES).map(|number| Resource {
            id: format!("many-{number}"),
            name: format!("many-{number}"),
            destination: Destination::Prefix(
                format!("{}/32", Ipv4Addr::from((11 << 24) + number)).parse().expect("a prefix"),
            ),
            groups: vec!["many".to_owned()],
            enabled: true,
        }));
        account.policies.push(Policy::new("many", Action::Accept, Protocol::All, &[MEMBERS], &["many"]));
    })
    .expect("mesh");
    mesh.node.launch().expect("launch");
    serves_nothing(&mut mesh.node, "routes");
    assert!(mesh.node.metric("peer_maps_total", &[("result", "refused")]).expect("metrics") >= 1.0);
    let status = mesh.node.status_text(&["-d"]).expect("status");
    assert!(status.contains("refused"), "{status}");
    // A restart comes to the same, by the map that it kept or by the server's.
    mesh.node.kill().expect("kill");
    mesh.node.launch().expect("launch");
    serves_nothing(&mut mesh.node, "routes");

    mesh.server.edit(|account| account.networks[0].resources.truncate(small));
    assert!(wait_for(STARTED, || mesh.node.probe("/readyz").is_ok_and(|(status, _)| status == 200)));
    // Not before: the lab's member takes long for so many routes.
    mesh.join(Habits::default()).expect("a member");
    page_by_relay(&mesh);
}
