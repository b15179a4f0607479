//! What a refused handshake message costs the thread that carries the traffic: `cargo run --release -p peer-wireguard
//! --example refused_handshakes`. Time stands still for the engine, so that no budget fills up again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use peer_core::batch::{DatagramBatch, PacketBatch};
use peer_core::key::{PrivateKey, PublicKey};
use peer_core::path::Path;
use peer_core::shard::{Engine as _, ShardId};
use peer_wireguard::stats::Handshake;
use peer_wireguard::{DatagramError, Engine, EngineConfig};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

#[path = "../tests/common/forge.rs"]
mod forge;

/// Datagrams of one batch, as one system call receives them.
const BATCH: usize = 32;

fn main() {
    let now = Instant::now();
    let config = EngineConfig {
        private_key: PrivateKey::from_bytes([7; 32]),
        shard: ShardId::ONLY,
        stamps_from: Duration::ZERO,
    };
    let mut engine = Engine::new(config, StdRng::seed_from_u64(1), now);
    let key = engine.public_key();
    let drops = |engine: &Engine, reason| engine.stats().datagram_drops(reason);
    let taken = run(&mut engine, now, 250, |number| forge::initiation(&key, number, false));
    println!("{taken:>8.0} ns  taken without proof, and not decipherable: one operation on the curve");
    let cookies = run(&mut engine, now, 600, |number| forge::initiation(&key, number, false));
    assert_eq!(engine.stats().handshakes(Handshake::CookieSent), 600);
    println!("{cookies:>8.0} ns  a cookie reply is made");
    let without = run(&mut engine, now, 1150, |number| forge::initiation(&key, number, false));
    assert_eq!(drops(&engine, DatagramError::CookieLimited), 1150);
    println!("{without:>8.0} ns  no cookie, and no reply left");
    let false_cookie = run(&mut engine, now, 4000, |number| forge::initiation(&key, number, true));
    assert_eq!(drops(&engine, DatagramError::CookieLimited), 5150);
    println!("{false_cookie:>8.0} ns  a false cookie, and no reply left");
    let unread = run(&mut engine, now, 100_000, |number| forge::initiation(&key, number, false));
    assert_eq!(drops(&engine, DatagramError::InitiationFlood), 100_000);
    println!("{unread:>8.0} ns  not looked at");
    let mut engine = Engine::new(
        EngineConfig {
            private_key: PrivateKey::from_bytes([7; 32]),
            shard: ShardId::ONLY,
            stamps_from: Duration::ZERO,
        },
        StdRng::seed_from_u64(1),
        now,
    );
    let other = PublicKey([9; 32]);
    let bad_mac = run(&mut engine, now, 2000, |number| forge::initiation(&other, number, false));
    assert_eq!(drops(&engine, DatagramError::BadMac), 2000);
    println!("{bad_mac:>8.0} ns  the first MAC is false");
}

/// Nanoseconds per message of `count`, in batches.
fn run(engine: &mut Engine, now: Instant, count: usize, forge: impl Fn(u64) -> Vec<u8>) -> f64 {
    let (mut spent, mut number) = (0, 0);
    let mut batch = DatagramBatch::with_capacity(BATCH * 256, BATCH);
    let mut packets = PacketBatch::with_capacity(1 << 16, BATCH);
    let mut out = DatagramBatch::with_capacity(1 << 16, 256);
    while number < count {
        batch.clear();
        for _ in 0..BATCH.min(count - number) {
            let source = Ipv4Addr::from_bits((number as u32).wrapping_mul(2_654_435_761));
            let remote = SocketAddr::new(IpAddr::V4(source), 51820);
            assert!(batch.push(&forge(number as u64), Path::Udp { remote, local: None }));
            number += 1;
        }
        let start = Instant::now();
        engine.handle_datagrams(now, &mut batch, &mut packets);
        spent += start.elapsed().as_nanos();
        loop {
            out.clear();
            if !engine.poll_transmit(&mut out) {
                break;
            }
        }
    }
    spent as f64 / count as f64
}
