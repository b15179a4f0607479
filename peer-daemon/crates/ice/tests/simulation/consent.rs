//! How long a dead path counts as alive, and what an idle one costs.

use std::time::Duration;

use peer_ice::{DownReason, Event, Settings};

use crate::nat::Behaviour::PortRestricted;
use crate::world::{A, B, Links, PERFECT, Site, World};

const SITES: [Site; 2] = [Site::Behind(PortRestricted); 2];

fn connected(seed: u64, links: Links) -> World {
    let mut world = World::new(seed, SITES, None, &Settings::default());
    world.run(Duration::from_secs(1));
    world.links = links;
    world.guard = true;
    world.offer(A);
    assert!(world.run_until(Duration::from_secs(60), World::is_up), "seed {seed}");
    world.guard = false;
    // Beyond the time in which better pairs are looked for.
    world.run(Duration::from_secs(5));
    world
}

fn downs(world: &World) -> Vec<(Duration, usize, DownReason)> {
    let down = |(at, host, event): &(Duration, usize, Event)| match event {
        Event::Down { reason, .. } => Some((*at, *host, *reason)),
        _ => None,
    };
    world.log.iter().filter_map(down).collect()
}

#[test]
fn a_dead_path_is_noticed_within_six_seconds() {
    for loss in [0.0, 0.01, 0.05, 0.1, 0.2] {
        let (mut least, mut most) = (Duration::MAX, Duration::ZERO);
        for seed in 0..10 {
            let mut world = connected(seed, Links { loss, ..PERFECT });
            // At any phase of the keepalive.
            world.run(Duration::from_millis(397 * seed));
            if !world.is_up() {
                assert!(loss >= 0.2, "seed {seed} lost the path at {loss}");
                continue;
            }
            let before = downs(&world).len();
            // One direction is enough.
            world.cut[A] = true;
            world.cut[B] = seed % 2 == 0;
            let cut = world.elapsed();
            world.run(Duration::from_secs(10));
            let downs = &downs(&world)[before..];
            assert_eq!(downs.len(), 2, "seed {seed}");
            for (at, _, reason) in downs {
                assert_eq!(*reason, DownReason::Lost);
                (least, most) = (least.min(*at - cut), most.max(*at - cut));
            }
        }
        println!("loss {loss}: down {least:?} to {most:?} after the cut");
        assert!(most <= Duration::from_millis(6050), "6 s from the last response, which was on its way: {most:?}");
        assert!(loss > 0.1 || least >= Duration::from_secs(1), "{least:?}");
    }
}

#[test]
fn a_dead_path_in_doubt_is_given_up_soon_and_a_live_one_is_not() {
    let mut most = Duration::ZERO;
    for seed in 0..20 {
        let mut world = connected(seed, PERFECT);
        world.run(Duration::from_millis(397 * seed));
        // Traffic that needs no answer: doubted all the time.
        for _ in 0..100 {
            world.doubt(A);
            world.run(Duration::from_millis(100));
        }
        assert!(world.is_up() && downs(&world).is_empty(), "seed {seed}");
        world.cut[A] = true;
        let cut = world.elapsed();
        while downs(&world).is_empty() {
            world.doubt(A);
            world.run(Duration::from_millis(100));
        }
        let (at, host, reason) = downs(&world)[0];
        assert_eq!((host, reason), (A, DownReason::Lost), "seed {seed}");
        most = most.max(at - cut);
    }
    println!("in doubt: down {most:?} after the cut at most");
    // It may just have answered, and is asked every 100 ms here.
    assert!(most < Duration::from_millis(800), "{most:?}");
}

#[test]
fn doubt_costs_four_checks_a_second() {
    let mut world = connected(1, PERFECT);
    let before = world.sent[A];
    for _ in 0..600 {
        world.doubt(A);
        world.run(Duration::from_millis(100));
    }
    let sent = world.sent[A] - before;
    println!("in doubt a session sends {sent} datagrams per minute");
    assert!((180..=330).contains(&sent), "{sent}");
}

#[test]
fn loss_alone_ends_no_session() {
    for loss in [0.01, 0.05, 0.1] {
        let mut world = connected(5, Links { loss, ..PERFECT });
        let before = downs(&world).len();
        world.run(Duration::from_secs(1800));
        assert_eq!(downs(&world).len(), before, "half an hour at {loss}");
    }
}

#[test]
fn an_idle_session_sends_a_check_and_a_response_per_keepalive() {
    let mut world = connected(1, PERFECT);
    world.run(Duration::from_secs(60));
    let before = world.sent;
    world.run(Duration::from_secs(300));
    for (before, after) in before.iter().zip(world.sent) {
        // 15 checks and 15 responses per minute; in five minutes each server is asked once.
        let sent = after - before;
        println!("an idle session sends {} datagrams per minute", sent / 5);
        assert!((140..=154).contains(&sent), "{sent} in 5 min");
    }
}

#[test]
fn an_address_that_vanishes_ends_its_sessions_at_once() {
    let mut world = World::new(1, [Site::Open, Site::Open], None, &Settings::default());
    world.offer(A);
    assert!(world.run_until(Duration::from_secs(3), World::is_up));
    let at = world.elapsed();
    world.set_local(A, "203.0.113.77:51820");
    assert_eq!(downs(&world), [(at, A, DownReason::AddressGone)]);
    assert!(world.log.iter().any(|(_, host, event)| *host == A && *event == Event::LocalChanged));
    world.guard = true;
    world.offer(A);
    assert!(world.run_until(Duration::from_secs(3), World::is_up), "and begin anew from the other one");
    assert!(world.carries_data());
}
