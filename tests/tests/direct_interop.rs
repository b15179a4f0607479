//! Direct paths with official servers and clients: by `NETBIRD_BIN_DIR`, ignored without it.

mod common;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::official_mesh::{Heavy, node_key, official_mesh, status};
use common::{SECOND, measure, tell};
use peer_tests::lab::{
    Direction, Download, GATEWAY, NODE_LAN, OfficialClient, OfficialMesh, Paths, lan, page_within, wait_for,
};
use peer_tests::scenarios;
use peer_tests::suite::Suite;
use serde_json::Value;

/// Clients that may join until both orders of keys were seen: all of one order happens once in 4 000 runs.
const CLIENTS: usize = 12;
/// From the client's start to its first direct packet, with a margin for a busy machine.
const DIRECT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    Suite::default()
        .needing(
            mesh,
            scenarios![
                an_official_client_connects_directly_in_both_orders_of_keys,
                servers_that_are_killed_cost_a_direct_path_nothing,
                a_direct_path_that_dies_gives_way_to_the_relay_and_comes_back,
                a_restart_of_the_node_comes_back_directly,
            ],
        )
        // They measure: with the machine alone.
        .by_hand(mesh, scenarios![first_pages_compared, direct_throughput_compared])
        .run()
}

fn an_official_client_connects_directly_in_both_orders_of_keys(Heavy { _alone, mut mesh }: Heavy) {
    mesh.node.start().expect("start");
    let key = node_key(&mesh);
    let mut seen = [false; 2];
    for _ in 0..CLIENTS {
        let client = mesh.join().expect("an official client");
        let joined = Instant::now();
        let theirs = client.key().expect("a key");
        let node_is_greater = key > theirs;
        if std::mem::replace(&mut seen[usize::from(node_is_greater)], true) {
            continue;
        }
        let text = page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
        assert_eq!(text, format!("Hello from the LAN, {NODE_LAN}\n"));
        let page = joined.elapsed();
        is_direct(&client, &key);
        let direct = joined.elapsed();
        tell(&format!(
            "the node's key is the {} one: the first page came {page:.2?}, the direct path at most {direct:.2?} after the client had joined",
            if node_is_greater { "greater" } else { "smaller" },
        ));
        Download::start(&client.namespace, GATEWAY, 5_000_000).expect("download").finish().expect("whole");
        let peer = peer_of(&mesh, &theirs);
        assert_eq!(peer["connectionType"], "P2P", "{peer}");
        assert_eq!(peer["iceCandidateType"], serde_json::json!({"local": "host", "remote": "host"}), "{peer}");
        assert!(peer["latency"].as_u64().is_some_and(|nanos| nanos > 0), "{peer}");
        if seen == [true; 2] {
            return;
        }
    }
    panic!("{CLIENTS} clients and only one order of keys");
}

fn servers_that_are_killed_cost_a_direct_path_nothing(Heavy { _alone, mut mesh }: Heavy) {
    mesh.node.start().expect("start");
    let client = mesh.join().expect("an official client");
    page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
    is_direct(&client, &node_key(&mesh));
    let download = Download::start(&client.namespace, GATEWAY, 1 << 40).expect("download");
    mesh.server.kill().expect("kill");
    let noticed = || {
        let text = mesh.node.status_text(&[]).unwrap_or_default();
        text.contains("Management: Disconnected") && text.contains("Relays: 0/")
    };
    assert!(wait_for(SECOND * 60, noticed), "{}", mesh.node.status_text(&[]).unwrap_or_default());
    // Longer than either side waits for an answer to a check.
    std::thread::sleep(SECOND * 8);
    let stall = download.stop().expect("every byte was right");
    tell(&format!("management, signal and relay were killed under a download: it stood still for {stall:.2?} at most"));
    assert!(stall < SECOND / 10, "{stall:?}");
    mesh.server.resume().expect("resume");
}

fn a_direct_path_that_dies_gives_way_to_the_relay_and_comes_back(Heavy { _alone, mut mesh }: Heavy) {
    mesh.node.start().expect("start");
    let client = mesh.join().expect("an official client");
    page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
    let key = node_key(&mesh);
    is_direct(&client, &key);
    let download = Download::start(&client.namespace, GATEWAY, 1 << 40).expect("download");
    // Between both, nobody hears of it.
    let blocked = mesh.internet.block_udp(51820).expect("nft");
    let begun = Instant::now();
    let relayed = || client.connection(&key).expect("status").as_deref() == Some("Relayed");
    assert!(wait_for(SECOND * 20, relayed), "it goes on through the relay");
    let back = begun.elapsed();
    blocked.lift().expect("nft");
    assert!(
        wait_for(SECOND * 30, || client.connection(&key).expect("status").as_deref() == Some("P2P")),
        "direct again"
    );
    let stall = download.stop().expect("every byte was right: no connection was lost");
    tell(&format!("a direct path died under a download: relayed after {back:.2?}, longest stall {stall:.2?}"));
    assert!(stall < SECOND, "{stall:?}");
}

