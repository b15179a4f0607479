//! How long a large body takes to open: `cargo run --release -p peer-netbird --example open [MEBIBYTES]`.
//!
//! Prints medians: opening it, forgetting the plaintext, and what a key and a small message cost, as they are between two
//! peers.

use std::hint::black_box;
use std::time::{Duration, Instant};

use peer_core::key::PrivateKey;
use peer_netbird::sealed::Sealer;

const ROUNDS: usize = 41;

fn main() {
    let mebibytes = std::env::args().nth(1).map_or(4, |text| text.parse().expect("a number of MiB"));
    let size: usize = mebibytes << 20;
    let (own, other) = (PrivateKey::from_bytes([1; 32]), PrivateKey::from_bytes([2; 32]));
    let sealer = Sealer::new(&own, &other.public_key());
    let body = sealer.seal(&vec![7; size]);

    let mut times = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        let sealed = body.clone();
        let (opened, time) = timed(|| sealer.open(sealed).expect("authentic"));
        times[0].push(time);
        times[1].push(timed(|| drop(opened)).1);
    }
    println!("{mebibytes} MiB, medians of {ROUNDS} rounds");
    for (what, time) in ["open", "drop"].into_iter().zip(times.map(median)) {
        let rate = size as f64 / 1e6 / time.as_secs_f64();
        println!("{what} {:>7.2} ms {rate:>7.0} MB/s", time.as_secs_f64() * 1e3);
    }
    let public = other.public_key();
    let key = median((0..ROUNDS).map(|_| timed(|| Sealer::new(&own, &public)).1).collect());
    let small = median((0..ROUNDS).map(|_| timed(|| sealer.seal(&[7; 300])).1).collect());
    println!("key {:.1} µs, a message of 300 bytes {:.1} µs", key.as_secs_f64() * 1e6, small.as_secs_f64() * 1e6);
}

fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = black_box(act());
    (result, start.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
