use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::desired::{Action, Protocol, Scope};
use crate::policy::{Query, Verdict, evaluate};

const ROOMY: Limits = Limits { prefixes: 1 << 16, cells: 1 << 18 };

/// Looks `query` up as a dataplane does.
fn look_up(compiled: &Compiled, query: &Query) -> Verdict {
    let longest = |table: &BTreeMap<Ipv6Net, u32>, addr: IpAddr| {
        let addr = match addr {
            IpAddr::V4(addr) => addr.to_ipv6_mapped(),
            IpAddr::V6(addr) => addr,
        };
        let covering = table.iter().filter(|(net, _)| net.contains(&addr));
        covering.max_by_key(|(net, _)| net.prefix_len()).map_or(0, |(_, atom)| *atom)
    };
    let identity = longest(&compiled.sources, query.source);
    let class = longest(&compiled.destinations, query.destination);
    let kind = match (query.protocol, query.destination_port) {
        (1 | 58, _) => Kind::Icmp,
        (6, Some(_)) => Kind::Tcp,
        (17, Some(_)) => Kind::Udp,
        (6, None) => Kind::TcpBlind,
        (17, None) => Kind::UdpBlind,
        _ => Kind::Other,
    };
    let port = if kind.has_ports() { query.destination_port.unwrap_or(0) } else { 0 };
    let cell = |scope| {
        (0..=16).rev().find_map(|port_bits: u8| {
            let mask = if port_bits == 0 { 0 } else { u16::MAX << (16 - port_bits) };
            compiled.cells.get(&Cell { identity, class, scope, kind, port: port & mask, port_bits })
        })
    };
    let outcomes = match query.scope {
        Scope::Node => [cell(CellScope::Node), None],
        Scope::Route => [None, cell(CellScope::Route)],
        Scope::Both => [cell(CellScope::Node), cell(CellScope::Route)],
    };
    let found = |pick: fn(&Outcome) -> Option<Verdict>| outcomes.iter().flatten().find_map(|outcome| pick(outcome));
    let dropped = found(|outcome| match outcome {
        Outcome::Drop { rule } => Some(Verdict::Drop { rule: *rule }),
        Outcome::Accept { .. } => None,
    });
    let accepted = || {
        found(|outcome| match outcome {
            Outcome::Accept { rule } => Some(Verdict::Accept { rule: *rule }),
            Outcome::Drop { .. } => None,
        })
    };
    dropped.or_else(accepted).unwrap_or(Verdict::Default)
}

/// Of what is asked in both scopes at once the scopes name their own first rule.
fn kinds(verdict: Verdict, query: &Query) -> (u8, u32) {
    match verdict {
        Verdict::Accept { rule } => (1, if query.scope == Scope::Both { 0 } else { rule }),
        Verdict::Drop { rule } => (2, if query.scope == Scope::Both { 0 } else { rule }),
        Verdict::Default => (0, 0),
    }
}

/// Few addresses, so that prefixes overlap and meet what is asked.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (select(vec![10_u8, 100]), 0..3_u8, select(vec![0_u8, 64, 255]), 0..4_u8);
    let v6 = (select(vec![0xfd00_u16, 0x2001]), 0..3_u16);
    prop_oneof![
        3 => v4.prop_map(|(a, b, c, d)| Ipv4Addr::new(a, b, c, d).into()),
        1 => v6.prop_map(|(a, z)| Ipv6Addr::new(a, 0, 0, 0, 0, 0, 0, z).into()),
    ]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    let lens_v4 = select(vec![0_u8, 1, 8, 10, 15, 16, 24, 30, 31, 32]);
    let lens_v6 = select(vec![0_u8, 8, 16, 64, 95, 127, 128]);
    let mapped = (select(vec![96_u8, 104, 128]), 0..3_u8)
        .prop_map(|(len, b)| IpNet::new(Ipv4Addr::new(10, b, 0, 1).to_ipv6_mapped().into(), len).expect("valid"));
    prop_oneof![
        12 => (address(), lens_v4, lens_v6).prop_map(|(addr, v4, v6)| {
            IpNet::new(addr, if addr.is_ipv4() { v4 } else { v6 }).expect("valid")
        }),
        1 => mapped,
    ]
}

