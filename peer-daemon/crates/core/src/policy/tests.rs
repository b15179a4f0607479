use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const SCTP: u8 = 132;
const ALL: PortRange = PortRange { min: 0, max: u16::MAX };

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

fn rule(id: u32, action: Action) -> Rule {
    Rule {
        id,
        sources: nets(&["100.64.0.0/10"]),
        destinations: nets(&["10.0.0.0/8"]),
        protocol: Protocol::Any,
        ports: Vec::new(),
        action,
        scope: Scope::Both,
    }
}

fn query(protocol: u8, destination_port: Option<u16>) -> Query {
    Query {
        source: "100.64.0.7".parse().expect("an address"),
        destination: "10.1.2.3".parse().expect("an address"),
        protocol,
        destination_port,
        scope: Scope::Route,
    }
}

fn accepts(rule: Rule, query: &Query) -> bool {
    evaluate(&[rule], query) != Verdict::Default
}

#[test]
fn nothing_is_accepted_by_nobody() {
    assert_eq!(evaluate::<Rule>(&[], &query(TCP, Some(80))), Verdict::Default);
}

#[test]
fn drop_beats_accept_whatever_the_order_and_the_first_of_a_kind_is_named() {
    let (a, b) = (rule(1, Action::Accept), rule(2, Action::Accept));
    let (c, d) = (rule(3, Action::Drop), rule(4, Action::Drop));
    let tcp = query(TCP, Some(80));
    assert_eq!(evaluate(&[a.clone(), b.clone()], &tcp), Verdict::Accept { rule: 1 });
    assert_eq!(evaluate(&[b.clone(), a.clone()], &tcp), Verdict::Accept { rule: 2 });
    assert_eq!(evaluate(&[a.clone(), c.clone(), d.clone()], &tcp), Verdict::Drop { rule: 3 });
    assert_eq!(evaluate(&[d, c, a, b], &tcp), Verdict::Drop { rule: 4 });
}

#[test]
fn a_rule_without_sources_or_destinations_permits_nobody() {
    let tcp = query(TCP, Some(80));
    assert!(!accepts(Rule { sources: Vec::new(), ..rule(1, Action::Accept) }, &tcp));
    assert!(!accepts(Rule { destinations: Vec::new(), ..rule(1, Action::Accept) }, &tcp));
    assert!(!accepts(Rule { sources: Vec::new(), ..rule(1, Action::Drop) }, &tcp));
}

#[test]
fn both_ends_must_be_covered() {
    let tcp = query(TCP, Some(80));
    assert!(!accepts(rule(1, Action::Accept), &Query { source: "10.0.0.1".parse().expect("ip"), ..tcp }));
    assert!(!accepts(rule(1, Action::Accept), &Query { destination: "100.64.0.1".parse().expect("ip"), ..tcp }));
    // Host bits of a prefix do not count.
    assert!(accepts(Rule { destinations: nets(&["10.9.9.9/8"]), ..rule(1, Action::Accept) }, &tcp));
}

#[test]
fn families_do_not_mix() {
    let every = |sources: &[&str], destinations: &[&str]| Rule {
        sources: nets(sources),
        destinations: nets(destinations),
        ..rule(1, Action::Accept)
    };
    let v4 = query(TCP, Some(80));
    let v6 = Query { source: "fd00::7".parse().expect("ip"), destination: "fd01::1".parse().expect("ip"), ..v4 };
    assert!(!accepts(every(&["::/0"], &["::/0"]), &v4));
    assert!(!accepts(every(&["0.0.0.0/0"], &["0.0.0.0/0"]), &v6));
    assert!(!accepts(every(&["0.0.0.0/0"], &["::/0"]), &v4));
    assert!(!accepts(every(&["0.0.0.0/0"], &["::/0"]), &v6));
    assert!(accepts(every(&["::/0"], &["::/0"]), &v6));
    assert!(accepts(every(&["::/0", "0.0.0.0/0"], &["fd00::/7", "10.0.0.0/8"]), &v4));
    // The source of one family and the destination of the other make no pair.
    assert!(!accepts(every(&["100.64.0.0/10", "::/0"], &["fd00::/7"]), &v4));
}

