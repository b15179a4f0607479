//! Neither way allocates per packet.

#[path = "../common/mod.rs"]
mod common;

use std::time::Instant;

use common::{addr, packet, peer};
use peer_core::batch::{DatagramBatch, PacketBatch};
use peer_core::path::Path;
use peer_core::shard::{Engine as _, ShardId};
use peer_test_allocations::allocations_of;
use peer_wireguard::Engine;

fn exchange(now: Instant, from: &mut Engine, to: &mut Engine, path: Path) {
    let mut waiting = DatagramBatch::with_capacity(1 << 16, 64);
    from.poll_transmit(&mut waiting);
    let datagrams = waiting.iter().map(|(bytes, _)| bytes.to_vec()).collect::<Vec<_>>();
    let mut batch = DatagramBatch::with_capacity(1 << 16, 64);
    for bytes in datagrams {
        assert!(batch.push(&bytes, path));
    }
    to.handle_datagrams(now, &mut batch, &mut PacketBatch::with_capacity(1 << 16, 64));
}

#[test]
fn sealing_and_opening_do_not_allocate() {
    let now = Instant::now();
    let path = |text: &str| Path::Udp { remote: addr(text), local: None };
    let (here, there) = ("192.0.2.1:1", "192.0.2.2:2");
    let mut a = common::engine(1, ShardId::ONLY, now);
    let mut b = common::engine(2, ShardId::ONLY, now);
    a.set_peers(now, [peer(2, Some(addr(there)), &["10.0.0.2/32"])]);
    b.set_peers(now, [peer(1, None, &["10.0.0.1/32"])]);
    a.start_handshakes(now);
    a.handle_timeout(now);
    for _ in 0..2 {
        exchange(now, &mut a, &mut b, path(here));
        exchange(now, &mut b, &mut a, path(there));
    }
    let mut packets = PacketBatch::with_capacity(1 << 17, 64);
    for n in 0..64 {
        assert!(packets.push(&packet("10.0.0.1", "10.0.0.2", 1000 + usize::from(n), n), ()));
    }
    let mut datagrams = DatagramBatch::with_capacity(1 << 17, 64);
    let mut opened = PacketBatch::with_capacity(1 << 17, 64);
    // The first round may fill caches.
    for round in 0..3 {
        datagrams.clear();
        opened.clear();
        let sealing = allocations_of(|| a.handle_packets(now, &packets, &mut datagrams));
        assert_eq!(datagrams.len(), 64);
        let mut arrived = DatagramBatch::with_capacity(1 << 17, 64);
        for (bytes, _) in datagrams.iter() {
            assert!(arrived.push(bytes, path(here)));
        }
        let opening = allocations_of(|| b.handle_datagrams(now, &mut arrived, &mut opened));
        assert!(opened.iter().map(|(bytes, ())| bytes).eq(packets.iter().map(|(bytes, ())| bytes)));
        assert!(round == 0 || (sealing, opening) == (0, 0), "{sealing} and {opening} allocations for 64 packets");
    }
}
