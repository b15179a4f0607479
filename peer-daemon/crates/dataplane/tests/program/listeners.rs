//! The daemon's own listeners: closed to the mesh, whatever the rules say.

use peer_common::DropReason;
use peer_common::route::Route;

use crate::bench::with_bench;
use crate::lab::{FAMILIES, UPLINK};
use crate::packet::{tcp, udp};
use crate::{SHOT, UNSPEC};

#[test]
fn own_listeners_are_denied_on_every_own_address() {
    with_bench(|bench| {
        bench.listener(17, 51820);
        bench.listener(6, 8080);
        for family in FAMILIES {
            for own in [family.node, family.uplink] {
                let before = bench.drops(DropReason::DeniedDestination);
                assert_eq!(bench.arrive_from_mesh(&udp((family.peer, 4000), (own, 51820))).0, SHOT);
                assert_eq!(bench.arrive_from_mesh(&tcp((family.peer, 4000), (own, 8080), true)).0, SHOT);
                assert_eq!(bench.drops(DropReason::DeniedDestination), before + 2);
                assert_eq!(bench.arrive_from_mesh(&tcp((family.peer, 4000), (own, 51820), true)).0, UNSPEC);
                assert_eq!(bench.arrive_from_mesh(&udp((family.peer, 4000), (own, 8080))).0, UNSPEC);
            }
            let elsewhere = udp((family.peer, 4000), (family.server, 51820));
            assert_eq!(bench.arrive_from_mesh(&elsewhere).0, crate::REDIRECT, "others may listen there");
        }
    });
}

#[test]
fn a_host_route_that_names_the_address_opens_them() {
    with_bench(|bench| {
        bench.listener(17, 51820);
        bench.route(UPLINK, 32, 9, Route::MASQUERADE);
        assert_eq!(bench.arrive_from_mesh(&udp((FAMILIES[0].peer, 4000), (UPLINK, 51820))).0, UNSPEC);
        let other = udp((FAMILIES[0].peer, 4000), (FAMILIES[0].node, 51820));
        assert_eq!(bench.arrive_from_mesh(&other).0, SHOT, "only that one");
    });
}
