//! How long a large body takes to open: `cargo run --release -p peer-netbird --example open [MEBIBYTES]`.
//!
//! Prints medians of interleaved rounds: our own code, and the crate crypto_box for comparison; how long it takes to forget
//! the plaintext, in one block and byte by byte; and what a key and a small message cost, as they are between two peers.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crypto_box::SalsaBox;
use crypto_box::aead::AeadInPlace as _;
use peer_core::key::PrivateKey;
use peer_netbird::sealed::{OVERHEAD, Sealer};
use zeroize::Zeroizing;

const ROUNDS: usize = 41;

fn main() {
    let mebibytes = std::env::args().nth(1).map_or(4, |text| text.parse().expect("a number of MiB"));
    let size = mebibytes << 20;
    let (own, other) = (PrivateKey::from_bytes([1; 32]), PrivateKey::from_bytes([2; 32]));
    let ours = Sealer::new(&own, &other.public_key());
    let theirs = SalsaBox::new(&other.public_key().0.into(), &(*own.expose()).into());
    let body = ours.seal(&vec![7; size]);

    let mut times = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let sealed = body.clone();
        let (opened, time) = timed(|| ours.open(sealed).expect("authentic"));
        times[0].push(time);
        times[2].push(timed(|| drop(opened)).1);

        let sealed = body.clone();
        let (opened, time) = timed(|| open(&theirs, sealed));
        times[1].push(time);
        times[3].push(timed(|| drop(opened)).1);
    }
    println!("{mebibytes} MiB, medians of {ROUNDS} rounds");
    let [open_ours, open_theirs, drop_ours, drop_theirs] = times.map(median);
    for (what, ours, theirs) in [("open", open_ours, open_theirs), ("drop", drop_ours, drop_theirs)] {
        for (who, time) in [("peer", ours), ("crypto_box", theirs)] {
            let rate = size as f64 / 1e6 / time.as_secs_f64();
            println!("{what} {who:>10} {:>7.2} ms {rate:>7.0} MB/s", time.as_secs_f64() * 1e3);
        }
        println!("{what}      ratio {:>7.2}", theirs.as_secs_f64() / ours.as_secs_f64());
    }
    let public = other.public_key();
    let key = median((0..ROUNDS).map(|_| timed(|| Sealer::new(&own, &public)).1).collect());
    let small = median((0..ROUNDS).map(|_| timed(|| ours.seal(&[7; 300])).1).collect());
    println!("key {:.1} µs, a message of 300 bytes {:.1} µs", key.as_secs_f64() * 1e6, small.as_secs_f64() * 1e6);
}

/// With a vector of the plaintext as the result, as the crate's users have it.
fn open(shared: &SalsaBox, body: Vec<u8>) -> Zeroizing<Vec<u8>> {
    let mut body = Zeroizing::new(body);
    let (nonce, rest) = body.split_first_chunk_mut::<24>().expect("a nonce");
    let (tag, text) = rest.split_first_chunk_mut::<16>().expect("a tag");
    shared.decrypt_in_place_detached((&*nonce).into(), &[], text, (&*tag).into()).expect("authentic");
    body.drain(..OVERHEAD);
    body
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
