//! Servers and peers that send rubbish, and servers of other versions.

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use common::{SECOND, joined, page_by_relay, tell};
use peer_test_control::KeyPair;
use peer_test_control::map::Shape;
use peer_test_control::member::{Habits, Relay, Signal};
use peer_test_control::proto::management::{NetbirdConfig, NetworkMap, SyncResponse};
use peer_test_control::proto::signal::Body;
use peer_test_control::relay::token::issue;
use peer_test_control::relay::{Frame, PeerId};
use peer_test_control::sealed::seal_bytes;
use peer_test_control::server::Faults;
use peer_tests::lab::{Binaries, Download, GATEWAY, Mesh, MeshPlan, Namespace, page_within, wait_for};
use tokio::runtime::Builder;

const ENDLESS: u64 = 1 << 40;
/// Pieces of rubbish of each kind.
const PIECES: u32 = 300;
/// Lines that they may cost in the log, all together.
const LINES: usize = 200;

#[test]
fn every_version_s_way_of_saying_it_lets_pages_through() {
    for shape in [Shape::V0_66, Shape::V0_74_0, Shape::Ancient] {
        let change =
            |options: &mut peer_test_control::Options, _: &mut peer_test_control::Account| options.shape = shape;
        let binaries = Binaries::find().expect("programs");
        let mut mesh = Mesh::prepare_with(&MeshPlan::default(), &binaries, change).expect("mesh");
        mesh.node.start().expect("start");
        mesh.join(Habits::default()).expect("a member");
        page_within(SECOND * 10, &mesh.member().namespace, GATEWAY)
            .unwrap_or_else(|error| panic!("{shape:?}: {error:#}"));
        // What is told after a change has another shape than what is told first: 0.74.0 lost the relay by it.
        mesh.server.edit(|account| account.networks[0].resources[3].enabled = false);
        let serial = mesh.server.look(|account| account.serial) as f64;
        let in_force = || mesh.node.metric("peer_map_serial", &[]).is_ok_and(|seen| seen >= serial);
        assert!(wait_for(SECOND * 10, in_force), "{shape:?}: the change is in force");
        mesh.server.drop_streams();
        page_within(SECOND * 15, &mesh.member().namespace, GATEWAY)
            .unwrap_or_else(|error| panic!("{shape:?}: {error:#}"));
    }
}

#[test]
fn rubbish_from_management_changes_nothing() {
    let mut mesh = joined(&MeshPlan::default());
    let key = mesh.node_peer().expect("registered");
    let download = Download::start(&mesh.member().namespace, GATEWAY, ENDLESS).expect("download");
    let lines = log_lines(&mut mesh);
    for piece in 0..PIECES {
        let bytes: Vec<u8> = rubbish(piece);
        mesh.server.push_plaintext(&key, bytes.clone());
        mesh.server.push_body(&key, bytes);
        // Opened again, at its own pace.
        thread::sleep(SECOND / 20);
    }
    let old =
        NetworkMap { serial: 1, remote_peers_is_empty: true, firewall_rules_is_empty: true, ..NetworkMap::default() };
    for message in [
        SyncResponse::default(),
        SyncResponse { network_map: Some(old), ..SyncResponse::default() },
        SyncResponse { netbird_config: Some(NetbirdConfig::default()), ..SyncResponse::default() },
    ] {
        assert!(wait_for(SECOND * 15, || mesh.server.push(&key, &message)), "it has a stream again");
    }
    let stall = download.stop().expect("it went on");
    assert!(stall < SECOND * 2, "{stall:?}");
    assert!(wait_for(SECOND * 15, || mesh.server.look(|account| account.peers[&key].connected)));
    let written = log_lines(&mut mesh) - lines;
    tell(&format!("{} pieces of rubbish from management: {written} lines in the log", 2 * PIECES));
    assert!(written < LINES, "{written} lines");
    page_by_relay(&mesh);
}

