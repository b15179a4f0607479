//! Our node with official servers and official clients: by `NETBIRD_BIN_DIR`, ignored without it.

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use common::official_mesh::{Heavy, node_key, official_mesh};
use common::streams::{PORT, connect, drain, pour, serve};
use common::{SECOND, alone, measure, official, tell};
use peer_tests::lab::{
    Capabilities, Direction, Download, GATEWAY, GATEWAY6, HTTP_PORT, NODE_LAN, NODE_LAN6, Namespace, OfficialClient,
    OfficialMesh, Paths, lan, page_within, ping, wait_for,
};
use peer_tests::scenarios;
use peer_tests::suite::Suite;

/// What a change in the API may take to be in force.
const TOLD: Duration = Duration::from_secs(2);
/// From both in both maps to the first page.
const FIRST_PAGE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    Suite::default()
        .needing(
            mesh,
            scenarios![
                an_official_client_fetches_a_page_through_the_relay,
                first_pages_from_a_cold_start_of_both_sides,
                a_restart_with_state_is_the_same_peer_and_needs_no_key,
                an_ephemeral_node_is_gone_after_its_exit,
                changes_in_the_api_take_less_than_two_seconds,
                a_download_whose_policy_is_away_is_reset_at_both_ends_and_a_new_one_works,
                servers_that_are_killed_come_back_to_a_node_that_has_gone_on,
                a_restart_while_the_servers_are_away_keeps_its_map,
            ],
        )
        .needing(mesh_apart, scenarios![traffic_never_stops_while_management_is_away_and_begins_again_after_a_restart])
        // It measures: with the machine alone.
        .by_hand(mesh, scenarios![relayed_throughput_compared])
        .run()
}

fn an_official_client_fetches_a_page_through_the_relay(Heavy { _alone, mut mesh }: Heavy) {
    mesh.node.start().expect("start");
    let peer = mesh.peer("node").expect("registered");
    assert_eq!(peer["connected"], true, "{peer}");
    assert!(peer["ip"].as_str().is_some_and(|ip| ip.starts_with("100.")), "{peer}");
    assert!(peer["version"].as_str().is_some_and(|version| version.contains('.')), "{peer}");
    let client = mesh.join().expect("an official client");
    let ready = Instant::now();
    let page = page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
    let took = ready.elapsed();
    assert_eq!(page, format!("Hello from the LAN, {NODE_LAN}\n"));
    if client.has_ipv6().expect("addresses") {
        let page = page_within(SECOND * 5, &client.namespace, GATEWAY6).expect("page");
        assert_eq!(page, format!("Hello from the LAN, {NODE_LAN6}\n"));
    } else {
        tell("NOT SHOWN: IPv6, which these servers do not give");
    }
    let key = node_key(&mesh);
    let relayed = || client.connection(&key).expect("status").as_deref() == Some("Relayed");
    assert!(wait_for(SECOND * 5, relayed));
    Download::start(&client.namespace, GATEWAY, 5_000_000).expect("download").finish().expect("whole");
    assert!(ping(&client.namespace, GATEWAY, 3, SECOND).expect("ping").all_answered());
    assert_eq!(mesh.node.kernel_forwarded().expect("counters"), 0);
    assert_eq!(mesh.node.namespace.exec("iptables-save", &[]).expect("iptables").trim(), "");
    assert_eq!(mesh.node.namespace.exec("nft", &["list", "ruleset"]).expect("nft").trim(), "");
    tell(&format!("the first page came {:.2} s after the client had joined", took.as_secs_f64()));
    assert!(took < FIRST_PAGE, "{took:?}");
}