#[test]
fn a_mapped_address_is_its_ipv4_address() {
    let mapped = Query { source: "::ffff:100.64.0.7".parse().expect("ip"), ..query(TCP, Some(80)) };
    assert!(accepts(rule(1, Action::Accept), &mapped));
    let all_v6 = Rule { sources: nets(&["::/0"]), destinations: nets(&["::/0"]), ..rule(1, Action::Accept) };
    let mapped = Query { destination: "::ffff:10.1.2.3".parse().expect("ip"), ..mapped };
    assert!(!accepts(all_v6.clone(), &mapped));
    let mapped_net = nets(&["::ffff:0:0/96"]);
    assert!(accepts(Rule { sources: mapped_net.clone(), destinations: mapped_net.clone(), ..all_v6 }, &mapped));
    // A mapped prefix makes no pair with one in IPv4 notation, as in the kernel's entries.
    assert!(!accepts(Rule { sources: mapped_net, ..rule(1, Action::Accept) }, &mapped));
}

#[test]
fn icmp_of_both_families_is_one_protocol() {
    let of = |protocol| Rule { protocol, ..rule(1, Action::Accept) };
    for number in [ICMP, ICMPV6] {
        assert!(accepts(of(Protocol::Icmp), &query(number, None)));
        assert!(accepts(of(Protocol::Any), &query(number, None)));
        assert!(!accepts(of(Protocol::Tcp), &query(number, None)));
    }
    assert!(!accepts(of(Protocol::Icmp), &query(TCP, Some(1))));
    assert!(accepts(of(Protocol::Any), &query(SCTP, None)));
    assert!(!accepts(of(Protocol::Udp), &query(SCTP, None)));
    assert!(!accepts(of(Protocol::Udp), &query(TCP, Some(53))));
}

#[test]
fn ports_are_inclusive_and_need_to_be_visible() {
    let of = |protocol, ports: &[PortRange]| Rule { protocol, ports: ports.to_vec(), ..rule(1, Action::Accept) };
    let ranges = [PortRange { min: 22, max: 22 }, PortRange { min: 80, max: 81 }];
    for (port, expected) in [(21, false), (22, true), (23, false), (79, false), (80, true), (81, true), (82, false)] {
        assert_eq!(accepts(of(Protocol::Tcp, &ranges), &query(TCP, Some(port))), expected, "{port}");
        assert_eq!(accepts(of(Protocol::Any, &ranges), &query(UDP, Some(port))), expected, "{port}");
    }
    assert!(!accepts(of(Protocol::Tcp, &ranges), &query(TCP, None)));
    assert!(!accepts(of(Protocol::Any, &ranges), &query(ICMP, None)));
    assert!(!accepts(of(Protocol::Any, &ranges), &query(SCTP, Some(80))), "a port of something else is none");
    for all in [&[][..], &[ALL], &[ranges[0], ALL]] {
        for port in [None, Some(0), Some(u16::MAX)] {
            assert!(accepts(of(Protocol::Tcp, all), &query(TCP, port)));
        }
    }
    assert!(!accepts(of(Protocol::Tcp, &[PortRange { min: 1, max: u16::MAX }]), &query(TCP, None)));
}

#[test]
fn scopes_meet_where_they_share_a_bit() {
    use Scope::{Both, Node, Route};
    for (of_rule, of_query, expected) in [
        (Node, Node, true),
        (Node, Route, false),
        (Node, Both, true),
        (Route, Node, false),
        (Route, Route, true),
        (Route, Both, true),
        (Both, Node, true),
        (Both, Route, true),
        (Both, Both, true),
    ] {
        let query = Query { scope: of_query, ..query(TCP, Some(80)) };
        assert_eq!(accepts(Rule { scope: of_rule, ..rule(1, Action::Accept) }, &query), expected, "{of_rule:?}");
    }
}

#[test]
fn an_own_address_under_a_route_hears_the_rules_of_both_and_drop_wins() {
    let node = Rule { scope: Scope::Node, ..rule(1, Action::Drop) };
    let route = Rule { scope: Scope::Route, ..rule(2, Action::Accept) };
    let both = Query { scope: Scope::Both, ..query(TCP, Some(80)) };
    let rules = [route, node];
    assert_eq!(evaluate(&rules, &both), Verdict::Drop { rule: 1 });
    assert_eq!(evaluate(&rules, &Query { scope: Scope::Route, ..both }), Verdict::Accept { rule: 2 });
    assert_eq!(evaluate(&rules, &Query { scope: Scope::Node, ..both }), Verdict::Drop { rule: 1 });
}

