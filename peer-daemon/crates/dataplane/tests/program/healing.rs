//! A mapping that vanished under its live flow, as when the daemon took it for expired just when a packet came.

use peer_common::{Counter, DropReason, Mapping};

use crate::bench::with_bench;
use crate::lab::{FAMILIES, OTHER, PEER, SERVER};
use crate::packet::{read, tcp};
use crate::{REDIRECT, SHOT, UNSPEC};

#[test]
fn a_lost_mapping_comes_back_with_the_next_packet_that_refreshes() {
    with_bench(|bench| {
        for family in FAMILIES {
            let out = tcp((family.peer, 40000), (family.server, 80), false);
            let node = read(&bench.arrive_from_mesh(&out).1).src;
            let answer = tcp((family.server, 80), node, false);
            for (key, _) in bench.mappings() {
                bench.forget_mapping(&key);
            }
            assert_eq!(bench.arrive_on_uplink(&answer).0, UNSPEC);
            assert_eq!(read(&bench.arrive_from_mesh(&out).1).src, node);
            assert_eq!(bench.arrive_on_uplink(&answer).0, UNSPEC, "looked after once a second, not by every packet");
            bench.age_flows();
            assert_eq!(read(&bench.arrive_from_mesh(&out).1).src, node);
            let (verdict, back) = bench.arrive_on_uplink(&answer);
            assert_eq!((verdict, read(&back).dst), (REDIRECT, (family.peer, 40000)));
        }
        assert_eq!(bench.counter(Counter::MappingsHealed), 2);
    });
}

#[test]
fn a_flow_whose_mapping_is_anothers_is_forgotten_and_leaves_that_alone() {
    with_bench(|bench| {
        let out = tcp((PEER, 40000), (SERVER, 80), false);
        bench.arrive_from_mesh(&out);
        let (key, mapping) = bench.mappings()[0];
        let taken = Mapping { peer_addr: OTHER.into(), ..mapping };
        bench.put_mapping(key, taken);
        bench.age_flows();
        assert_eq!(bench.arrive_from_mesh(&out).0, SHOT);
        assert_eq!((bench.drops(DropReason::SourceChanged), bench.flows().len()), (1, 0));
        assert_eq!(bench.mappings(), [(key, taken)], "the other flow keeps what it has");
        let (verdict, again) = bench.arrive_from_mesh(&out);
        assert_eq!(verdict, REDIRECT);
        assert_ne!(read(&again).src.1.to_be(), key.dst_port, "opened anew, with a port of its own");
    });
}

#[test]
fn a_mapping_without_its_flow_is_taken_up_again() {
    with_bench(|bench| {
        let out = tcp((PEER, 40000), (SERVER, 80), false);
        let node = read(&bench.arrive_from_mesh(&out).1).src;
        for (key, _) in bench.flows() {
            bench.forget_flow(&key);
        }
        assert_eq!(read(&bench.arrive_from_mesh(&out).1).src, node);
        assert_eq!((bench.flows().len(), bench.mappings().len()), (1, 1));
    });
}