fn first_pages_from_a_cold_start_of_both_sides(Heavy { _alone, mut mesh }: Heavy) {
    mesh.node.start().expect("start");
    let mut client = mesh.join().expect("an official client");
    page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
    let mut times = Vec::new();
    for _ in 0..5 {
        client.kill().expect("kill");
        mesh.node.kill().expect("kill");
        mesh.node.start().expect("start");
        client.launch().expect("launch");
        let connected = || {
            client
                .status()
                .is_ok_and(|status| status["management"]["connected"] == true && status["signal"]["connected"] == true)
        };
        assert!(wait_for(SECOND * 20, connected));
        let both = Instant::now();
        page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
        times.push(both.elapsed());
    }
    tell(&format!("first pages from a cold start of both sides: {times:.2?}"));
    assert!(times.iter().all(|time| *time < FIRST_PAGE), "{times:?}");
}

fn a_restart_with_state_is_the_same_peer_and_needs_no_key(Heavy { _alone, mut mesh }: Heavy) {
    mesh.node.start().expect("start");
    let client = mesh.join().expect("an official client");
    page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
    let before = mesh.peer("node").expect("registered");
    assert!(mesh.node.stop().expect("stop").success());
    mesh.node.joining.as_mut().expect("joins").setup_key = None;
    mesh.node.start().expect("start");
    let after = mesh.peer("node").expect("registered");
    assert_eq!((&before["id"], &before["ip"]), (&after["id"], &after["ip"]));
    page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
}

fn an_ephemeral_node_is_gone_after_its_exit(Heavy { _alone, mut mesh }: Heavy) {
    let joining = mesh.node.joining.as_mut().expect("joins");
    (joining.setup_key, joining.ephemeral) = (Some(mesh.ephemeral_key.clone()), "auto");
    mesh.node.start().expect("start");
    mesh.peer("node").expect("registered");
    assert!(mesh.node.stop().expect("stop").success());
    mesh.peer("node").expect_err("it is gone");
}

fn changes_in_the_api_take_less_than_two_seconds(Heavy { _alone, mut mesh }: Heavy) {
    mesh.node.start().expect("start");
    let client = mesh.join().expect("an official client");
    page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
    // Pushes are a second apart: what joining has caused must be over.
    thread::sleep(SECOND * 3);
    let start = Instant::now();
    let policy = mesh.add_policy("no-web", "drop", "tcp", &[80]).expect("a policy");
    let dropped = || !quick(&client.namespace);
    assert!(wait_for(TOLD, dropped), "dropped");
    tell(&format!("a policy took effect after {:.2?}", start.elapsed()));
    assert!(ping(&client.namespace, GATEWAY, 1, SECOND).expect("ping").all_answered(), "the rest goes on");
    mesh.api.call("DELETE", &format!("/api/policies/{policy}"), None).expect("deleted");
    let start = Instant::now();
    assert!(wait_for(TOLD, || quick(&client.namespace)), "accepted again");
    tell(&format!("and ended after {:.2?}", start.elapsed()));
    // As above.
    thread::sleep(SECOND * 3);
    let networks = || mesh.node.status_text(&[]).expect("status");
    let body =
        serde_json::json!({"name": "new", "address": "203.0.113.128/25", "enabled": true, "groups": [group(&mesh)]});
    mesh.api.create(&format!("/api/networks/{}/resources", mesh.network), &body).expect("a resource");
    let start = Instant::now();
    assert!(wait_for(TOLD, || networks().contains("203.0.113.128/25")), "{}", networks());
    tell(&format!("a route took effect after {:.2?}", start.elapsed()));
}

