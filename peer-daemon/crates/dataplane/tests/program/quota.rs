//! Flows that one peer may have.

use peer_common::DropReason;

use crate::bench::with_bench;
use crate::lab::{FAMILIES, NODE, PEER, SERVER};
use crate::packet::{tcp, udp};
use crate::{REDIRECT, SHOT, UNSPEC};

#[test]
fn a_peer_has_as_many_flows_as_its_quota_and_no_more() {
    with_bench(|bench| {
        bench.config(|config| config.peer_quota = 5);
        // Both families, and flows to the node, count together: they are one peer's.
        let flows: Vec<_> = FAMILIES
            .iter()
            .flat_map(|family| [4000, 4001].map(|port| udp((family.peer, port), (family.server, 53))))
            .chain([tcp((PEER, 4000), (NODE, 22), true)])
            .collect();
        for flow in &flows {
            assert!(!bench.refuses(flow));
        }
        assert_eq!(bench.peer_flows(1), 5);
        assert!(bench.refuses(&udp((PEER, 4009), (SERVER, 53))));
        assert_eq!(bench.drops(DropReason::PeerQuota), 1);
        for flow in &flows {
            assert!(!bench.refuses(flow), "what stands goes on");
        }
    });
}

#[test]
fn another_peer_and_the_node_are_not_bound_by_it() {
    with_bench(|bench| {
        bench.config(|config| config.peer_quota = 1);
        for family in FAMILIES {
            bench.peer(
                family.other,
                if family.other.is_ipv4() { 32 } else { 128 },
                if family.other.is_ipv4() { 2 } else { 3 },
            );
        }
        bench.arrive_from_mesh(&udp((PEER, 4000), (SERVER, 53)));
        assert!(bench.refuses(&udp((PEER, 4001), (SERVER, 53))));
        for family in FAMILIES {
            assert_eq!(bench.arrive_from_mesh(&udp((family.other, 4000), (family.server, 53))).0, REDIRECT);
            for port in 4000..4010 {
                assert_eq!(bench.leave_to_mesh(&udp((family.node, port), (family.peer, 53))).0, UNSPEC);
            }
        }
    });
}

#[test]
fn a_flow_that_is_forgotten_gives_its_place_back() {
    with_bench(|bench| {
        bench.config(|config| config.peer_quota = 1);
        let out = udp((PEER, 4000), (SERVER, 53));
        bench.arrive_from_mesh(&out);
        bench.uplink_addr4("198.51.100.2".parse().expect("an address"));
        bench.resolve_again();
        assert_eq!(bench.arrive_from_mesh(&out).0, SHOT);
        assert_eq!(bench.peer_flows(1), 0);
        assert_eq!(bench.arrive_from_mesh(&udp((PEER, 4001), (SERVER, 53))).0, REDIRECT);
        assert_eq!(bench.peer_flows(1), 1);
    });
}

#[test]
fn a_refused_flow_takes_no_place() {
    with_bench(|bench| {
        bench.config(|config| config.nat_port_count = 2);
        for port in 4000..4006 {
            bench.arrive_from_mesh(&udp((PEER, port), (SERVER, 53)));
        }
        assert_eq!((bench.drops(DropReason::PortShare), bench.peer_flows(1)), (4, 2));
    });
}
