//! The task against a server.

use std::sync::Arc;
use std::time::Duration;

use peer_core::key::PublicKey;
use tokio::time::Instant;

use peer_metrics::Shown;

use super::*;
use crate::proto::signal::EncryptedMessage;
use crate::sealed::Sealer;
use crate::test_server::{TestServer, private, url};

fn start(server: &TestServer, key: u8) -> (Signal, Arc<SignalStats>) {
    let stats = Arc::<SignalStats>::default();
    (spawn(Options { server: url(), identity: private(key) }, server.dial(), stats.clone()), stats)
}

async fn next(signal: &mut Signal) -> Event {
    tokio::time::timeout(Duration::from_secs(300), signal.events.recv()).await.expect("in time").expect("it runs")
}

async fn connected(server: &TestServer, key: u8) -> (Signal, Arc<SignalStats>) {
    let (mut signal, stats) = start(server, key);
    assert_eq!(next(&mut signal).await, Event::Connected);
    (signal, stats)
}

async fn disconnected(signal: &mut Signal) -> SignalError {
    match next(signal).await {
        Event::Disconnected { error, .. } => error,
        event => panic!("{event:?}"),
    }
}

fn public(key: u8) -> PublicKey {
    private(key).public_key()
}

fn offer(version: &str) -> Message {
    Message::Offer(Description {
        ice: None,
        listen_port: 51820,
        version: version.to_owned(),
        session: None,
        relay: Some("rel://relay.test:80".to_owned()),
        relay_ip: None,
    })
}

fn candidate(n: usize) -> Message {
    Message::Candidate(n.to_string())
}

