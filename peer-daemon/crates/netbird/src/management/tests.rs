//! The task against a server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use peer_core::key::PrivateKey;
use tokio::time::Instant;
use tonic::{Code, Status};

use peer_metrics::Shown;

use super::*;
use crate::call::CallError;
use crate::proto::management::{Checks, File, LoginResponse, NetworkMap, PeerSystemMeta, SyncResponse};
use crate::test_server::{Call, TestServer, private, url};

const KEY: &str = "A2C8E62B-38F5-4553-B31E-DD66C696CEBB";

#[derive(Clone, Default)]
struct TestNode {
    setup_key: Arc<Mutex<Option<SetupKey>>>,
}

impl Node for TestNode {
    async fn meta(&self, checks: &[String]) -> PeerSystemMeta {
        let files = checks.iter().map(|path| File { path: path.clone(), ..File::default() }).collect();
        PeerSystemMeta { hostname: "router".to_owned(), files, ..PeerSystemMeta::default() }
    }

    fn setup_key(&self) -> Option<SetupKey> {
        self.setup_key.lock().expect("no panic").clone()
    }
}

impl TestNode {
    fn with_key() -> Self {
        let node = Self::default();
        node.set_key();
        node
    }

    fn set_key(&self) {
        *self.setup_key.lock().expect("no panic") = Some(KEY.parse().expect("a key"));
    }
}

fn identity() -> PrivateKey {
    private(1)
}

fn start(server: &TestServer, node: &TestNode) -> (Management, Arc<ManagementStats>) {
    let stats = Arc::<ManagementStats>::default();
    let options = Options { ssh_public_key: "ssh-ed25519 AAAA".to_owned(), ..Options::new(url(), identity()) };
    (spawn(options, server.dial(), node.clone(), stats.clone()), stats)
}

/// A server that knows us, and the task up to its first, empty message.
async fn connected() -> (TestServer, Management, Arc<ManagementStats>) {
    let server = TestServer::start();
    server.script().known.insert(identity().public_key());
    let (mut management, stats) = start(&server, &TestNode::default());
    assert!(matches!(next(&mut management).await, Event::LoggedIn { by_setup_key: false, .. }));
    resumed(&mut management).await;
    (server, management, stats)
}

/// The next events are those of a new stream.
async fn resumed(management: &mut Management) {
    assert!(matches!(next(management).await, Event::Connected));
    assert!(matches!(next(management).await, Event::Update(_)));
}

async fn next(management: &mut Management) -> Event {
    tokio::time::timeout(Duration::from_secs(300), management.events.recv()).await.expect("in time").expect("it runs")
}

async fn disconnected(management: &mut Management) -> Error {
    match next(management).await {
        Event::Disconnected { error, .. } => error,
        // Not shown: it may be a large map.
        _ => panic!("another event than Disconnected"),
    }
}

fn map(serial: u64) -> SyncResponse {
    SyncResponse { network_map: Some(NetworkMap { serial, ..NetworkMap::default() }), ..SyncResponse::default() }
}