/// The policy is away for six seconds: an official member and the server are both told by the next packet.
fn a_download_whose_policy_is_away_is_reset_at_both_ends_and_a_new_one_works(Heavy { _alone, mut mesh }: Heavy) {
    mesh.node.start().expect("start");
    let client = mesh.join().expect("an official client");
    page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
    let mut services = vec![GATEWAY];
    services.extend(client.has_ipv6().expect("addresses").then_some(GATEWAY6));
    for service in services {
        let server = serve(&mesh.gateway.namespace, service, pour);
        let mut stream = connect(&client.namespace, service);
        stream.read_exact(&mut vec![0; 1 << 20]).expect("it is under way");
        let member = thread::spawn(move || (drain(stream), Instant::now()));
        let policy = mesh.add_policy("no-download", "drop", "tcp", &[PORT]).expect("a policy");
        let away = Instant::now();
        assert_eq!(server.join().expect("no panic"), ErrorKind::ConnectionReset, "the server is told");
        let (told, when) = member.join().expect("no panic");
        assert_eq!(told, ErrorKind::ConnectionReset, "and the member");
        let took = when.saturating_duration_since(away);
        assert!(took < TOLD, "{took:?}");
        // Whatever else would come of it has come by then.
        thread::sleep((SECOND * 6).saturating_sub(away.elapsed()));
        mesh.api.call("DELETE", &format!("/api/policies/{policy}"), None).expect("deleted");
        let server = serve(&mesh.gateway.namespace, service, |mut stream| stream.write_all(b"again").expect("write"));
        let permitted =
            || client.namespace.enter(|| TcpStream::connect_timeout(&(service, PORT).into(), SECOND / 2)).ok();
        let mut stream = None;
        assert!(wait_for(TOLD * 2, || {
            stream = permitted();
            stream.is_some()
        }));
        let mut told = String::new();
        stream.expect("connected").read_to_string(&mut told).expect("a new download");
        assert_eq!(told, "again");
        server.join().expect("no panic");
    }
}

fn servers_that_are_killed_come_back_to_a_node_that_has_gone_on(Heavy { _alone, mut mesh }: Heavy) {
    mesh.node.start().expect("start");
    let client = mesh.join().expect("an official client");
    page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
    // The relay is in the same process: what is shown is that everything comes back by itself.
    mesh.server.kill().expect("kill");
    let noticed = || mesh.node.status_text(&[]).is_ok_and(|text| text.contains("Management: Disconnected"));
    assert!(wait_for(SECOND * 10, noticed));
    mesh.server.resume().expect("resume");
    let back = Instant::now();
    assert!(
        wait_for(SECOND * 10, || mesh.peer("node").is_ok_and(|peer| peer["connected"] == true)),
        "within ten seconds"
    );
    tell(&format!("the node's stream was back {:.2?} after the servers", back.elapsed()));
    // The client takes its time.
    page_within(SECOND * 60, &client.namespace, GATEWAY).expect("page");
    tell(&format!("and a page came {:.2?} after them", back.elapsed()));
}

fn a_restart_while_the_servers_are_away_keeps_its_map(Heavy { _alone, mut mesh }: Heavy) {
    mesh.node.start().expect("start");
    let client = mesh.join().expect("an official client");
    page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
    assert!(wait_for(SECOND * 10, || mesh.node.status_text(&[]).is_ok_and(|text| text.contains("Peers count: 1/1"))));
    let member = client.key().expect("a key");
    assert!(wait_for(SECOND * 10, || mesh.node.keeps_map_with(&member)), "the map in force is kept");
    mesh.server.kill().expect("kill");
    mesh.node.kill().expect("kill");
    mesh.node.launch().expect("launch");
    let serves = || mesh.node.status_text(&[]).is_ok_and(|text| text.contains("198.51.100.0/24"));
    assert!(wait_for(SECOND * 10, serves), "{}", mesh.node.status_text(&[]).unwrap_or_default());
    mesh.server.resume().expect("resume");
    page_within(SECOND * 60, &client.namespace, GATEWAY).expect("page");
}

