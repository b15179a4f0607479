//! Traffic of the node itself.

use peer_common::layout::REDIRECTED_MARK;
use peer_common::{Counter, DropReason, FlowKind, LocalKind};
use peer_core::desired::{Action, Scope};

use crate::bench::{PolicyRule, accept_all, with_bench};
use crate::lab::{NODE, PEER, SERVER, UPLINK};
use crate::packet::{echo_reply, echo_request, tcp, udp};
use crate::{REDIRECT, SHOT, UNSPEC};

fn scoped(scope: Scope) -> PolicyRule {
    PolicyRule { scope, ..accept_all(true) }
}

#[test]
fn peer_rules_decide_what_reaches_the_node() {
    with_bench(|bench| {
        bench.rules(&[scoped(Scope::Node)]);
        let packet = tcp((PEER, 1000), (NODE, 22), true);
        let (verdict, after) = bench.arrive_from_mesh(&packet);
        assert_eq!((verdict, after), (UNSPEC, packet), "the node's own stack gets it as it is");
        assert_eq!(bench.flows()[0].1.kind, FlowKind::ToNode as u8);
        assert_eq!(
            bench.arrive_from_mesh(&tcp((PEER, 1000), (SERVER, 22), true)).0,
            SHOT,
            "through the node is another matter"
        );
        assert_eq!(bench.counter(Counter::ToNode), 1);
    });
}

#[test]
fn another_own_address_is_reached_by_peer_rules_or_by_a_route_that_covers_it() {
    with_bench(|bench| {
        bench.rules(&[scoped(Scope::Route)]);
        assert_eq!(
            bench.arrive_from_mesh(&tcp((PEER, 1000), (UPLINK, 22), true)).0,
            UNSPEC,
            "198.51.100.0/24 covers it"
        );
        assert_eq!(
            bench.arrive_from_mesh(&tcp((PEER, 1000), (NODE, 22), true)).0,
            SHOT,
            "the overlay address is no route's"
        );
        assert_eq!(bench.drops(DropReason::PolicyDefault), 1);
    });
}

#[test]
fn a_protected_node_is_reached_by_peer_rules_only() {
    with_bench(|bench| {
        let drop_by_route = PolicyRule { action: Action::Drop, id: 9, ..scoped(Scope::Route) };
        let to_kubelet = tcp((PEER, 1000), (UPLINK, 10250), true);
        bench.local(UPLINK, LocalKind::Protected);
        for (rules, verdict) in [
            (vec![scoped(Scope::Route)], SHOT),
            (vec![scoped(Scope::Node)], UNSPEC),
            (vec![scoped(Scope::Node), scoped(Scope::Route)], UNSPEC),
            (vec![scoped(Scope::Node), drop_by_route], SHOT),
            (vec![], SHOT),
        ] {
            bench.rules(&rules);
            assert_eq!(bench.arrive_from_mesh(&to_kubelet).0, verdict, "{rules:?}");
        }
        assert_eq!((bench.drops(DropReason::PolicyDefault), bench.drops(DropReason::PolicyRule)), (2, 1));
        bench.rules(&[scoped(Scope::Route)]);
        assert_eq!(
            bench.arrive_from_mesh(&tcp((PEER, 1000), (SERVER, 80), true)).0,
            REDIRECT,
            "beside it the route opens"
        );
    });
}

#[test]
fn the_node_gets_its_answers_through_default_deny() {
    with_bench(|bench| {
        bench.rules(&[]);
        let answer = echo_reply(PEER, NODE, 7);
        assert_eq!(bench.arrive_from_mesh(&answer).0, SHOT);
        assert_eq!(bench.leave_to_mesh(&echo_request(NODE, PEER, 7)).0, UNSPEC);
        assert_eq!(bench.arrive_from_mesh(&answer).0, UNSPEC);
        assert_eq!(bench.arrive_from_mesh(&echo_reply(PEER, NODE, 8)).0, SHOT, "another identifier is another flow");
        assert_eq!(bench.leave_to_mesh(&udp((NODE, 1), (PEER, 2))).0, UNSPEC);
        assert_eq!(bench.arrive_from_mesh(&udp((PEER, 2), (NODE, 1))).0, UNSPEC);
        assert_eq!(bench.arrive_from_mesh(&udp((PEER, 2), (NODE, 3))).0, SHOT);
        bench.rules(&[]);
        assert_eq!(
            bench.arrive_from_mesh(&answer).0,
            UNSPEC,
            "a change of policy does not take what the node asked for"
        );
    });
}

#[test]
fn what_uplink_ingress_has_judged_passes_wt0_egress_at_once() {
    with_bench(|bench| {
        let reply = tcp((SERVER, 80), (PEER, 1000), false);
        assert_eq!(bench.leave_to_mesh_marked(&reply, REDIRECTED_MARK), (UNSPEC, 0), "and the mark ends there");
        assert_eq!(bench.leave_to_mesh(&reply).0, SHOT);
        assert_eq!(bench.flows(), []);
    });
}
