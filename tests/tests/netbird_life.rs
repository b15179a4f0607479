//! Restarts on both sides, outages, and how the node takes its leave.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, SECOND, joined, page_by_relay, tell};
use peer_test_control::account::{Routers, SetupKey};
use peer_test_control::member::Habits;
use peer_test_control::server::{Code, Faults};
use peer_tests::lab::{Binaries, Download, GATEWAY, Mesh, MeshPlan, ROUTERS, page_within, wait_for};

/// More than a scenario can bring through.
const ENDLESS: u64 = 1 << 40;
/// After management is back.
const RESYNC: Duration = Duration::from_secs(10);

#[test]
fn a_restart_with_state_is_the_same_peer() {
    let mut mesh = joined(&MeshPlan::default());
    let key = mesh.node_peer().expect("registered");
    assert!(mesh.node.stop().expect("stop").success());
    assert!(mesh.server.look(|account| account.peers.contains_key(&key)), "it did not take its leave for good");
    // It must not be needed.
    mesh.node.joining.as_mut().expect("joins").setup_key = None;
    mesh.node.start().expect("start");
    page_by_relay(&mesh);
    assert_eq!(mesh.node_peer().expect("registered"), key);
    assert_eq!(mesh.server.look(|account| account.peers.len()), 2);
    assert_eq!(mesh.server.seen().setup_keys, 2, "of the node once, of the member once");
}

#[test]
fn an_ephemeral_node_takes_its_leave_for_good() {
    for ephemeral in ["yes", "auto"] {
        let mut mesh = Mesh::prepare(&MeshPlan::default(), &Binaries::find().expect("programs")).expect("mesh");
        // The lab's state directory is in memory, and the peer registers by setup key: what `auto` looks at.
        mesh.node.joining.as_mut().expect("joins").ephemeral = ephemeral;
        mesh.node.start().expect("start");
        let key = mesh.node_peer().expect("registered");
        assert!(mesh.node.stop().expect("stop").success());
        assert!(!mesh.server.look(|account| account.peers.contains_key(&key)), "{ephemeral}: it is gone");
        assert_eq!(mesh.server.seen().logouts, 1);
        assert!(mesh.node.namespace.devices().expect("devices").iter().all(|device| device != "wt0"));
    }
}

#[test]
fn a_server_that_does_not_let_go_is_reported_and_no_failure() {
    let mut mesh = Mesh::prepare(&MeshPlan::default(), &Binaries::find().expect("programs")).expect("mesh");
    mesh.node.joining.as_mut().expect("joins").ephemeral = "yes";
    mesh.node.start().expect("start");
    let key = mesh.node_peer().expect("registered");
    mesh.server.edit(|account| account.networks[0].routers[0].routers = Routers::Peer(key.clone()));
    assert!(mesh.node.stop().expect("stop").success(), "exit code 0");
    assert!(mesh.server.look(|account| account.peers.contains_key(&key)), "refused");
}

#[test]
fn traffic_goes_on_while_management_is_away() {
    let mut mesh = joined(&MeshPlan { carriers_apart: true, ..MeshPlan::default() });
    let key = mesh.node_peer().expect("registered");
    let download = Download::start(&mesh.member().namespace, GATEWAY, ENDLESS).expect("download");
    mesh.server.kill();
    assert!(wait_for(SECOND * 5, || is_without_management(&mesh)));
    // Away for as long as it takes to ask for it in vain.
    let refused = || mesh.node.metric("peer_management_errors_total", &[("class", "transient")]).expect("metrics");
    let before = refused();
    assert!(wait_for(SECOND * 10, || refused() > before), "it is asked for");
    mesh.server.resume().expect("management is back");
    let back = Instant::now();
    assert!(wait_for(RESYNC, || mesh.server.look(|account| account.peers[&key].connected)), "its stream is back");
    tell(&format!("the stream was back {:.2?} after management", back.elapsed()));
    assert!(mesh.carrier().has_signal(&key) && mesh.carrier().has_relay(&key), "these never left");
    let stall = download.stop().expect("it went on");
    assert!(stall < SECOND * 2, "{stall:?}");
    assert_eq!(mesh.server.seen().setup_keys, 2, "nobody registered anew");
}

