//! A translator that forgets: the peer appears at another port.

use std::time::Duration;

use peer_ice::{Event, Settings};

use crate::nat::Behaviour::{AddressRestricted, EndpointIndependent, PortRestricted, Symmetric};
use crate::world::{A, B, Site, World};

#[test]
fn the_other_side_follows_a_new_mapping() {
    let moving = [EndpointIndependent, AddressRestricted, PortRestricted, Symmetric].map(Site::Behind);
    // Where a filter knows ports, the new one is shut out: that path dies, see below.
    let staying = [Site::Open, Site::Behind(EndpointIndependent), Site::Behind(AddressRestricted)];
    for (seed, (moved, stays)) in (0..).zip(moving.iter().flat_map(|moved| staying.map(|stays| (*moved, stays)))) {
        for mover in [A, B] {
            let sites = if mover == A { [moved, stays] } else { [stays, moved] };
            let mut world = World::new(seed, sites, None, &Settings::default());
            world.run(Duration::from_secs(1));
            world.offer(A);
            assert!(world.run_until(Duration::from_secs(3), World::is_up), "{sites:?}");
            world.run(Duration::from_secs(10));
            let before = world.log.len();
            let nat = if mover == A { 0 } else { world.nats.len() - 1 };
            world.nats[nat].forget();
            // The next keepalive of the mover tells.
            world.run(Duration::from_secs(6));
            let ups: Vec<_> =
                world.log[before..].iter().filter(|(_, _, event)| matches!(event, Event::Up { .. })).collect();
            assert!(
                ups.iter().any(|(_, host, _)| *host == 1 - mover),
                "{mover} of {sites:?}: {:?}",
                &world.log[before..]
            );
            let down = world.log[before..].iter().find(|(_, _, event)| matches!(event, Event::Down { .. }));
            assert_eq!(down, None, "{mover} of {sites:?}");
            assert!(world.carries_data(), "{mover} of {sites:?}");
            world.run(Duration::from_secs(60));
            assert!(world.is_up() && world.carries_data(), "{mover} of {sites:?}: and it stays");
        }
    }
}

#[test]
fn behind_strict_filters_a_new_session_is_needed() {
    let sites = [Site::Behind(PortRestricted); 2];
    let mut world = World::new(1, sites, None, &Settings::default());
    world.run(Duration::from_secs(1));
    world.offer(A);
    assert!(world.run_until(Duration::from_secs(3), World::is_up));
    world.run(Duration::from_secs(10));
    world.nats[0].forget();
    world.guard = true;
    assert!(world.run_until(Duration::from_secs(7), |world| !world.is_up()));
    assert!(world.run_until(Duration::from_secs(3), World::is_up));
    assert!(world.carries_data());
}
