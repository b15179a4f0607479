//! Clients and servers on loopback.

mod common;

use std::time::{Duration, Instant};

use common::server::frame;
use common::{Client, Server, WAIT};
use peer_relay::{Event, PeerId};

async fn pair(server: &Server) -> (Client, Client) {
    (Client::at(1, server).await, Client::at(2, server).await)
}

/// Drives the client's shard until something is the case.
async fn until(client: &mut Client, what: &str, mut done: impl FnMut(&Client) -> bool) {
    let end = Instant::now() + WAIT;
    while !done(client) {
        assert!(Instant::now() < end, "{what}");
        client.idle();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn datagrams_go_both_ways() {
    let server = Server::start().await;
    let (mut a, mut b) = pair(&server).await;
    let to_b = a.open(b.key, &server).await;
    let to_a = b.open(a.key, &server).await;
    let big = vec![7; 1412];
    a.send(to_b, &[b"one", &big, b"three"]);
    let received = b.receive(3).await;
    assert_eq!(received, [(b"one".to_vec(), to_a), (big, to_a), (b"three".to_vec(), to_a)]);
    b.send(to_a, &[b"four"]);
    assert_eq!(a.receive(1).await, [(b"four".to_vec(), to_b)]);
    assert_eq!((a.shard.relay_out.packets.get(), a.shard.relay_in.packets.get()), (3, 1));
    assert_eq!((a.stats.connected.get(), a.stats.ways.get(), a.stats.connects.get()), (1, 1, 1));
    until(&mut b, "checks are echoed", |_| server.heard(5) == 2).await;
    let status = a.relays.status();
    assert!(status.len() == 1 && status[0].connected && status[0].home && status[0].ways == 1, "{status:?}");
}

#[tokio::test]
async fn many_datagrams_arrive_whole_and_in_order() {
    const COUNT: usize = 20_000;
    let server = Server::start().await;
    let (mut a, mut b) = pair(&server).await;
    let to_b = a.open(b.key, &server).await;
    let to_a = b.open(a.key, &server).await;
    let datagram = |number: usize| {
        let mut bytes = vec![number as u8; 32 + number * 7 % 1400];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes
    };
    for start in (0..COUNT).step_by(50) {
        let burst: Vec<_> = (start..start + 50).map(datagram).collect();
        a.send(to_b, &burst.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for (number, (bytes, path)) in (start..).zip(b.receive(50).await) {
            assert!(bytes == datagram(number) && path == to_a, "{number}");
        }
    }
}

#[tokio::test]
async fn an_early_message_is_there_when_the_way_is_opened() {
    let server = Server::start().await;
    let (mut a, mut b) = pair(&server).await;
    let to_b = a.open(b.key, &server).await;
    a.send(to_b, &[b"handshake"]);
    until(&mut b, "it waits", |b| b.stats.early.get() == 1).await;
    let to_a = b.open(a.key, &server).await;
    assert_eq!(b.receive(1).await, [(b"handshake".to_vec(), to_a)]);
    assert_eq!(b.stats.early.get(), 0);
}

#[tokio::test]
async fn the_relay_of_the_other_is_used_beside_ones_own() {
    let (home, other) = (Server::start().await, Server::start().await);
    let (mut a, mut b) = (Client::at(1, &home).await, Client::at(2, &other).await);
    let to_b = a.open(b.key, &other).await;
    let to_a = b.open(a.key, &other).await;
    a.send(to_b, &[b"there"]);
    assert_eq!(b.receive(1).await, [(b"there".to_vec(), to_a)]);
    b.send(to_a, &[b"back"]);
    assert_eq!(a.receive(1).await, [(b"back".to_vec(), to_b)]);
    let status = a.relays.status();
    assert_eq!(
        status.iter().map(|relay| (relay.home, relay.connected)).collect::<Vec<_>>(),
        [(true, true), (false, true)]
    );
}

#[tokio::test]
async fn a_peer_that_leaves_is_told_of() {
    let server = Server::start().await;
    let (mut a, mut b) = pair(&server).await;
    let to_b = a.open(b.key, &server).await;
    let relays = b.relays.clone();
    let left = tokio::spawn(async move { relays.leave().await });
    until(&mut b, "it has left", |_| left.is_finished()).await;
    assert!(b.end.is_empty());
    assert!(matches!(a.event().await, Event::Down { peer, attempt: 1, .. } if peer == b.key));
    a.send(to_b, &[b"late"]);
    assert_eq!(a.shard.drops(peer_io::IoDrop::RelayGone), 1);
    assert_eq!((server.heard(4), b.stats.breaks.get(), b.stats.connected.get()), (1, 0, 0), "with goodbye");
}

#[tokio::test]
async fn a_relay_that_restarts_is_come_back_to() {
    let server = Server::start().await;
    let (mut a, b) = pair(&server).await;
    a.open(b.key, &server).await;
    let port = server.port;
    drop(server);
    assert!(matches!(a.event().await, Event::Down { peer, .. } if peer == b.key));
    assert_eq!(a.event().await, Event::Home(None));
    let server = Server::start_on(port).await;
    assert!(matches!(a.event().await, Event::Home(Some(home)) if home.url == server.url()));
    assert_eq!((a.stats.breaks.get(), a.stats.connected.get()), (1, 1));
}

#[tokio::test]
async fn a_token_that_is_refused_shows() {
    let server = Server::start().await;
    server.refuse_tokens();
    let mut a = Client::new(1);
    a.relays.set_servers(vec![server.url()], Some(common::token()));
    until(&mut a, "it is refused", |a| a.stats.failures.get() > 0).await;
    until(&mut a, "status says so", |a| {
        let status = a.relays.status();
        status.len() == 1
            && !status[0].connected
            && status[0].error.as_ref().is_some_and(|error| error.contains("token"))
    })
    .await;
}

#[tokio::test]
async fn what_a_relay_may_also_send_does_no_harm() {
    let server = Server::start().await;
    let (mut a, b) = pair(&server).await;
    let to_b = a.open(b.key, &server).await;
    let transport = |payload: &[u8]| [&[1, 3], &PeerId::from(&b.key).0[..], payload].concat();
    let parts = transport(b"in three parts");
    let bytes = [
        frame(0x89, b"ping"),
        frame(0x82, &[1, 99]),
        frame(0x82, &[2, 5]),
        frame(0x02, &parts[..20]),
        frame(0x00, &parts[20..45]),
        frame(0x89, b"between"),
        frame(0x80, &parts[45..]),
        frame(0x82, &transport(b"whole")),
    ];
    server.inject(bytes.concat()).await;
    let mut received = a.receive(2).await;
    received.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(received, [(b"in three parts".to_vec(), to_b), (b"whole".to_vec(), to_b)]);
    assert_eq!(a.stats.malformed.get(), 2);
    until(&mut a, "pings are answered", |_| server.heard(10 << 4) == 2).await;
}

#[tokio::test]
async fn a_relay_that_sends_garbage_is_left() {
    let server = Server::start().await;
    let mut a = Client::at(1, &server).await;
    server.inject(vec![0xff; 100]).await;
    assert_eq!(a.event().await, Event::Home(None));
    assert!(matches!(a.event().await, Event::Home(Some(_))), "and tried again");
    assert_eq!(a.stats.breaks.get(), 1);
}