#[tokio::test(start_paused = true)]
async fn an_offer_is_answered() {
    let server = TestServer::start();
    let ((mut alice, stats), (mut bob, _)) = (connected(&server, 1).await, connected(&server, 2).await);
    alice.sender.send(public(2), offer("a")).expect("queued");
    assert_eq!(next(&mut bob).await, Event::Message { from: public(1), message: offer("a") });
    bob.sender.send(public(1), Message::GoIdle).expect("queued");
    assert_eq!(next(&mut alice).await, Event::Message { from: public(2), message: Message::GoIdle });
    assert!(stats.stream.connected());
    assert_eq!((stats.messages(Direction::Sent), stats.messages(Direction::Received), stats.lost()), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn messages_to_a_peer_keep_their_order_whatever_the_server_does() {
    let server = TestServer::start();
    let ((alice, _), (mut bob, _)) = (connected(&server, 1).await, connected(&server, 2).await);
    // The first deliveries are the slowest; a slow peer holds nobody else up.
    server.script().delays = (0..20).map(|n| Duration::from_millis(n * 100)).collect();
    alice.sender.send(public(3), candidate(99)).expect("queued");
    for n in 0..20 {
        alice.sender.send(public(2), candidate(n)).expect("queued");
    }
    for n in 0..20 {
        assert_eq!(next(&mut bob).await, Event::Message { from: public(1), message: candidate(n) });
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_asked_again() {
    let server = TestServer::start();
    let ((alice, stats), (mut bob, _)) = (connected(&server, 1).await, connected(&server, 2).await);
    server.script().delays = vec![Duration::from_secs(3600); 2];
    let start = Instant::now();
    alice.sender.send(public(2), candidate(1)).expect("queued");
    assert_eq!(next(&mut bob).await, Event::Message { from: public(1), message: candidate(1) });
    assert!((20..=21).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!((server.script().sends, stats.lost()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_register_us_is_none() {
    let server = TestServer::start();
    server.script().no_header = true;
    let (mut signal, stats) = start(&server, 1);
    for _ in 0..3 {
        assert_eq!(disconnected(&mut signal).await, SignalError::NotRegistered);
    }
    assert!(!stats.stream.connected());
    assert_eq!(signal.sender.send(public(2), offer("a")), Err(NotSent::Offline));
    server.script().no_header = false;
    assert_eq!(next(&mut signal).await, Event::Connected);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_stays_as_long_as_heartbeats_return() {
    let server = TestServer::start();
    let (mut signal, stats) = connected(&server, 1).await;
    let quiet = tokio::time::timeout(Duration::from_secs(600), signal.events.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert!((18..=20).contains(&stats.messages(Direction::Received)), "{}", stats.messages(Direction::Received));
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_left() {
    let server = TestServer::start();
    let (mut signal, stats) = connected(&server, 1).await;
    server.script().swallow = true;
    let start = Instant::now();
    assert_eq!(disconnected(&mut signal).await, SignalError::Silent);
    assert_eq!(start.elapsed().as_secs(), 40);
    server.script().swallow = false;
    assert_eq!(next(&mut signal).await, Event::Connected);
    assert_eq!(stats.stream.opened(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_restarts_is_found_again() {
    let server = TestServer::start();
    let (mut signal, stats) = connected(&server, 1).await;
    server.go_down();
    disconnected(&mut signal).await;
    for _ in 0..5 {
        let error = disconnected(&mut signal).await.to_string();
        assert!(error.contains("the test server is down"), "{error}");
    }
    assert_eq!(signal.sender.send(public(2), offer("a")), Err(NotSent::Offline));
    server.come_back();
    let back = Instant::now();
    assert_eq!(next(&mut signal).await, Event::Connected);
    assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
    assert!(stats.stream.connected());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_authentic_or_not_understood_is_counted_and_dropped() {
    let server = TestServer::start();
    let (mut signal, stats) = connected(&server, 1).await;
    let envelope = |key: String, body| EncryptedMessage { key, remote_key: public(1).to_string(), body };
    let bob = Sealer::new(&private(2), &public(1));
    let garbage = [
        envelope("no key".to_owned(), bob.seal(&candidate(1).encode())),
        // Bob's words in Eve's name.
        envelope(public(3).to_string(), bob.seal(&candidate(1).encode())),
        envelope(public(2).to_string(), Vec::new()),
        envelope(public(2).to_string(), bob.seal(b"\xff\xff")),
        // An offer without a colon.
        envelope(public(2).to_string(), bob.seal(b"")),
    ];
    let count = garbage.len() as u64;
    for message in garbage {
        server.signal(&public(1), message).await;
    }
    // Other peers' heartbeats and our own messages mean nothing.
    server.signal(&public(1), envelope(public(2).to_string(), bob.seal(&Message::Heartbeat.encode()))).await;
    signal.sender.send(public(1), candidate(0)).expect("queued");
    server.signal(&public(1), envelope(public(2).to_string(), bob.seal(&candidate(2).encode()))).await;
    assert_eq!(next(&mut signal).await, Event::Message { from: public(2), message: candidate(2) });
    assert_eq!((stats.lost(), stats.stream.connected()), (count, true));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_slow_holds_the_server_up_and_the_stream_lives() {
    let server = TestServer::start();
    let (mut signal, stats) = connected(&server, 1).await;
    let bob = Sealer::new(&private(2), &public(1));
    let count = 2000;
    let sender = server.clone();
    let flood = tokio::spawn(async move {
        for n in 0..count {
            let body = bob.seal(&candidate(n).encode());
            let message = EncryptedMessage { key: public(2).to_string(), remote_key: public(1).to_string(), body };
            sender.signal(&public(1), message).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!((200..300).contains(&stats.messages(Direction::Received)), "{}", stats.messages(Direction::Received));
    for n in 0..count {
        assert_eq!(next(&mut signal).await, Event::Message { from: public(2), message: candidate(n) });
    }
    flood.await.expect("no panic");
    assert_eq!(stats.stream.opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_its_reader() {
    let server = TestServer::start();
    let (signal, stats) = connected(&server, 1).await;
    let Signal { events, sender, task } = signal;
    drop(events);
    task.await.expect("no panic");
    assert!(!stats.stream.connected());
    assert_eq!(sender.send(public(2), offer("a")), Err(NotSent::Offline));
}

#[tokio::test(start_paused = true)]
async fn figures_are_shown() {
    let server = TestServer::start();
    let (mut signal, stats) = connected(&server, 1).await;
    signal.sender.send(public(1), candidate(1)).expect("queued");
    let waited = tokio::time::timeout(Duration::from_secs(5), signal.events.recv()).await;
    assert!(waited.is_err());
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(Shown(stats)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
    for line in [
        "peer_signal_connected 1",
        "peer_signal_queue_messages 0",
        "peer_signal_keys 1",
        "peer_signal_keys_max 16896",
        "peer_signal_keys_derived_total 1",
        "peer_signal_streams_total 1",
        "peer_signal_disconnects_total 0",
        "peer_signal_messages_sent_total{kind=\"candidate\"} 1",
        "peer_signal_messages_received_total{kind=\"candidate\"} 1",
        "peer_signal_messages_lost_total{reason=\"forged\"} 0",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_sleep_the_stream_is_made_anew_at_once() {
    let server = TestServer::start();
    let (mut signal, _) = connected(&server, 1).await;
    let begun = Instant::now();
    signal.sender.renew();
    assert_eq!(disconnected(&mut signal).await, SignalError::Slept);
    assert_eq!(next(&mut signal).await, Event::Connected);
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}