#[test]
fn rubbish_by_signal_changes_nothing() {
    let mut mesh = joined(&MeshPlan::default());
    let key = mesh.node_peer().expect("registered");
    let member = mesh.member().keys.clone();
    let stranger = KeyPair::generate();
    let download = Download::start(&mesh.member().namespace, GATEWAY, ENDLESS).expect("download");
    let lines = log_lines(&mut mesh);
    let (server, url) = (&mesh.server, mesh.server.url());
    inside(&mesh.internet.namespace, async {
        let (mut signal, _) = Signal::connect(&url, stranger.clone()).await.expect("registered");
        for piece in 0..PIECES {
            signal.send_raw(&key, rubbish(piece)).await.expect("taken");
            let sealed = seal_bytes(&stranger, &key, &rubbish(piece)).expect("sealed");
            signal.send_raw(&key, sealed).await.expect("taken");
            let offer = Body { payload: "a:b".to_owned(), ..Body::default() };
            signal.send(&key, &offer).await.expect("taken");
            // By a peer of the map, too.
            server.signal_raw(member.public(), &key, seal_bytes(&member, &key, &rubbish(piece)).expect("sealed"));
            server.signal_raw("no key", &key, rubbish(piece));
        }
        for payload in ["", "no colon", "too:many:colons", ":x", "x:"] {
            for kind in -1..9 {
                let body = Body {
                    r#type: kind,
                    payload: payload.to_owned(),
                    relay_server_address: Some(format!("rel://{payload}")),
                    session_id: Some(vec![1]),
                    relay_server_ip: Some(vec![1, 2]),
                    ..Body::default()
                };
                // Idle is what a peer may ask for: it must not come last.
                if kind != 5 {
                    let sealed = peer_test_control::sealed::seal(&member, &key, &body).expect("sealed");
                    server.signal_raw(member.public(), &key, sealed);
                }
            }
        }
    });
    // Messages keep their order: with the last one all are read.
    let nameless = || mesh.node.metric("peer_signal_messages_lost_total", &[("reason", "sender_key")]);
    mesh.server.signal_raw("no key", &key, rubbish(PIECES));
    assert!(wait_for(SECOND * 10, || nameless().is_ok_and(|count| count >= f64::from(PIECES) + 1.0)), "all are read");
    let written = log_lines(&mut mesh) - lines;
    tell(&format!("{} pieces of rubbish by signal: {written} lines in the log", 5 * PIECES));
    assert!(written < LINES, "{written} lines");
    drop(download);
    page_by_relay(&mesh);
}

