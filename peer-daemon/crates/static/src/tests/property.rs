use std::collections::HashSet;

use ipnet::IpNet;
use peer_core::desired::{Protocol, UplinkChoice};
use peer_core::key::PublicKey;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const VALUES: &[&str] = &[
    "0",
    "1",
    "25",
    "80",
    "576",
    "1280",
    "1420",
    "65535",
    "65536",
    "-1",
    "1.5",
    "true",
    "false",
    "\"off\"",
    "\"auto\"",
    "\"eth0\"",
    "\"wt0\"",
    "\"any\"",
    "\"tcp\"",
    "\"udp\"",
    "\"icmp\"",
    "\"accept\"",
    "\"drop\"",
    "\"1.2.3.4:5\"",
    "\"[fd00::1]:5\"",
    "\"1.2.3.4\"",
    "\"10.0.0.0/8\"",
    "\"10.0.0.1/8\"",
    "\"fd00::/8\"",
    "[]",
    "[80, \"90-100\"]",
    "[\"100-90\"]",
    "[\"10.0.0.0/8\"]",
    "[\"10.0.0.0/8\", \"10.0.0.0/8\"]",
    "[\"10.0.0.1/32\", \"fd00::/8\"]",
    "[\"10.0.0.1/8\"]",
    "[\"100.64.0.1/32\"]",
    "[1, [2]]",
    "{ a = 1 }",
    "",
    "\"",
    "1979-05-27",
];

/// Mostly a key of the schema with a value that may suit it.
fn line() -> impl Strategy<Value = String> {
    let keys = [schema::INTERFACE, schema::PEER, schema::ROUTE, schema::RULE];
    let keys: Vec<_> = keys.into_iter().flatten().collect();
    let examples: Vec<_> = keys.iter().map(|key| key.example.to_owned()).collect();
    let names: Vec<_> = keys.iter().map(|key| key.name).collect();
    let mixed = (select(names), select(VALUES)).prop_map(|(name, value)| format!("{name} = {value}"));
    let key = select(vec![PEER, OTHER, PUBLIC]).prop_map(|key| format!("public_key = \"{key}\""));
    let preshared = Just(format!("preshared_key = \"{OTHER}\""));
    prop_oneof![4 => select(examples), 4 => mixed, 3 => key, 1 => preshared, 1 => ".{0,20}"]
}

/// Sections that are good alone, but may not go together.
fn good_section() -> impl Strategy<Value = String> {
    let some = |lines: &[&str]| {
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        let all = 0..=lines.len();
        prop::sample::subsequence(lines, all).prop_map(|lines| lines.join("\n"))
    };
    let peer =
        (any::<u8>(), some(&["endpoint = \"192.0.2.1:51820\"", "persistent_keepalive = 25"])).prop_map(|(n, more)| {
            let key = PublicKey([n; 32]);
            format!(
                "[[peer]]\npublic_key = \"{key}\"\nallowed_ips = [\"100.64.1.{n}/32\", \"fd00:{n:x}::/32\"]\n{more}\n"
            )
        });
    let route = (any::<u8>(), some(&["masquerade = false", "uplink = \"eth0\""]))
        .prop_map(|(n, more)| format!("[[route]]\ndestination = \"10.{n}.0.0/16\"\n{more}\n"));
    let rule = some(&[
        "sources = [\"100.64.0.0/16\"]",
        "destinations = [\"::/0\"]",
        "protocol = \"tcp\"\nports = [22]",
        "id = 3",
    ])
    .prop_map(|more| format!("[[rule]]\naction = \"accept\"\n{more}\n"));
    prop_oneof![peer, route, rule]
}

fn section() -> impl Strategy<Value = String> {
    let heads = select(vec!["[[peer]]", "[[route]]", "[[rule]]", "[peer]", "[x]"]);
    let noise = (heads, prop::collection::vec(line(), 0..4))
        .prop_map(|(head, lines)| format!("{head}\n{}\n", lines.join("\n")));
    prop_oneof![19 => good_section(), 1 => noise]
}