fn prefixes() -> impl Strategy<Value = Vec<IpNet>> {
    let few = nets(&["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "fd00::/8", "fd00::1/128"]);
    prop::collection::vec(select(few), 0..3)
}

fn address() -> impl Strategy<Value = IpAddr> {
    select(vec!["10.1.2.3", "10.1.9.9", "192.0.2.1", "fd00::1", "2001:db8::1", "::ffff:10.1.2.3"])
        .prop_map(|text| text.parse().expect("an address"))
}

fn scope() -> impl Strategy<Value = Scope> {
    select(vec![Scope::Node, Scope::Route, Scope::Both])
}

fn port_ranges() -> impl Strategy<Value = Vec<PortRange>> {
    let range = (0_u16..6, 0_u16..4).prop_map(|(min, more)| PortRange { min, max: min + more });
    prop::collection::vec(prop_oneof![range, Just(ALL)], 0..3)
}

prop_compose! {
    fn any_rule()(
        id in 1_u32..100,
        sources in prefixes(),
        destinations in prefixes(),
        protocol in select(vec![Protocol::Any, Protocol::Tcp, Protocol::Udp, Protocol::Icmp]),
        ports in port_ranges(),
        action in select(vec![Action::Accept, Action::Drop]),
        scope in scope(),
    ) -> Rule {
        Rule { id, sources, destinations, protocol, ports, action, scope }
    }
}

prop_compose! {
    fn any_query()(
        source in address(),
        destination in address(),
        protocol in select(vec![ICMP, TCP, UDP, ICMPV6, SCTP]),
        destination_port in prop::option::of(0_u16..10),
        scope in scope(),
    ) -> Query {
        Query { source, destination, protocol, destination_port, scope }
    }
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(any_rule(), 0..8)
}

proptest! {
    #[test]
    fn the_kind_of_verdict_does_not_depend_on_the_order(
        (rules, shuffled) in rules().prop_flat_map(|rules| (Just(rules.clone()), Just(rules).prop_shuffle())),
        query in any_query(),
    ) {
        let kind = |rules| std::mem::discriminant(&evaluate(rules, &query));
        prop_assert_eq!(kind(&rules), kind(&shuffled));
    }

    #[test]
    fn one_more_drop_never_accepts_and_one_more_accept_never_lifts_a_drop(
        rules in rules(), more in any_rule(), at in any::<prop::sample::Index>(), query in any_query(),
    ) {
        let before = evaluate(&rules, &query);
        let mut after = rules.clone();
        after.insert(at.index(rules.len() + 1), more.clone());
        let after = evaluate(&after, &query);
        let accepted = |verdict| matches!(verdict, Verdict::Accept { .. });
        let dropped = |verdict| matches!(verdict, Verdict::Drop { .. });
        match more.action {
            Action::Drop => prop_assert!(!accepted(after) || accepted(before)),
            Action::Accept => prop_assert_eq!(dropped(before), dropped(after)),
        }
        prop_assert!(before == Verdict::Default || after != Verdict::Default, "a rule more is never a rule less");
    }

    #[test]
    fn the_verdict_of_many_is_made_of_the_verdicts_of_each(rules in rules(), query in any_query()) {
        let each: Vec<_> = rules.iter().map(|rule| evaluate(std::slice::from_ref(rule), &query)).collect();
        let first = |wanted: fn(&Verdict) -> bool| each.iter().copied().find(wanted);
        let expected = first(|verdict| matches!(verdict, Verdict::Drop { .. }))
            .or_else(|| first(|verdict| matches!(verdict, Verdict::Accept { .. })))
            .unwrap_or(Verdict::Default);
        prop_assert_eq!(evaluate(&rules, &query), expected);
    }

    #[test]
    fn a_query_of_both_scopes_hears_what_either_would(rules in rules(), query in any_query()) {
        let of = |scope| evaluate(&rules, &Query { scope, ..query });
        let both = of(Scope::Both);
        let sides = [of(Scope::Node), of(Scope::Route)];
        let any = |wanted: fn(&Verdict) -> bool| sides.iter().any(wanted);
        prop_assert_eq!(matches!(both, Verdict::Drop { .. }), any(|side| matches!(side, Verdict::Drop { .. })));
        prop_assert_eq!(both == Verdict::Default, !any(|side| *side != Verdict::Default));
    }

    #[test]
    fn hiding_the_port_never_permits_more(rules in prop::collection::vec(any_rule(), 0..4), query in any_query()) {
        let accept_only: Vec<_> = rules.into_iter().map(|rule| Rule { action: Action::Accept, ..rule }).collect();
        let hidden = evaluate(&accept_only, &Query { destination_port: None, ..query });
        if hidden != Verdict::Default {
            prop_assert_ne!(evaluate(&accept_only, &query), Verdict::Default);
        }
    }
}