#[test]
fn rubbish_by_the_relay_changes_nothing() {
    let mut mesh = joined(&MeshPlan::default());
    let key = mesh.node_peer().expect("registered");
    let member = mesh.member().keys.public().to_owned();
    let download = Download::start(&mesh.member().namespace, GATEWAY, ENDLESS).expect("download");
    let lines = log_lines(&mut mesh);
    let server = &mesh.server;
    inside(&mesh.internet.namespace, async {
        let token = issue("interop-secret", std::time::SystemTime::now() + SECOND * 60);
        let url = server.url().replacen("http", "rel", 1);
        let relay = Relay::connect(&url, KeyPair::generate().public(), &token).await.expect("let in");
        let (mut sender, _receiver) = (relay.sender, relay.receiver);
        for piece in 0..PIECES {
            let frame = Frame::Transport(PeerId::of(&key), rubbish(piece).into());
            sender.send(&frame).await.expect("taken");
            // And what is no frame at all; then in a member's name.
            server.relay_raw(&key, rubbish(piece));
            let frame = Frame::Transport(PeerId::of(&member), rubbish(piece).into());
            server.relay_raw(&key, frame.encode().to_vec());
            // A pace that the download stands.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // All kinds but 4: it announces the end of the connection, and that is no rubbish.
        for kind in (0..=u8::MAX).filter(|kind| *kind != 4) {
            server.relay_raw(&key, vec![1, kind]);
            server.relay_raw(&key, [vec![1, kind], vec![0; 36]].concat());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let stall = download.stop().expect("it went on");
    assert!(stall < SECOND * 2, "{stall:?}");
    let written = log_lines(&mut mesh) - lines;
    tell(&format!("{} pieces of rubbish by the relay: {written} lines in the log", 3 * PIECES + 510));
    assert!(written < LINES, "{written} lines");
    page_by_relay(&mesh);
}

#[test]
fn rubbish_on_the_control_socket_changes_nothing() {
    let mut mesh = joined(&MeshPlan::default());
    let before = mesh.node.status_text(&["--json"]).expect("status");
    let lines = log_lines(&mut mesh);
    mesh.node.namespace.enter(|| {
        for piece in 0..PIECES {
            let mut socket = UnixStream::connect("/run/netbird.sock").expect("a socket");
            socket.set_read_timeout(Some(SECOND)).expect("set");
            // Some of it in the shape of a request.
            let start: &[u8] = match piece % 4 {
                0 => b"GET /status?",
                1 => b"GET /flows?limit=",
                2 => b"POST /status HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
                _ => b"",
            };
            // It may close before all of it is written.
            let _ = socket.write_all(&[start, &rubbish(piece), b" HTTP/1.1\r\n\r\n"].concat());
            let _ = socket.shutdown(std::net::Shutdown::Write);
            let _ = socket.read(&mut [0; 1024]);
        }
    });
    let written = log_lines(&mut mesh) - lines;
    tell(&format!("{PIECES} pieces of rubbish on the control socket: {written} lines in the log"));
    assert!(written < LINES, "{written} lines");
    let after = mesh.node.status_text(&["--json"]).expect("status");
    let [before, after] = [before, after].map(|text| serde_json::from_str::<serde_json::Value>(&text).expect("JSON"));
    for key in ["netbirdIp", "publicKey", "fqdn", "management", "signal", "daemonStatus"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    page_by_relay(&mesh);
}

#[test]
fn lost_messages_and_lost_frames_are_made_up_for() {
    let mut mesh = Mesh::prepare(&MeshPlan::default(), &Binaries::find().expect("programs")).expect("mesh");
    mesh.server.set_faults(Faults { signal_loses: true, relay_loses: true, ..Faults::default() });
    mesh.node.start().expect("start");
    mesh.join(Habits::default()).expect("a member");
    assert!(wait_for(SECOND * 10, || mesh.server.seen().signal_messages >= 2), "offers are repeated");
    mesh.server.set_faults(Faults { relay_loses: true, ..Faults::default() });
    // Handshakes are lost, those repeated early included.
    thread::sleep(SECOND * 3);
    mesh.server.set_faults(Faults::default());
    page_within(SECOND * 15, &mesh.member().namespace, GATEWAY).expect("page");
}

#[test]
fn a_relay_that_refuses_the_token_is_asked_again_and_not_all_the_time() {
    let mut mesh = joined(&MeshPlan::default());
    let key = mesh.node_peer().expect("registered");
    mesh.server.set_faults(Faults { relay_refuses: true, ..Faults::default() });
    mesh.server.drop_streams();
    assert!(wait_for(SECOND * 5, || !mesh.server.has_relay(&key)));
    let lines = log_lines(&mut mesh);
    // Time enough for asking all the time to show.
    thread::sleep(SECOND * 4);
    let written = log_lines(&mut mesh) - lines;
    assert!(written < LINES / 4, "{written} lines");
    mesh.server.set_faults(Faults::default());
    assert!(wait_for(SECOND * 20, || mesh.server.has_relay(&key)), "it is back");
    page_within(SECOND * 15, &mesh.member().namespace, GATEWAY).expect("page");
}

#[test]
fn a_short_lived_token_is_renewed() {
    let change =
        |options: &mut peer_test_control::Options, _: &mut peer_test_control::Account| options.token_ttl = SECOND * 4;
    let binaries = Binaries::find().expect("programs");
    let mut mesh = Mesh::prepare_with(&MeshPlan::default(), &binaries, change).expect("mesh");
    mesh.node.start().expect("start");
    mesh.join(Habits::default()).expect("a member");
    page_within(SECOND * 10, &mesh.member().namespace, GATEWAY).expect("page");
    // The first token has expired by then; only a newer one is let in.
    thread::sleep(SECOND * 6);
    let before = mesh.server.seen().relay_connections;
    mesh.server.drop_streams();
    assert!(wait_for(SECOND * 10, || mesh.server.seen().relay_connections >= before + 2), "both are back");
    page_within(SECOND * 15, &mesh.member().namespace, GATEWAY).expect("page");
}

fn log_lines(mesh: &mut Mesh) -> usize {
    // What is logged at debug is asked for by who wants it all.
    let log = mesh.node.daemon().expect("it runs").log();
    log.lines().filter(|line| !line.contains("DEBUG")).count()
}

/// Bytes that look like a message here and there, the same in each run.
fn rubbish(seed: u32) -> Vec<u8> {
    let length = (seed * 37 % 400) as usize;
    let mut bytes: Vec<u8> = (0..(length as u64).div_ceil(8))
        .flat_map(|word| peer_tests::lab::pattern_word(u64::from(seed) << 32 | word).to_le_bytes())
        .collect();
    bytes.truncate(length);
    if let Some(first) = bytes.first_mut() {
        // Tags of fields that exist.
        *first = [0x0a, 0x12, 0x2a, 0x08, 0x1a, *first][seed as usize % 6];
    }
    bytes
}

/// Runs `work` with sockets of this namespace.
fn inside(namespace: &Namespace, work: impl Future<Output = ()> + Send) {
    namespace.enter(|| Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work));
}
