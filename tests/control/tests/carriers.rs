//! Signal and relay as a peer meets them.

mod common;

use bytes::Bytes;
use common::{Bench, SECOND};
use peer_test_control::KeyPair;
use peer_test_control::member::{Relay, RelayReceiver, RelaySender, Signal};
use peer_test_control::proto::signal::Body;
use peer_test_control::proto::signal::body::Type;
use peer_test_control::relay::token::{Token, issue};
use peer_test_control::relay::{Frame, PeerId};
use peer_test_control::server::Faults;
use std::time::SystemTime;
use tokio::time::timeout;

#[test]
fn signal_carries_to_those_who_are_there_and_drops_the_rest() {
    let bench = Bench::start(|_, _| ());
    bench.runtime.block_on(async {
        let (one, other) = (KeyPair::generate(), KeyPair::generate());
        let url = bench.server.url();
        let (mut sender, _) = Signal::connect(&url, one.clone()).await.expect("registered");
        let offer = Body { r#type: Type::Offer.into(), payload: ":".to_owned(), ..Body::default() };
        sender.send(other.public(), &offer).await.expect("dropped without a word");
        let (_, mut receiver) = Signal::connect(&url, other.clone()).await.expect("registered");
        let answer = Body { r#type: Type::Answer.into(), ..offer.clone() };
        sender.send(other.public(), &answer).await.expect("sent");
        let got = timeout(SECOND * 5, receiver.next()).await.expect("in time").expect("no error");
        assert_eq!(got, Some((one.public().to_owned(), answer)), "the first one was dropped");
        bench.server.set_faults(Faults { signal_loses: true, ..Faults::default() });
        sender.send(other.public(), &offer).await.expect("lost");
        bench.server.set_faults(Faults { signal_without_header: true, ..Faults::default() });
        assert!(Signal::connect(&url, other.clone()).await.is_err());
        assert!(bench.server.has_signal(one.public()) || bench.server.seen().signal_streams == 3);
        assert_eq!(bench.server.seen().signal_messages, 3);
    });
}

#[test]
fn a_newer_stream_of_signal_takes_the_place_of_the_older() {
    let bench = Bench::start(|_, _| ());
    bench.runtime.block_on(async {
        let keys = KeyPair::generate();
        let (mut sender, mut older) = Signal::connect(&bench.server.url(), keys.clone()).await.expect("registered");
        let (_, mut newer) = Signal::connect(&bench.server.url(), keys.clone()).await.expect("registered");
        let end = timeout(SECOND * 5, older.next()).await.expect("in time");
        assert!(matches!(end, Ok(None)), "{end:?}");
        let beat = Body { r#type: Type::Heartbeat.into(), ..Body::default() };
        sender.send(keys.public(), &beat).await.expect("to itself");
        let got = timeout(SECOND * 5, newer.next()).await.expect("in time").expect("no error");
        assert_eq!(got, Some((keys.public().to_owned(), beat)));
        bench.server.drop_streams();
        let end = timeout(SECOND * 5, newer.next()).await.expect("in time");
        assert!(matches!(end, Ok(None)), "{end:?}");
    });
}

#[test]
fn the_relay_tells_who_comes_and_goes_and_carries_between_them() {
    let bench = Bench::start(|_, _| ());
    bench.runtime.block_on(async {
        let (mut sender, mut receiver) = relay(&bench, "one").await;
        let (one, two) = (PeerId::of("one"), PeerId::of("two"));
        sender.send(&Frame::Subscribe(vec![two])).await.expect("sent");
        sender.send(&Frame::Transport(two, Bytes::from_static(b"too early"))).await.expect("sent");
        let (mut second, mut second_receiver) = relay(&bench, "two").await;
        assert_eq!(next(&mut receiver).await, Frame::Online(vec![two]));
        second.send(&Frame::Subscribe(vec![one])).await.expect("sent");
        assert_eq!(next(&mut second_receiver).await, Frame::Online(vec![one]), "already there");
        sender.send(&Frame::Transport(two, Bytes::from_static(b"there"))).await.expect("sent");
        let from = Frame::Transport(one, Bytes::from_static(b"there"));
        assert_eq!(next(&mut second_receiver).await, from, "the sender's name in place of the recipient's");
        second.send(&Frame::Close).await.expect("sent");
        assert_eq!(next(&mut receiver).await, Frame::Offline(vec![two]));
        sender.send(&Frame::Unsubscribe(vec![two])).await.expect("sent");
        sender.send(&Frame::Health).await.expect("sent");
        let _again = relay(&bench, "two").await;
        assert!(timeout(SECOND / 4, receiver.next()).await.is_err(), "no longer asked for");
        assert_eq!(bench.server.relay_frames(), 2);
    });
}

#[test]
fn a_newer_connection_of_the_relay_takes_the_place_of_the_older() {
    let bench = Bench::start(|_, _| ());
    bench.runtime.block_on(async {
        let (mut other, mut other_receiver) = relay(&bench, "other").await;
        let id = PeerId::of("one");
        let (_older, mut older_receiver) = relay(&bench, "one").await;
        let (_newer, mut newer_receiver) = relay(&bench, "one").await;
        assert!(timeout(SECOND * 5, older_receiver.next()).await.expect("in time").is_none());
        other.send(&Frame::Subscribe(vec![id])).await.expect("sent");
        assert_eq!(next(&mut other_receiver).await, Frame::Online(vec![id]), "it never left");
        other.send(&Frame::Transport(id, Bytes::from_static(b"x"))).await.expect("sent");
        assert!(matches!(next(&mut newer_receiver).await, Frame::Transport(..)));
    });
}

#[test]
fn the_relay_lets_in_by_token_and_drops_the_silent() {
    let bench = Bench::start(|options, _| options.relay_health = SECOND / 5);
    bench.runtime.block_on(async {
        let url = url(&bench);
        for token in [
            issue("another secret", SystemTime::now() + SECOND * 60),
            issue("interop-secret", SystemTime::now() - SECOND),
            Token { payload: "x".to_owned(), signature: String::new() },
        ] {
            assert!(Relay::connect(&url, "one", &token).await.is_err(), "{token:?}");
        }
        let (mut lively, mut receiver) = relay(&bench, "lively").await;
        let (_silent, mut silent_receiver) = relay(&bench, "silent").await;
        for _ in 0..5 {
            assert_eq!(next(&mut receiver).await, Frame::Health);
            lively.send(&Frame::Health).await.expect("still there");
        }
        let end = timeout(SECOND * 5, async { while silent_receiver.next().await.is_some() {} }).await;
        assert!(end.is_ok(), "dropped");
        bench.server.set_faults(Faults { relay_refuses: true, ..Faults::default() });
        assert!(Relay::connect(&url, "one", &token()).await.is_err());
    });
}

fn url(bench: &Bench) -> String {
    format!("rel://{}", bench.server.address())
}

fn token() -> Token {
    issue("interop-secret", SystemTime::now() + SECOND * 60)
}

async fn relay(bench: &Bench, key: &str) -> (RelaySender, RelayReceiver) {
    let relay = Relay::connect(&url(bench), key, &token()).await.expect("let in");
    assert_eq!(relay.url, url(bench));
    (relay.sender, relay.receiver)
}

async fn next(receiver: &mut RelayReceiver) -> Frame {
    timeout(SECOND * 5, receiver.next()).await.expect("in time").expect("not the end")
}
