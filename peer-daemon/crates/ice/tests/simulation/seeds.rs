//! Random sites and links. `PEER_ICE_SEEDS` says how many.

use std::time::Duration;

use peer_ice::Settings;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::matrix::{SITES, is_direct};
use crate::world::{A, B, Links, World};

const DEFAULT: u64 = 100;

#[test]
fn random_networks() {
    let seeds = std::env::var("PEER_ICE_SEEDS").map_or(DEFAULT, |text| text.parse().expect("PEER_ICE_SEEDS: a number"));
    let (mut direct, mut times) = (0, Vec::new());
    for seed in 0..seeds {
        if let Some(time) = run(seed) {
            direct += 1;
            times.push(time);
        }
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2);
    println!(
        "PEER_ICE_SEEDS={seeds}: {direct} of {seeds} networks direct, median {median:?}, longest {:?}",
        times.last()
    );
}

/// The time from the first offer to pairs on both sides.
fn run(seed: u64) -> Option<Duration> {
    let mut rng = StdRng::seed_from_u64(seed);
    let sites = [A, B].map(|_| SITES[rng.random_range(0..SITES.len())]);
    let least = rng.random_range(1..100);
    let links = Links {
        delay: (least, least + rng.random_range(0..100)),
        loss: if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..0.2) },
        duplicates: rng.random_range(0.0..0.2),
        candidate_loss: if rng.random_bool(0.5) { 0.0 } else { 0.3 },
    };
    let context = format!("seed {seed}: {sites:?}, {links:?}");
    let mut world = World::new(seed, sites, None, &Settings::default());
    world.links = links;
    world.guard = true;
    let wait = rng.random_range(0..2000);
    world.run(Duration::from_millis(wait));
    let first = world.elapsed();
    world.offer(rng.random_range(0..2));
    let up = world.run_until(Duration::from_secs(if is_direct(sites) { 120 } else { 30 }), World::is_up);
    assert_eq!(up, is_direct(sites), "{context}");
    if !up {
        return None;
    }
    let time = world.elapsed() - first;
    assert!(links.loss + links.candidate_loss > 0.0 || time < Duration::from_secs(4), "{time:?}, {context}");
    assert!(world.carries_data() || links.loss > 0.0, "{context}");
    world.guard = false;
    world.run(Duration::from_secs(rng.random_range(0..20)));
    world.cut = [true; 2];
    world.run(Duration::from_secs(7));
    assert!(!world.is_up(), "{context}");
    assert!([A, B].iter().all(|host| world.ice(*host).pair(&World::key(1 - host)).is_none()), "{context}");
    Some(time)
}