/// With signal and relay as programs of their own: what goes is management alone.
fn traffic_never_stops_while_management_is_away_and_begins_again_after_a_restart(Heavy { _alone, mut mesh }: Heavy) {
    mesh.node.start().expect("start");
    let client = mesh.join().expect("an official client");
    page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
    let endless = Download::start(&client.namespace, GATEWAY, 1 << 40).expect("download");
    mesh.server.kill().expect("kill");
    // Away for longer than either side waits for an answer.
    thread::sleep(SECOND * 8);
    assert!(quick(&client.namespace), "new flows are let in, too");
    mesh.server.resume().expect("resume");
    let back = Instant::now();
    assert!(wait_for(SECOND * 10, || mesh.peer("node").is_ok_and(|peer| peer["connected"] == true)), "in ten seconds");
    tell(&format!("the node's stream was back {:.2?} after management", back.elapsed()));
    let stall = endless.stop().expect("every byte was right");
    tell(&format!("meanwhile a download stood still for {stall:.2?} at most"));
    assert!(stall < SECOND, "{stall:?}");

    let member = client.key().expect("a key");
    assert!(wait_for(SECOND * 10, || mesh.node.keeps_map_with(&member)), "the map in force is kept");
    mesh.server.kill().expect("kill");
    mesh.node.kill().expect("kill");
    mesh.node.launch().expect("launch");
    let start = Instant::now();
    page_within(SECOND * 60, &client.namespace, GATEWAY).expect("page");
    tell(&format!("started without management, the node served a page after {:.2?}", start.elapsed()));
    mesh.server.resume().expect("resume");
}

/// Relayed TCP through ours and through an official node, with the same official client.
fn relayed_throughput_compared(Heavy { _alone, mut mesh }: Heavy) {
    const SECONDS: u32 = 6;
    mesh.node.start().expect("start");
    mesh.gateway.start_iperf().expect("iperf3");
    let client = mesh.join().expect("an official client");
    page_within(SECOND * 15, &client.namespace, GATEWAY).expect("page");
    let ours = [Direction::Upload, Direction::Download]
        .map(|direction| measure(&client.namespace, mesh.node.daemon().expect("it runs"), direction, SECONDS));
    assert!(mesh.node.stop().expect("stop").success());
    let (twin, mut gateway) = lan("official node").expect("a LAN");
    gateway.start_iperf().expect("iperf3");
    let official: OfficialClient = mesh.join_router(twin).expect("an official node");
    page_within(SECOND * 60, &client.namespace, GATEWAY).expect("page");
    let theirs = [Direction::Upload, Direction::Download]
        .map(|direction| measure(&client.namespace, official.process().expect("it runs"), direction, SECONDS));
    for ((name, (rate, cpu)), (their_rate, their_cpu)) in ["upload", "download"].iter().zip(ours).zip(theirs) {
        tell(&format!(
            "{name}: ours {rate:.3} Gbit/s and {cpu:.2} CPU s per GiB, official {their_rate:.3} and {their_cpu:.2}: ratios {:.2} and {:.2}",
            rate / their_rate,
            cpu / their_cpu,
        ));
        assert!(rate >= their_rate && cpu <= their_cpu * 0.5);
    }
}

fn mesh() -> Result<Heavy, String> {
    official_mesh(Paths::Relay)
}

/// With servers that are programs of their own.
fn mesh_apart() -> Result<Heavy, String> {
    let (official, _alone) = (official()?.clone(), alone());
    tell(&format!("official programs {}", official.version));
    let mesh = OfficialMesh::prepare_apart(official, Capabilities::Deployed).expect("official servers");
    let mesh = mesh.ok_or("NETBIRD_BIN_DIR has no `management`, `signal` and `relay`")?;
    Ok(Heavy { _alone, mesh })
}

/// Whether a connection comes about within a moment.
fn quick(from: &Namespace) -> bool {
    let address = std::net::SocketAddr::new(GATEWAY, HTTP_PORT);
    from.enter(|| TcpStream::connect_timeout(&address, SECOND / 5)).is_ok()
}

fn group(mesh: &OfficialMesh) -> String {
    mesh.api.find("/api/groups", peer_tests::lab::SERVICES).expect("a group")["id"].as_str().expect("an id").to_owned()
}