#[test]
fn a_restart_while_management_is_away_serves_the_kept_map() {
    let mut mesh = joined(&MeshPlan { carriers_apart: true, ..MeshPlan::default() });
    let member = mesh.member().keys.public().to_owned();
    assert!(wait_for(SECOND * 10, || mesh.node.keeps_map_with(&member)), "the map in force is kept");
    mesh.server.kill();
    mesh.node.kill().expect("kill");
    mesh.node.launch().expect("launch");
    let start = Instant::now();
    page_within(SECOND * 20, &mesh.member().namespace, GATEWAY).expect("page, by the kept map");
    tell(&format!("by the kept map a page came {:.2?} after the start", start.elapsed()));
    let text = mesh.node.status_text(&[]).expect("status");
    assert!(text.contains("Management: Disconnected"), "{text}");
    mesh.server.resume().expect("management is back");
    let key = mesh.node_peer().expect("registered");
    assert!(wait_for(RESYNC * 2, || mesh.server.look(|account| account.peers[&key].connected)));
    page_by_relay(&mesh);
}

#[test]
fn kill_9_and_a_clean_restart_come_back_through_the_relay() {
    let mut mesh = joined(&MeshPlan::default());
    for round in 0..3 {
        if round == 1 {
            assert!(mesh.node.stop().expect("stop").success());
        } else {
            mesh.node.kill().expect("kill");
        }
        mesh.node.start().expect("start");
        let start = Instant::now();
        page_within(PATIENCE, &mesh.member().namespace, GATEWAY).expect("page");
        tell(&format!("round {round}: a page {:.2?} after it was ready", start.elapsed()));
    }
}

#[test]
fn all_servers_restart_and_everybody_comes_back() {
    let mut mesh = joined(&MeshPlan::default());
    mesh.server.kill();
    assert!(wait_for(SECOND * 5, || is_without_management(&mesh)));
    mesh.server.resume().expect("back");
    let back = Instant::now();
    page_within(SECOND * 20, &mesh.member().namespace, GATEWAY).expect("page");
    tell(&format!("after a restart of all servers a page came {:.2?} later", back.elapsed()));
}

#[test]
fn dropped_streams_are_opened_again() {
    let mesh = joined(&MeshPlan::default());
    let key = mesh.node_peer().expect("registered");
    let before = mesh.server.seen();
    mesh.server.drop_streams();
    let all = || {
        mesh.server.has_signal(&key)
            && mesh.server.has_relay(&key)
            && mesh.server.look(|account| account.peers[&key].connected)
    };
    assert!(wait_for(RESYNC, || mesh.server.seen().syncs >= before.syncs + 2 && all()));
    page_by_relay(&mesh);
    assert!(mesh.server.seen().syncs <= before.syncs + 6, "without a storm: {:?}", mesh.server.seen());
}

#[test]
fn a_deleted_node_registers_again_with_its_mounted_key() {
    let mesh = joined(&MeshPlan::default());
    let key = mesh.node_peer().expect("registered");
    let address = mesh.server.look(|account| account.peers[&key].address);
    mesh.server.delete_peer(&key).expect("deleted");
    assert!(wait_for(RESYNC, || mesh.node_peer().is_ok()), "it is back");
    page_by_relay(&mesh);
    assert!(wait_for(RESYNC, || mesh.node.probe("/readyz").is_ok_and(|(status, _)| status == 200)));
    let now = mesh.node_peer().expect("registered");
    let new = mesh.server.look(|account| account.peers[&now].address);
    assert_ne!(new, address, "the server gave it another address");
    let addresses = mesh.node.namespace.exec("ip", &["-4", "address", "show", "dev", "wt0"]).expect("ip");
    assert!(addresses.contains(&new.to_string()) && !addresses.contains(&address.to_string()), "{addresses}");
}

