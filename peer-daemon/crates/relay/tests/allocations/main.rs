//! Datagrams go to and from relays without allocations.

#[path = "../common/mod.rs"]
mod common;
mod sys;

use std::time::{Duration, Instant};

use common::{Client, Server, WAIT};
use peer_core::batch::DatagramBatch;

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

async fn burst(from: &mut Client, batch: &DatagramBatch, to: &mut Client, room: &mut DatagramBatch) {
    from.end.send(Instant::now(), batch, &from.shard);
    let (mut received, until) = (0, Instant::now() + WAIT);
    while received < BURST {
        assert!(Instant::now() < until, "{received} of {BURST}");
        to.turn(room, |batch| received += batch.len());
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
}

#[tokio::test]
async fn neither_way_allocates_per_datagram() {
    let server = server();
    let (mut a, mut b) = (Client::at(1, &server).await, Client::at(2, &server).await);
    let (to_b, _) = (a.open(b.key, &server).await, b.open(a.key, &server).await);
    let mut room = DatagramBatch::with_capacity(1 << 18, 1024);
    let mut batch = DatagramBatch::with_capacity(1 << 17, BURST);
    for size in 0..BURST {
        assert!(batch.push(&vec![7; 1200 + size], to_b));
    }
    for _ in 0..10 {
        burst(&mut a, &batch, &mut b, &mut room).await;
    }
    let before = sys::allocations();
    for _ in 0..BURSTS {
        burst(&mut a, &batch, &mut b, &mut room).await;
    }
    let count = sys::allocations() - before;
    // The runtime has some business of its own.
    assert!(count < BURSTS as u64 / 10, "{count} allocations for {BURSTS} bursts of {BURST} datagrams");
    drop(std::hint::black_box(vec![1_u8; 100]));
    assert!(sys::allocations() > before + count, "the counter counts");
}