fn ports() -> impl Strategy<Value = Vec<PortRange>> {
    let bounds = select(vec![0_u16, 1, 79, 80, 81, 443, 1023, 1024, 32767, 32768, 65534, 65535]);
    let range = (bounds.clone(), bounds).prop_map(|(a, b)| PortRange { min: a.min(b), max: a.max(b) });
    prop_oneof![2 => Just(Vec::new()), 3 => proptest::collection::vec(range, 1..4)]
}

fn rule() -> impl Strategy<Value = Rule> {
    let nets = || proptest::collection::vec(prefix(), 0..4);
    let protocol = select(vec![Protocol::Any, Protocol::Tcp, Protocol::Udp, Protocol::Icmp]);
    let action = prop_oneof![3 => Just(Action::Accept), 1 => Just(Action::Drop)];
    let scope = select(vec![Scope::Both, Scope::Node, Scope::Route]);
    (nets(), nets(), protocol, ports(), action, scope).prop_map(
        |(sources, destinations, protocol, ports, action, scope)| Rule {
            id: 0,
            sources,
            destinations,
            protocol,
            ports,
            action,
            scope,
        },
    )
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    proptest::collection::vec(rule(), 0..12).prop_map(|mut rules| {
        for (id, rule) in (1..).zip(&mut rules) {
            rule.id = id;
        }
        rules
    })
}