async fn serial(management: &mut Management) -> u64 {
    match next(management).await {
        Event::Update(message) => message.decode().expect("a message").network_map.expect("a map").serial,
        event => panic!("{event:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_setup_key_is_shown_only_to_a_server_that_does_not_know_us() {
    let server = TestServer::start();
    server.script().setup_keys.insert(KEY.to_owned());
    let (mut management, stats) = start(&server, &TestNode::with_key());
    assert!(matches!(next(&mut management).await, Event::LoggedIn { by_setup_key: true, .. }));
    resumed(&mut management).await;
    let calls = server.script().calls.clone();
    let shown: Vec<_> =
        calls.iter().map(|call| if let Call::Login { setup_key, .. } = call { setup_key } else { "-" }).collect();
    assert_eq!(shown, ["-", "", "-", KEY, "-", "-"]);
    // A fresh server key before each call.
    assert!(calls.iter().step_by(2).all(|call| *call == Call::ServerKey), "{calls:?}");
    let Call::Login { meta, keys, .. } = &calls[3] else { panic!("{calls:?}") };
    assert_eq!((&*meta.hostname, &*keys.ssh_pub_key), ("router", &b"ssh-ed25519 AAAA"[..]));
    assert_eq!(keys.wg_pub_key, identity().public_key().to_string().into_bytes());
    drop(management);

    let (mut management, again) = start(&server, &TestNode::with_key());
    assert!(matches!(next(&mut management).await, Event::LoggedIn { by_setup_key: false, .. }));
    assert_eq!((stats.stream.opened(), again.errors(Class::Refused)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn maps_arrive_in_order_and_whole() {
    let (server, mut management, stats) = connected().await;
    for n in 1..=20 {
        server.push(&map(n)).await;
        assert_eq!(serial(&mut management).await, n);
    }
    assert!(stats.stream.connected());
    assert_eq!(stats.updates(), 21);
}

#[tokio::test(start_paused = true)]
async fn a_large_map_passes_and_one_beyond_the_limit_is_an_error() {
    let server = TestServer::start();
    server.script().known.insert(identity().public_key());
    let stats = Arc::<ManagementStats>::default();
    let options = Options { max_message: 3 << 19, ..Options::new(url(), identity()) };
    let mut management = spawn(options, server.dial(), TestNode::default(), stats.clone());
    assert!(matches!(next(&mut management).await, Event::LoggedIn { .. }));
    resumed(&mut management).await;
    let peer = crate::proto::management::RemotePeerConfig { fqdn: "x".repeat(500), ..Default::default() };
    let large = |peers| {
        let map = NetworkMap { serial: 1, remote_peers: vec![peer.clone(); peers], ..NetworkMap::default() };
        SyncResponse { network_map: Some(map), ..SyncResponse::default() }
    };
    server.push(&large(2_000)).await;
    let Event::Update(message) = next(&mut management).await else { panic!("no update") };
    assert_eq!(message.decode().expect("a message").network_map.expect("a map").remote_peers.len(), 2_000);
    server.push(&large(4_000)).await;
    let error = disconnected(&mut management).await;
    assert!(matches!(error, Error::Call(CallError::Status { code: Code::OutOfRange, .. })), "{error}");
    resumed(&mut management).await;
    assert_eq!(stats.stream.opened(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_restarts_with_a_new_key_is_found_again() {
    let (server, mut management, stats) = connected().await;
    let down = Instant::now();
    server.go_down();
    assert_eq!(disconnected(&mut management).await.class(), Class::Transient);
    assert!(!stats.stream.connected());
    // Each further attempt says what is wrong.
    let error = disconnected(&mut management).await.to_string();
    assert!(error.contains("the test server is down"), "{error}");
    while down.elapsed() < Duration::from_secs(60) {
        disconnected(&mut management).await;
    }
    server.come_back();
    let back = Instant::now();
    resumed(&mut management).await;
    assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
    server.push(&map(7)).await;
    assert_eq!(serial(&mut management).await, 7);
    let logins = server.script().calls.iter().filter(|call| matches!(call, Call::Login { .. })).count();
    assert_eq!(logins, 1, "a known peer opens the stream only");
}

#[tokio::test(start_paused = true)]
async fn garbage_changes_nothing_and_the_stream_is_opened_anew() {
    let (server, mut management, stats) = connected().await;
    let other = crate::sealed::Sealer::new(&private(99), &identity().public_key());
    let ours = crate::sealed::Sealer::new(&server.script().key, &identity().public_key());
    let garbage = [Vec::new(), vec![0; 100], other.seal_message(&map(1)), ours.seal(b"\x2a\xff")];
    for (n, body) in garbage.iter().enumerate() {
        server.push_garbage(body).await;
        let error = disconnected(&mut management).await;
        assert_eq!((error.class(), stats.errors(Class::Garbage)), (Class::Garbage, n as u64 + 1), "{error}");
        resumed(&mut management).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_is_opened_anew() {
    let (server, mut management, _) = connected().await;
    server.end_stream(None).await;
    assert_eq!(disconnected(&mut management).await, Error::from(CallError::Ended { call: "Sync" }));
    resumed(&mut management).await;
    server.end_stream(Some(Status::internal("failed handling request"))).await;
    assert_eq!(disconnected(&mut management).await.class(), Class::Transient);
    resumed(&mut management).await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_peer_registers_again_with_the_key_there_is() {
    let server = TestServer::start();
    server.script().known.insert(identity().public_key());
    let node = TestNode::default();
    let (mut management, stats) = start(&server, &node);
    assert!(matches!(next(&mut management).await, Event::LoggedIn { .. }));
    resumed(&mut management).await;
    server.script().known.clear();
    server.end_stream(None).await;
    assert_eq!(disconnected(&mut management).await, Error::from(CallError::Ended { call: "Sync" }));
    assert_eq!(disconnected(&mut management).await.class(), Class::Refused);
    for _ in 0..3 {
        let event = next(&mut management).await;
        assert!(matches!(event, Event::NeedsSetupKey { .. }), "{event:?}");
    }
    // A key that the server does not take is not the end either.
    node.set_key();
    management.handle.retry();
    for _ in 0..3 {
        let event = next(&mut management).await;
        assert!(matches!(&event, Event::Refused { error, .. } if error.class() == Class::SetupKey), "{event:?}");
    }
    server.script().setup_keys.insert(KEY.to_owned());
    management.handle.retry();
    assert!(matches!(next(&mut management).await, Event::LoggedIn { by_setup_key: true, .. }));
    resumed(&mut management).await;
    assert_eq!(stats.errors(Class::SetupKey), 3);
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_asked_again() {
    let server = TestServer::start();
    server.script().known.insert(identity().public_key());
    server.script().refuse_sync = Some(Status::resource_exhausted("too many"));
    let (mut management, _) = start(&server, &TestNode::default());
    assert!(matches!(next(&mut management).await, Event::LoggedIn { .. }));
    for _ in 0..3 {
        assert_eq!(disconnected(&mut management).await.class(), Class::Transient);
    }
    server.script().refuse_sync = None;
    resumed(&mut management).await;
}

/// Seen with a real server whose store it could not read.
#[tokio::test(start_paused = true)]
async fn a_stream_without_a_message_is_no_connection() {
    let server = TestServer::start();
    server.script().known.insert(identity().public_key());
    server.script().fail_sync = Some(Status::internal("failed handling request"));
    let (mut management, stats) = start(&server, &TestNode::default());
    assert!(matches!(next(&mut management).await, Event::LoggedIn { .. }));
    for _ in 0..3 {
        let error = disconnected(&mut management).await.to_string();
        assert_eq!(error, "Sync: failed handling request (Internal)");
    }
    assert_eq!(stats.stream.opened(), 0);
    server.script().fail_sync = None;
    resumed(&mut management).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_after_its_time() {
    let (server, mut management, _) = connected().await;
    server.script().silent = true;
    server.end_stream(None).await;
    assert_eq!(disconnected(&mut management).await, Error::from(CallError::Ended { call: "Sync" }));
    let timeout = Error::from(CallError::Timeout { call: "GetServerKey", after: Duration::from_secs(10) });
    assert_eq!(disconnected(&mut management).await, timeout);
    server.script().silent = false;
    resumed(&mut management).await;
}

#[tokio::test(start_paused = true)]
async fn posture_checks_are_answered_when_they_change() {
    let server = TestServer::start();
    server.script().known.insert(identity().public_key());
    let checks = |files: &[&str]| vec![Checks { files: files.iter().copied().map(str::to_owned).collect() }];
    server.script().login = LoginResponse { checks: checks(&["/a"]), ..LoginResponse::default() };
    let (mut management, _) = start(&server, &TestNode::default());
    assert!(matches!(next(&mut management).await, Event::LoggedIn { .. }));
    resumed(&mut management).await;

    // The same checks, and a message without a map, ask nothing new; a failure is made good.
    server.push(&SyncResponse { checks: checks(&["/a"]), ..map(1) }).await;
    server.push(&SyncResponse::default()).await;
    server.script().refuse_meta = Some(Status::unavailable("not now"));
    server.push(&SyncResponse { checks: checks(&["/b", "/a", "/b"]), ..map(2) }).await;
    for _ in 0..3 {
        next(&mut management).await;
    }
    let is_meta = |call: &Call| matches!(call, Call::SyncMeta(_));
    for _ in 0..2 {
        let Call::SyncMeta(meta) = server.called(is_meta).await else { panic!("another call") };
        assert_eq!(meta.files.iter().map(|file| &*file.path).collect::<Vec<_>>(), ["/a", "/b"]);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!server.script().calls.iter().any(is_meta), "told once");
    management.handle.refresh_meta();
    server.called(is_meta).await;
}

#[tokio::test(start_paused = true)]
async fn single_calls_work_beside_the_stream() {
    let (server, mut management, _) = connected().await;
    management.handle.client().healthy().await.expect("healthy");
    server.push(&map(1)).await;
    assert_eq!(serial(&mut management).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_does_not_register_again() {
    let server = TestServer::start();
    server.script().setup_keys.insert(KEY.to_owned());
    let (mut management, _) = start(&server, &TestNode::with_key());
    assert!(matches!(next(&mut management).await, Event::LoggedIn { by_setup_key: true, .. }));
    resumed(&mut management).await;
    server.script().refuse_logout = Some(Status::failed_precondition("peer is linked to a network router"));
    let error = management.handle.client().logout().await.expect_err("refused");
    assert_eq!(error.to_string(), "Logout: peer is linked to a network router (FailedPrecondition)");
    server.script().refuse_logout = None;
    management.handle.client().logout().await.expect("taken");
    // The server ends the stream of a deleted peer; nobody comes back.
    server.stream_left().await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(server.script().known.is_empty() && management.task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_its_reader() {
    let (server, management, stats) = connected().await;
    let Management { events, task, .. } = management;
    drop(events);
    task.await.expect("no panic");
    assert!(!stats.stream.connected());
    server.stream_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_slow_holds_the_server_up() {
    let (server, mut management, stats) = connected().await;
    // More than the channels of server, connection and task together hold.
    let filler = crate::proto::management::RemotePeerConfig { fqdn: "x".repeat(1 << 18), ..Default::default() };
    let big = move |serial| SyncResponse {
        network_map: Some(NetworkMap { serial, remote_peers: vec![filler.clone()], ..NetworkMap::default() }),
        ..SyncResponse::default()
    };
    let pushes = tokio::spawn(async move {
        for n in 0..40 {
            server.push(&big(n)).await;
        }
        server
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!pushes.is_finished());
    assert!(stats.updates() < 8, "{}", stats.updates());
    for n in 0..40 {
        assert_eq!(serial(&mut management).await, n);
    }
    pushes.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn figures_are_shown() {
    let (_server, _management, stats) = connected().await;
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(Shown(stats)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
    for line in [
        "peer_management_connected 1",
        "peer_management_streams_total 1",
        "peer_management_updates_total 1",
        "peer_management_update_bytes_total 40",
        "peer_management_logins_total{kind=\"known\"} 1",
        "peer_management_logins_total{kind=\"setup_key\"} 0",
        "peer_management_errors_total{class=\"garbage\"} 0",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_sleep_the_stream_is_made_anew_at_once() {
    let (_server, mut management, _) = connected().await;
    let begun = Instant::now();
    management.handle.renew();
    let error = disconnected(&mut management).await;
    assert_eq!(error, CallError::Slept { call: "Sync" }.into());
    resumed(&mut management).await;
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}