fn check_invariants(desired: &Desired) -> Result<(), TestCaseError> {
    let interface = &desired.interface;
    prop_assert!((576..=65_455).contains(&interface.mtu));
    prop_assert!((1..=15).contains(&interface.name.len()) && !interface.name.contains(['/', ' ']));
    prop_assert!(!interface.addresses.is_empty());
    let own: HashSet<_> = interface.addresses.iter().map(IpNet::addr).collect();
    prop_assert_eq!(own.len(), interface.addresses.len());

    let keys: HashSet<_> = desired.peers.iter().map(|peer| peer.public_key).collect();
    prop_assert_eq!(keys.len(), desired.peers.len());
    prop_assert!(!keys.contains(&interface.private_key.public_key()));
    let mut allowed = HashSet::new();
    for prefix in desired.peers.iter().flat_map(|peer| &*peer.allowed_ips) {
        prop_assert!(allowed.insert(*prefix), "{} twice", prefix);
        prop_assert_eq!(prefix.trunc(), *prefix);
    }
    prop_assert!(own.iter().all(|ip| !allowed.contains(&IpNet::from(*ip))));
    for endpoint in desired.peers.iter().filter_map(|peer| peer.endpoint) {
        prop_assert!(endpoint.port() != 0 && !endpoint.ip().is_unspecified());
        prop_assert_eq!(endpoint.ip().to_canonical(), endpoint.ip());
    }

    let destinations: HashSet<_> = desired.routes.iter().map(|route| route.destination).collect();
    prop_assert_eq!(destinations.len(), desired.routes.len());
    prop_assert!(destinations.iter().all(|prefix| prefix.trunc() == *prefix));
    prop_assert!(desired.routes.iter().all(|route| route.uplink != UplinkChoice::Named(interface.name.clone())));
    let ipv6 = allowed.iter().chain(&destinations).chain(&interface.addresses).any(|net| net.addr().is_ipv6());
    prop_assert!(!ipv6 || interface.mtu >= 1280);

    let ids: HashSet<_> = desired.rules.iter().map(|rule| rule.id).collect();
    prop_assert_eq!(ids.len(), desired.rules.len());
    prop_assert!(!ids.contains(&0));
    for rule in &*desired.rules {
        prop_assert!(rule.ports.iter().all(|range| 0 < range.min && range.min <= range.max));
        prop_assert!(rule.ports.is_empty() || matches!(rule.protocol, Protocol::Tcp | Protocol::Udp));
        prop_assert!(rule.sources.iter().chain(&rule.destinations).all(|prefix| prefix.trunc() == *prefix));
    }
    Ok(())
}

fn check(text: &str) -> Result<(), TestCaseError> {
    match read(text) {
        Ok(desired) => check_invariants(&desired),
        Err(problems) => {
            prop_assert!(problems.iter().len() > 0);
            prop_assert!(problems.iter().is_sorted_by_key(|problem| problem.line));
            let lines = text.split('\n').count();
            prop_assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line)));
            prop_assert!(problems.iter().all(|problem| !problem.why.is_empty() && !problem.fix.is_empty()));
            prop_assert_eq!(problems.to_string().lines().count(), problems.iter().len());
            prop_assert!(!problems.to_string().contains(PRIVATE));
            Ok(())
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_taken_or_refused(text in any::<String>()) {
        check(&text)?;
    }

    #[test]
    fn any_lines_are_taken_or_refused(lines in prop::collection::vec(line(), 0..6)) {
        check(&format!("{}{}", interface(), lines.join("\n")))?;
        check(&lines.join("\n"))?;
    }

    #[test]
    fn what_is_taken_holds_together(sections in prop::collection::vec(section(), 0..5)) {
        check(&format!("{}{}", interface(), sections.concat()))?;
    }

    #[test]
    fn a_torn_file_is_taken_or_refused(at in any::<prop::sample::Index>(), cut in 1_usize..8) {
        let whole = interface() + &schema::RULE.iter().fold("[[rule]]\n".to_owned(), |text, key| text + key.example + "\n");
        let start = at.index(whole.len());
        let rest = whole.chars().enumerate().filter(|(i, _)| !(start..start + cut).contains(i)).map(|(_, c)| c);
        check(&rest.collect::<String>())?;
    }
}