fn query() -> impl Strategy<Value = Query> {
    let port = select(vec![0_u16, 1, 80, 81, 443, 1024, 32768, 65535]);
    let protocol = select(vec![1_u8, 6, 6, 6, 17, 58, 132]);
    let scope = select(vec![Scope::Node, Scope::Route, Scope::Both]);
    (address(), address(), protocol, proptest::option::weighted(0.8, port), scope).prop_map(
        |(source, destination, protocol, destination_port, scope)| Query {
            source,
            destination,
            protocol,
            destination_port,
            scope,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn compiled_policy_answers_as_the_oracle(rules in rules(), queries in proptest::collection::vec(query(), 64)) {
        let compiled = compile(&rules, &ROOMY).expect("few rules");
        for query in &queries {
            let (found, expected) = (look_up(&compiled, query), evaluate(&rules, query));
            prop_assert_eq!(kinds(found, query), kinds(expected, query), "{:?}", query);
        }
    }

    #[test]
    fn a_compiler_that_remembers_answers_as_the_oracle(
        first in rules(),
        changes in proptest::collection::vec((0..8_usize, prefix(), any::<bool>(), any::<bool>()), 0..12),
        queries in proptest::collection::vec(query(), 16),
    ) {
        let mut compiler = Compiler::default();
        let mut rules = first;
        for (at, net, source, add) in changes {
            let count = rules.len().max(1);
            if let Some(rule) = rules.get_mut(at % count) {
                let nets = if source { &mut rule.sources } else { &mut rule.destinations };
                if add { nets.push(net) } else { nets.retain(|other| *other != net) }
            }
            let compiled = compiler.compile(&Rule::list(rules.iter().cloned()), &ROOMY).expect("it fits");
            for query in &queries {
                let (found, expected) = (look_up(&compiled, query), evaluate(&rules, query));
                prop_assert_eq!(kinds(found, query), kinds(expected, query), "{:?}", query);
            }
        }
    }

    #[test]
    fn port_prefixes_cover_their_range_and_nothing_else(a in any::<u16>(), b in any::<u16>()) {
        let range = PortRange { min: a.min(b), max: a.max(b) };
        let mut next = u32::from(range.min);
        let mut count = 0;
        for (port, bits) in port_prefixes(range) {
            prop_assert_eq!(u32::from(port), next);
            next += 1 << (16 - bits);
            count += 1;
        }
        prop_assert_eq!(next, u32::from(range.max) + 1);
        prop_assert!(count <= 30);
    }
}

#[test]
fn ten_thousand_rules_stay_small_and_compile_fast() {
    let net = |text: String| text.parse::<IpNet>().expect("a prefix");
    let rule = |id: u32| Rule {
        id,
        sources: vec![net(format!("100.64.{}.0/24", id % 200))],
        destinations: vec![net(format!("10.{}.{}.0/24", id / 250, id % 250))],
        protocol: Protocol::Tcp,
        ports: vec![PortRange { min: 443, max: 443 }],
        action: Action::Accept,
        scope: Scope::Route,
    };
    let rules: Vec<_> = (1..=10_000).map(rule).collect();
    let compiled = compile(&rules, &ROOMY).expect("it fits");
    assert_eq!((compiled.sources.len(), compiled.cells.len()), (200 + 1, 10_000));
}

#[test]
fn growth_over_the_limits_is_refused_with_numbers() {
    let rules: Vec<_> = (0..100_u8)
        .map(|id| Rule {
            id: id.into(),
            sources: vec![IpNet::new(Ipv4Addr::new(100, 64, id, 0).into(), 24).expect("valid")],
            destinations: vec!["0.0.0.0/0".parse().expect("valid")],
            protocol: Protocol::Any,
            ports: Vec::new(),
            action: Action::Accept,
            scope: Scope::Both,
        })
        .collect();
    let error = |prefixes, cells| compile(&rules, &Limits { prefixes, cells }).expect_err("too large").to_string();
    assert!(error(50, 1000).contains("101 source prefixes"), "{}", error(50, 1000));
    assert!(error(200, 1000).contains("1000 fit"), "{}", error(200, 1000));
    assert!(error(200, 10).contains("meetings"), "{}", error(200, 10));
}

#[test]
fn what_stays_keeps_its_number_and_the_cells() {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a prefix")).collect::<Vec<IpNet>>();
    let rules = |sources: &[&str], others: &[&str]| {
        let rule = |id, sources: &[&str]| Rule {
            id,
            sources: nets(sources),
            destinations: nets(&["10.0.0.0/8"]),
            protocol: Protocol::Any,
            ports: Vec::new(),
            action: Action::Accept,
            scope: Scope::Route,
        };
        [rule(1, sources), rule(2, others)]
    };
    let mut compiler = Compiler::default();
    let mut compile = |rules: &[Rule]| compiler.compile(&Rule::list(rules.iter().cloned()), &ROOMY).expect("it fits");
    let first = compile(&rules(&["100.64.0.5/32"], &["100.64.0.7/32"]));
    // The new ones stand before all others, which would shift numbers that are given by order.
    let second = compile(&rules(&["100.64.0.2/32", "100.64.0.5/32"], &["100.64.0.1/32", "100.64.0.7/32"]));
    assert!(Arc::ptr_eq(&first.cells, &second.cells));
    assert_eq!(second.sources.len(), first.sources.len() + 2);
    assert!(first.sources.iter().all(|(net, atom)| second.sources.get(net) == Some(atom)));
    let third = compile(&rules(&["100.64.0.2/32"], &["100.64.0.2/32", "100.64.0.7/32"]));
    assert!(!Arc::ptr_eq(&second.cells, &third.cells), "a set is gone, and one is new");
    let seven: Vec<_> =
        [&first, &third].iter().map(|c| c.sources[&"::ffff:100.64.0.7/128".parse().expect("valid")]).collect();
    assert_eq!(seven[0], seven[1]);
    assert_ne!(third.sources[&"::ffff:100.64.0.2/128".parse().expect("valid")], seven[0]);
}

#[test]
fn numbers_do_not_grow_for_ever() {
    let net = |text: &str| text.parse::<IpNet>().expect("a prefix");
    let mut compiler = Compiler::default();
    let mut highest = 0;
    for round in 1..4000_u32 {
        // Each round has a set of rules that none before it had.
        let rule = |id: u32| Rule {
            id,
            sources: if round >> id & 1 == 1 { vec![net("100.64.0.1/32")] } else { Vec::new() },
            destinations: vec![net("10.0.0.0/8")],
            protocol: Protocol::Any,
            ports: Vec::new(),
            action: Action::Accept,
            scope: Scope::Route,
        };
        let compiled = compiler.compile(&Rule::list((0..12).map(rule)), &ROOMY).expect("it fits");
        highest = highest.max(*compiled.sources.values().max().expect("one"));
    }
    assert!((1000..1030).contains(&highest), "{highest}");
}
