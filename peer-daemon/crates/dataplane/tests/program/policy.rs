//! Who may open what by the rules, and what a change of policy does to flows that stand.

use peer_common::{Addr, Counter, DropReason};
use peer_core::desired::{Action, Scope};

use crate::bench::{PolicyRule, accept_all, prefix, with_bench};
use crate::lab::{PEER, PEER6, SERVER, SERVER6, UPLINK};
use crate::packet::{echo_request, later_fragment, protocol, read, tcp, udp};
use crate::wire::is_reset;
use crate::{REDIRECT, SHOT, UNSPEC};

fn drop_rule(id: u32) -> PolicyRule {
    PolicyRule { action: Action::Drop, id, ..accept_all(true) }
}

fn ports(min: u16, max: u16) -> PolicyRule {
    PolicyRule { protocol: 6, port_min: min, port_max: max, ..accept_all(true) }
}

#[test]
fn what_no_rule_accepts_is_dropped() {
    with_bench(|bench| {
        bench.rules(&[]);
        assert_eq!(bench.arrive_from_mesh(&tcp((PEER, 1), (SERVER, 80), true)).0, SHOT);
        assert_eq!(bench.drops(DropReason::PolicyDefault), 1);
    });
}

#[test]
fn drop_beats_accept_in_any_order() {
    with_bench(|bench| {
        let accept = accept_all(true);
        for rules in [[accept, drop_rule(9)], [drop_rule(9), accept]] {
            bench.rules(&rules);
            assert_eq!(bench.arrive_from_mesh(&tcp((PEER, 1), (SERVER, 80), true)).0, SHOT);
        }
        assert_eq!(bench.drops(DropReason::PolicyRule), 2);
    });
}

#[test]
fn ports_are_an_inclusive_range_of_one_protocol() {
    with_bench(|bench| {
        bench.rules(&[ports(80, 82)]);
        for (port, verdict) in [(79, SHOT), (80, REDIRECT), (82, REDIRECT), (83, SHOT)] {
            assert_eq!(bench.arrive_from_mesh(&tcp((PEER, 1000), (SERVER, port), true)).0, verdict, "port {port}");
        }
        assert_eq!(bench.arrive_from_mesh(&udp((PEER, 1000), (SERVER, 80))).0, SHOT, "another protocol");
        assert_eq!(bench.arrive_from_mesh(&echo_request(PEER, SERVER, 80)).0, SHOT, "an identifier is no port");
    });
}

#[test]
fn icmp_rules_cover_both_families_of_it() {
    with_bench(|bench| {
        bench.rules(&[PolicyRule { protocol: 1, ..accept_all(true) }, PolicyRule { protocol: 1, ..accept_all(false) }]);
        assert_eq!(bench.arrive_from_mesh(&echo_request(PEER, SERVER, 1)).0, REDIRECT);
        assert_eq!(bench.arrive_from_mesh(&echo_request(PEER6, SERVER6, 1)).0, REDIRECT);
        assert_eq!(bench.arrive_from_mesh(&udp((PEER, 1), (SERVER, 1))).0, SHOT);
    });
}

#[test]
fn prefixes_of_any_length_are_matched_on_both_sides() {
    with_bench(|bench| {
        for len in 0..=32 {
            let (dst, dst_len) = network(SERVER, len);
            let (src, src_len) = network(PEER, len);
            let rule = PolicyRule { src, src_len, dst, dst_len, ..accept_all(true) };
            bench.rules(&[rule]);
            assert_eq!(bench.arrive_from_mesh(&tcp((PEER, 1), (SERVER, 80), true)).0, REDIRECT, "/{len}");
            if len > 0 {
                let mut other = rule;
                other.dst.words[3] ^= (1_u32 << (32 - len)).to_be();
                bench.rules(&[other]);
                assert_eq!(bench.arrive_from_mesh(&tcp((PEER, 1), (SERVER, 80), true)).0, SHOT, "beside /{len}");
            }
        }
    });
}

#[test]
fn a_rule_for_all_of_ipv6_says_nothing_of_ipv4() {
    with_bench(|bench| {
        bench.rules(&[accept_all(false)]);
        assert_eq!(bench.arrive_from_mesh(&tcp((PEER, 1), (SERVER, 80), true)).0, SHOT);
        assert_eq!(bench.arrive_from_mesh(&tcp((PEER6, 1), (SERVER6, 80), true)).0, REDIRECT);
    });
}

#[test]
fn a_revoked_permission_stops_both_directions_at_the_next_packet() {
    with_bench(|bench| {
        let out = tcp((PEER, 1000), (SERVER, 80), false);
        let node = read(&bench.arrive_from_mesh(&out).1).src;
        let answer = tcp((SERVER, 80), node, false);
        assert_eq!(bench.arrive_on_uplink(&answer).0, REDIRECT);
        bench.rules(&[ports(443, 443)]);
        assert!(is_reset(&bench.arrive_on_uplink(&answer).1));
        assert!(is_reset(&bench.arrive_from_mesh(&out).1));
        bench.rules(&[ports(80, 80)]);
        assert_eq!(bench.arrive_on_uplink(&answer).0, REDIRECT);
        assert_eq!(read(&bench.arrive_from_mesh(&out).1).src, node, "given again, the flow has the port that it had");
    });
}

#[test]
fn an_unrelated_change_cuts_nothing_and_is_judged_once() {
    with_bench(|bench| {
        let out = tcp((PEER, 1000), (SERVER, 80), false);
        let node = read(&bench.arrive_from_mesh(&out).1).src;
        bench.rules(&[accept_all(true), drop_rule(7)].map(|rule| PolicyRule { port_min: 1, port_max: 9, ..rule }));
        bench.rules(&[ports(80, 80)]);
        for _ in 0..3 {
            assert_eq!(read(&bench.arrive_from_mesh(&out).1).src, node);
        }
        assert_eq!(bench.counter(Counter::FlowsRejudged), 1);
    });
}

#[test]
fn what_has_no_ports_needs_a_rule_for_all_of_them() {
    with_bench(|bench| {
        let to_node = |rule: PolicyRule| PolicyRule { scope: Scope::Node, ..rule };
        for (rule, verdict) in [(accept_all(true), UNSPEC), (ports(1, 9), SHOT)] {
            bench.rules(&[to_node(rule)]);
            assert_eq!(bench.arrive_from_mesh(&later_fragment((PEER, 1), (UPLINK, 2))).0, verdict);
            assert_eq!(bench.arrive_from_mesh(&protocol(PEER, UPLINK, 132)).0, verdict);
        }
    });
}

fn network(addr: std::net::IpAddr, len: u32) -> (Addr, u8) {
    let (mut addr, bits) = prefix(addr, len);
    let mask = if len == 0 { 0 } else { u32::MAX << (32 - len) };
    addr.words[3] &= mask.to_be();
    (addr, bits as u8)
}