fn a_restart_of_the_node_comes_back_directly(Heavy { _alone, mut mesh }: Heavy) {
    mesh.node.start().expect("start");
    let client = mesh.join().expect("an official client");
    page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
    let key = node_key(&mesh);
    is_direct(&client, &key);
    mesh.node.kill().expect("kill");
    mesh.node.start().expect("start");
    page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
    is_direct(&client, &key);
}

/// From the client's start to its first page, with our node and with an official one.
fn first_pages_compared(Heavy { _alone, mut mesh }: Heavy) {
    const TURNS: usize = 5;
    let (mut client, mut twin, _) = with_twin(&mut mesh);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        client.kill().expect("kill");
        mesh.node.start().expect("start");
        times[0].push(first_page(&mut client));
        assert!(mesh.node.stop().expect("stop").success());
        client.kill().expect("kill");
        twin.launch().expect("launch");
        times[1].push(first_page(&mut client));
        twin.kill().expect("kill");
    }
    let [ours, theirs] = times.map(|mut times| {
        times.sort();
        times
    });
    tell(&format!("from the client's start to the first page: ours {ours:.2?}, official {theirs:.2?}"));
    assert!(ours[TURNS / 2] <= theirs[TURNS / 2] + SECOND / 5);
}

/// TCP by a direct path through our node and through an official one, in turns, with the same official client.
fn direct_throughput_compared(Heavy { _alone, mut mesh }: Heavy) {
    const SECONDS: u32 = 6;
    const TURNS: usize = 3;
    mesh.gateway.start_iperf().expect("iperf3");
    let (client, mut twin, twins_key) = with_twin(&mut mesh);
    let mut figures: [[Vec<(f64, f64)>; 2]; 2] = Default::default();
    for _ in 0..TURNS {
        mesh.node.start().expect("start");
        page_within(SECOND * 60, &client.namespace, GATEWAY).expect("page");
        is_direct(&client, &node_key(&mesh));
        for (at, direction) in [Direction::Upload, Direction::Download].into_iter().enumerate() {
            let daemon = mesh.node.daemon().expect("it runs");
            figures[0][at].push(measure(&client.namespace, daemon, direction, SECONDS));
        }
        assert!(mesh.node.stop().expect("stop").success());
        twin.launch().expect("launch");
        page_within(SECOND * 60, &client.namespace, GATEWAY).expect("page");
        is_direct(&client, &twins_key);
        for (at, direction) in [Direction::Upload, Direction::Download].into_iter().enumerate() {
            figures[1][at].push(measure(&client.namespace, twin.process().expect("it runs"), direction, SECONDS));
        }
        twin.kill().expect("kill");
    }
    let median = |values: &[(f64, f64)], which: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = values.iter().map(which).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for (at, (name, wanted)) in [("upload", 1.35), ("download", 1.3)].into_iter().enumerate() {
        let [(rate, cpu), (their_rate, their_cpu)] =
            [0, 1].map(|node: usize| (median(&figures[node][at], |f| f.0), median(&figures[node][at], |f| f.1)));
        tell(&format!(
            "{name}: ours {rate:.3} Gbit/s and {cpu:.2} CPU s per GiB, official {their_rate:.3} and {their_cpu:.2}: ratios {:.2} (wanted {wanted}) and {:.2} (wanted 0.6)",
            rate / their_rate,
            cpu / their_cpu,
        ));
        assert!(rate >= their_rate * wanted && cpu <= their_cpu * 0.6);
    }
}

/// A client, and an official node with its key, on a LAN of its own like ours; neither node runs.
fn with_twin(mesh: &mut OfficialMesh) -> (OfficialClient, OfficialClient, String) {
    let client = mesh.join().expect("an official client");
    let (namespace, mut gateway) = lan("official node").expect("a LAN");
    gateway.start_iperf().expect("iperf3");
    let mut twin = mesh.join_router(namespace).expect("an official node");
    page_within(SECOND * 60, &client.namespace, GATEWAY).expect("page");
    mesh.kept.push(gateway);
    let key = twin.key().expect("a key");
    twin.kill().expect("kill");
    (client, twin, key)
}

fn first_page(client: &mut OfficialClient) -> Duration {
    let start = Instant::now();
    client.launch().expect("launch");
    page_within(SECOND * 60, &client.namespace, GATEWAY).expect("page");
    start.elapsed()
}

#[track_caller]
fn is_direct(client: &OfficialClient, key: &str) {
    let mut last = None;
    let direct = wait_for(DIRECT, || {
        last = client.connection(key).expect("status");
        last.as_deref() == Some("P2P")
    });
    assert!(direct, "{last:?}: {}", client.status().unwrap_or_default());
}

fn mesh() -> Result<Heavy, String> {
    official_mesh(Paths::Any)
}

fn peer_of(mesh: &OfficialMesh, key: &str) -> Value {
    let status = status(mesh);
    let peers = status["peers"]["details"].as_array().cloned().unwrap_or_default();
    peers.into_iter().find(|peer| peer["publicKey"] == key).expect("a peer of the map")
}
