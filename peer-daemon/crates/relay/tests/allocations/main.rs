//! Datagrams go to and from relays without allocations.

#[path = "../common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::{Client, Server, WAIT};
use peer_core::batch::DatagramBatch;
use peer_test_allocations::allocations;

/// Datagrams at once.
const BURST: usize = 40;
const BURSTS: usize = 200;

/// The server allocates as it likes: on another thread.
fn server() -> Server {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            tell.send(Server::start().await).expect("somebody waits");
            std::future::pending::<()>().await;
        });
    });
    told.recv().expect("a server")
}

async fn burst(from: &mut Client, batch: &DatagramBatch, to: &mut Client) {
    from.end.send(batch, &from.shard);
    let (mut received, until) = (0, Instant::now() + WAIT);
    while received < BURST {
        assert!(Instant::now() < until, "{received} of {BURST}");
        to.end.look();
        match to.end.receive(&to.shard, |batch| batch.len()) {
            Some(count) => received += count,
            None => tokio::time::sleep(Duration::from_micros(100)).await,
        }
    }
}

#[tokio::test]
async fn neither_way_allocates_per_datagram() {
    let server = server();
    let (mut a, mut b) = (Client::at(1, &server).await, Client::at(2, &server).await);
    let (to_b, _) = (a.open(b.key, &server).await, b.open(a.key, &server).await);
    a.end.look();
    let mut batch = DatagramBatch::with_capacity(1 << 17, BURST);
    for size in 0..BURST {
        assert!(batch.push(&vec![7; 1200 + size], to_b));
    }
    for _ in 0..10 {
        burst(&mut a, &batch, &mut b).await;
    }
    let before = allocations();
    for _ in 0..BURSTS {
        burst(&mut a, &batch, &mut b).await;
    }
    let count = allocations() - before;
    // The runtime has some business of its own.
    assert!(count < BURSTS as u64 / 10, "{count} allocations for {BURSTS} bursts of {BURST} datagrams");
}
