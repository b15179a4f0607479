//! Which sites reach each other directly.

use std::time::Duration;

use peer_ice::candidate::Kind;
use peer_ice::{DownReason, Event, Settings};

use crate::nat::Behaviour::{AddressRestricted, Blocked, EndpointIndependent, PortRestricted, Symmetric};
use crate::world::{A, B, Site, World};

pub(crate) const SITES: [Site; 8] = [
    Site::Open,
    Site::OpenV6,
    Site::Behind(EndpointIndependent),
    Site::Behind(AddressRestricted),
    Site::Behind(PortRestricted),
    Site::Behind(Symmetric),
    Site::Behind(Blocked),
    Site::Double,
];

/// Rows and columns as in [`SITES`]. A translator whose filter knows ports (also the double one) never hears a symmetric one,
/// whose port towards it nobody can tell it.
const DIRECT: [[bool; 8]; 8] = {
    const Y: bool = true;
    const N: bool = false;
    [
        [Y, N, Y, Y, Y, Y, N, Y],
        [N, Y, N, N, N, N, N, N],
        [Y, N, Y, Y, Y, Y, N, Y],
        [Y, N, Y, Y, Y, Y, N, Y],
        [Y, N, Y, Y, Y, N, N, Y],
        [Y, N, Y, Y, N, N, N, N],
        [N, N, N, N, N, N, N, N],
        [Y, N, Y, Y, Y, N, N, Y],
    ]
};

pub(crate) fn is_direct(sites: [Site; 2]) -> bool {
    let [row, column] = sites.map(|site| SITES.iter().position(|known| *known == site).expect("in the table"));
    DIRECT[row][column]
}

#[test]
fn direct_wherever_theory_allows() {
    let mut table = String::new();
    for (row, a) in SITES.into_iter().enumerate() {
        for (column, b) in SITES.into_iter().enumerate() {
            let mut world = World::new((row * 8 + column) as u64, [a, b], None, &Settings::default());
            // Servers have answered before anybody offers.
            world.run(Duration::from_secs(1));
            world.offer(row % 2);
            let up = world.run_until(Duration::from_secs(3), World::is_up);
            let time = world.elapsed().saturating_sub(Duration::from_secs(1));
            assert_eq!(up, DIRECT[row][column], "{a:?} and {b:?}");
            if up {
                assert!(world.carries_data(), "{a:?} and {b:?}");
                table += &format!("{:>7}", format!("{} ms", time.as_millis()));
            } else {
                world.run(Duration::from_secs(10));
                assert!(!world.is_up(), "{a:?} and {b:?}");
                let downs = world
                    .log
                    .iter()
                    .filter(|(_, _, event)| matches!(event, Event::Down { reason: DownReason::Unreachable, .. }));
                assert_eq!(downs.count(), 2, "both have given up after 12 s");
                table += "      -";
            }
        }
        table += &format!("  {a:?}\n");
    }
    println!("Time from offer to pairs on both sides:\n{table}");
}

#[test]
fn behind_one_translator_it_is_the_hairpin_that_counts() {
    let inner = Site::Behind(PortRestricted);
    for (sites, hairpin) in [([inner, inner], true), ([inner, inner], false), ([Site::Double, Site::Double], true)] {
        // STUN shows the outermost outside only: the peers meet there.
        let mut world = World::new(7, sites, Some((EndpointIndependent, hairpin)), &Settings::default());
        world.run(Duration::from_secs(1));
        world.offer(A);
        let up = world.run_until(Duration::from_secs(5), World::is_up);
        assert_eq!(up, hairpin, "{sites:?}, hairpin {hairpin}");
    }
}

#[test]
fn in_one_network_host_candidates_win() {
    let mut world = World::new(3, [Site::Open, Site::Open], Some((PortRestricted, true)), &Settings::default());
    world.run(Duration::from_secs(1));
    world.offer(A);
    assert!(world.run_until(Duration::from_secs(3), World::is_up));
    world.run(Duration::from_secs(3));
    for host in [A, B] {
        let pair = world.ice(host).pair(&World::key(1 - host)).expect("a pair");
        assert_eq!((pair.local_kind, pair.remote_kind), (Kind::Host, Kind::Host));
        assert!(pair.round_trip >= Duration::from_millis(10) && pair.round_trip <= Duration::from_millis(50));
    }
}
