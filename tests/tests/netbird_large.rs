//! A map of 10 000 peers and 5 000 route rules.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{SECOND, tell};
use peer_test_control::account::{Account, Action, Policy, Protocol};
use peer_test_control::member::{Habits, meta};
use peer_test_control::{KeyPair, Options};
use peer_tests::lab::{Binaries, GATEWAY, Mesh, MeshPlan, SERVICES, page_within, wait_for};

/// Policies on four resources each: 5 000 rules.
const POLICIES: u16 = 1250;
/// Members of each policy: 10 000 peers.
const MEMBERS_EACH: u16 = 8;
/// From message to dataplane, for all of it.
const WHOLE: Duration = Duration::from_secs(2);
/// The same for one peer more, on a machine that has other things to do, too; the aim is 25 ms on one that has not.
const DELTA: Duration = Duration::from_millis(100);
/// Entries of the map that are decoded for it: the peer, the four rules of its policy, and what stands around them.
const DECODED: f64 = 40.0;
/// Entries of the dataplane's tables that are written for it: two addresses, one source, and that of the peer before it in the
/// half of the policy that was in force before.
const WRITTEN: f64 = 10.0;
/// Resident memory for it, MiB.
const MEMORY: u64 = 120;

#[test]
fn ten_thousand_peers_and_five_thousand_rules() {
    let binaries = Binaries::find().expect("programs");
    let mut mesh = Mesh::prepare(&MeshPlan::default(), &binaries).expect("mesh");
    mesh.node.start().expect("start");
    mesh.join(Habits::default()).expect("a member");
    page_within(SECOND * 10, &mesh.member().namespace, GATEWAY).expect("page");
    let small = resident(&mut mesh);
    mesh.server.edit(populate);
    let start = Instant::now();
    let serial = in_force(&mesh, SECOND * 30);
    let (seen, applied) = (start.elapsed(), apply_time(&mesh));
    let large = resident(&mut mesh);
    tell(&format!(
        "10 000 peers, 5 000 rules (serial {serial}): applied in {applied:.3?}, seen {seen:.2?} after the change; {} MiB more than the {small} MiB before",
        large - small,
    ));
    assert_eq!(mesh.node.metric("peer_mesh_peers", &[]).expect("metrics"), 10_001.0);
    page_within(SECOND * 5, &mesh.member().namespace, GATEWAY).expect("page");
    // The half of the policy that is not in force is brought up to date after a while.
    let idle = settled(&mesh);
    tell(&format!("{idle} entries of tables written for all of it"));
    // A member takes maps of its own, at the same time as the node and on the same two cores.
    mesh.members.clear();
    let mut deltas = Vec::new();
    for index in 0..5 {
        let before = work(&mesh);
        mesh.server.edit(|account| {
            let key = KeyPair::generate();
            account.add_peer(key.public(), &meta(&format!("late{index}")), false, None).expect("an address");
            account.groups.get_mut("group0").expect("there").insert(key.public().to_owned());
        });
        // The server takes its time; whoever asks for metrics meanwhile takes some from what is measured.
        std::thread::sleep(SECOND);
        in_force(&mesh, SECOND * 10);
        deltas.push(apply_time(&mesh));
        let Work { decoded, written, compiled } = work(&mesh);
        let (decoded, written) = (decoded - before.decoded, written - before.written);
        assert!((1.0..=DECODED).contains(&decoded), "{decoded} entries of the map were decoded");
        assert!((1.0..=WRITTEN).contains(&written), "{written} entries of tables were written");
        assert_eq!(compiled, before.compiled, "nothing is compiled as a whole");
    }
    deltas.sort();
    let is_release = mesh.node.metric("peer_build_info", &[("profile", "release")]).expect("metrics") > 0.0;
    let build = if is_release { "a release build" } else { "a debug build" };
    tell(&format!("one peer more, by {build}: {deltas:.4?}"));
    mesh.join(Habits::default()).expect("a member");
    page_within(SECOND * 10, &mesh.member().namespace, GATEWAY).expect("page");
    let grown = resident(&mut mesh).saturating_sub(small);
    assert!(applied < WHOLE, "{applied:?}");
    // The quickest: whatever else the machine does only adds.
    assert!(deltas[0] < DELTA, "{deltas:?}");
    assert!(grown < MEMORY, "{grown} MiB");
}

#[test]
fn a_start_into_a_large_mesh() {
    let change = |_: &mut Options, account: &mut Account| populate(account);
    let binaries = Binaries::find().expect("programs");
    let mut mesh = Mesh::prepare_with(&MeshPlan::default(), &binaries, change).expect("mesh");
    let start = Instant::now();
    mesh.node.start().expect("start");
    tell(&format!("ready {:.2?} after the start into 10 000 peers", start.elapsed()));
    mesh.join(Habits::default()).expect("a member");
    page_within(SECOND * 10, &mesh.member().namespace, GATEWAY).expect("page");
    let key = mesh.node_peer().expect("registered");
    // Whoever falls behind is cut off by then.
    std::thread::sleep(SECOND * 2);
    assert!(mesh.server.look(|account| account.peers[&key].connected), "it keeps up");
    tell(&format!("{} messages of signal so far", mesh.server.seen().signal_messages));
    page_within(SECOND * 2, &mesh.member().namespace, GATEWAY).expect("page");
}

fn populate(account: &mut Account) {
    for policy in 0..POLICIES {
        let group = format!("group{policy}");
        for member in 0..MEMBERS_EACH {
            let key = KeyPair::generate();
            account.add_peer(key.public(), &meta(&format!("peer{policy}-{member}")), false, None).expect("an address");
            account.groups.entry(group.clone()).or_default().insert(key.public().to_owned());
        }
        let rule = Policy::new(&group, Action::Accept, Protocol::Tcp, &[&group], &[SERVICES]);
        account.policies.push(rule.on_ports(&[10_000 + policy]));
    }
}

/// Waits until the node has the account as it is now.
fn in_force(mesh: &Mesh, limit: Duration) -> u64 {
    let serial = mesh.server.look(|account| account.serial);
    let mut seen = 0.0;
    let there = wait_for(limit, || {
        seen = mesh.node.metric("peer_map_serial", &[]).unwrap_or_default();
        seen >= serial as f64
    });
    assert!(there, "serial {seen} of {serial}");
    serial
}

fn apply_time(mesh: &Mesh) -> Duration {
    Duration::from_secs_f64(mesh.node.metric("peer_map_apply_seconds", &[]).expect("metrics"))
}

/// What the node had to do so far.
struct Work {
    decoded: f64,
    written: f64,
    compiled: f64,
}

fn work(mesh: &Mesh) -> Work {
    let metric = |name, labels: &[(&str, &str)]| mesh.node.metric(name, labels).expect("metrics");
    Work {
        decoded: metric("peer_map_entries_read_total", &[("how", "decoded")]),
        written: metric("peer_table_writes_total", &[]),
        compiled: metric("peer_policy_compiles_total", &[]),
    }
}

/// Waits until the tables are as they shall be; how many entries were written so far.
fn settled(mesh: &Mesh) -> f64 {
    let mut last = work(mesh).written;
    let quiet = wait_for(SECOND * 30, || {
        // Longer than the other half of the policy waits.
        std::thread::sleep(SECOND * 6);
        std::mem::replace(&mut last, work(mesh).written) == last
    });
    assert!(quiet, "tables are written without end");
    last
}

/// MiB.
fn resident(mesh: &mut Mesh) -> u64 {
    let pid = mesh.node.daemon().expect("it runs").pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}