#[test]
fn without_a_key_that_is_valid_it_is_not_ready_and_asks_again() {
    let mut mesh = Mesh::prepare(&MeshPlan::default(), &Binaries::find().expect("programs")).expect("mesh");
    let good = mesh.node.joining.as_ref().expect("joins").setup_key.clone().expect("a key");
    revoke(&mesh, &good, true);
    mesh.node.launch().expect("launch");
    assert!(wait_for(SECOND * 10, || mesh.server.seen().setup_keys > 0));
    let (status, reason) = mesh.node.probe("/readyz").expect("an answer");
    assert_eq!(status, 503, "{reason}");
    // Time enough for a storm.
    thread::sleep(SECOND * 3);
    assert!(mesh.server.seen().setup_keys < 10, "without a storm: {:?}", mesh.server.seen());
    let log = mesh.node.daemon().expect("it runs").log();
    assert!(!log.to_lowercase().contains(&good.to_lowercase()), "the key is not in the log");
    revoke(&mesh, &good, false);
    let ready = || mesh.node.probe("/readyz").is_ok_and(|(status, _)| status == 200);
    assert!(wait_for(SECOND * 70, ready), "ready once the key is valid again");
}

#[test]
fn an_own_address_that_changes_is_taken_over() {
    let mesh = joined(&MeshPlan::default());
    let key = mesh.node_peer().expect("registered");
    let new = "100.90.77.7".parse().expect("an address");
    mesh.server.edit(|account| account.peers.get_mut(&key).expect("registered").address = new);
    let has = || {
        mesh.node
            .namespace
            .exec("ip", &["-4", "address", "show", "dev", "wt0"])
            .is_ok_and(|text| text.contains("100.90.77.7/16"))
    };
    assert!(wait_for(RESYNC, has), "{:?}", mesh.node.namespace.exec("ip", &["address", "show", "dev", "wt0"]));
    page_within(PATIENCE, &mesh.member().namespace, GATEWAY).expect("page");
}

#[test]
fn refusals_of_a_moment_are_waited_out() {
    let mut mesh = Mesh::prepare(&MeshPlan::default(), &Binaries::find().expect("programs")).expect("mesh");
    let refusal = Some((Code::Unavailable, "not now".to_owned()));
    mesh.server.set_faults(Faults { refuse_login: refusal.clone(), ..Faults::default() });
    mesh.node.launch().expect("launch");
    assert!(wait_for(SECOND * 10, || mesh.server.seen().logins >= 2), "it asks again");
    mesh.server.set_faults(Faults {
        refuse_sync: Some((Code::ResourceExhausted, "too many".to_owned())),
        ..Faults::default()
    });
    assert!(wait_for(SECOND * 20, || mesh.server.seen().syncs >= 2), "it asks again");
    mesh.server.set_faults(Faults { slow: SECOND, ..Faults::default() });
    assert!(wait_for(SECOND * 30, || mesh.node.probe("/readyz").is_ok_and(|(status, _)| status == 200)));
    mesh.join(Habits::default()).expect("a member");
    page_within(PATIENCE, &mesh.member().namespace, GATEWAY).expect("page");
    assert!(mesh.server.look(|account| account.groups[ROUTERS].len()) == 1, "one node, whatever it took");
}

fn is_without_management(mesh: &Mesh) -> bool {
    mesh.node.status_text(&[]).is_ok_and(|text| text.contains("Management: Disconnected"))
}

fn revoke(mesh: &Mesh, key: &str, revoked: bool) {
    mesh.server.edit(|account| account.setup_keys.get_mut(&SetupKey::lookup(key)).expect("known").revoked = revoked);
}
