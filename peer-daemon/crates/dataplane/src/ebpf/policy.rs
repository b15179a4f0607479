//! From rules to policy entries: one source prefix, one destination prefix, one port range each.

use ipnet::IpNet;
use peer_common::addr::MAPPED_BITS;
use peer_common::policy::MAX_POLICY_RULES;
use peer_common::{PolicyRule, RuleAction, RuleScope};
use peer_core::desired::{Action, PortRange, Protocol, Rule, Scope};

use crate::Error;

const ALL_PORTS: PortRange = PortRange { min: 0, max: u16::MAX };

/// Expands `rules`. A source of one family and a destination of the other make no entry.
pub(super) fn entries(rules: &[Rule]) -> Result<Vec<PolicyRule>, Error> {
    let mut entries = Vec::new();
    for rule in rules {
        for (source, destination) in pairs(rule) {
            if rule.ports.is_empty() {
                entries.push(entry(rule, source, destination, ALL_PORTS));
            }
            entries.extend(rule.ports.iter().map(|&ports| entry(rule, source, destination, ports)));
        }
    }
    let limit = MAX_POLICY_RULES as usize;
    if entries.len() > limit {
        return Err(Error::TooManyRules { entries: entries.len(), limit });
    }
    Ok(entries)
}

fn pairs(rule: &Rule) -> impl Iterator<Item = (&IpNet, &IpNet)> {
    rule.sources.iter().flat_map(|source| {
        let same_family = move |other: &&IpNet| other.addr().is_ipv4() == source.addr().is_ipv4();
        rule.destinations.iter().filter(same_family).map(move |destination| (source, destination))
    })
}

fn entry(rule: &Rule, source: &IpNet, destination: &IpNet, ports: PortRange) -> PolicyRule {
    PolicyRule {
        src: source.network().into(),
        dst: destination.network().into(),
        src_len: bits(source),
        dst_len: bits(destination),
        protocol: match rule.protocol {
            Protocol::Any => 0,
            Protocol::Icmp => 1,
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        },
        action: match rule.action {
            Action::Accept => RuleAction::Accept as u8,
            Action::Drop => RuleAction::Drop as u8,
        },
        port_min: ports.min,
        port_max: ports.max,
        scope: match rule.scope {
            Scope::Node => RuleScope::NODE,
            Scope::Route => RuleScope::ROUTE,
            Scope::Both => RuleScope::NODE | RuleScope::ROUTE,
        },
        pad: [0; 3],
        id: rule.id,
    }
}

fn bits(net: &IpNet) -> u8 {
    if net.addr().is_ipv4() { MAPPED_BITS as u8 + net.prefix_len() } else { net.prefix_len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a prefix")).collect()
    }

    fn rule(sources: &[&str], destinations: &[&str], ports: &[PortRange]) -> Rule {
        Rule {
            id: 4,
            sources: nets(sources),
            destinations: nets(destinations),
            protocol: Protocol::Tcp,
            ports: ports.to_vec(),
            action: Action::Accept,
            scope: Scope::Both,
        }
    }

    #[test]
    fn families_do_not_mix() {
        let all = entries(&[rule(&["0.0.0.0/0", "::/0"], &["10.0.0.0/8", "fd00::/8"], &[])]).expect("few");
        let lens: Vec<_> = all.iter().map(|entry| (entry.src_len, entry.dst_len)).collect();
        assert_eq!(lens, [(96, 104), (0, 8)]);
    }

    #[test]
    fn every_port_range_is_an_entry_and_none_is_all() {
        let ranges = [PortRange { min: 80, max: 80 }, PortRange { min: 443, max: 445 }];
        let all = entries(&[rule(&["10.0.0.0/8"], &["10.0.0.0/8"], &ranges)]).expect("few");
        assert_eq!(
            all.iter().map(|entry| (entry.port_min, entry.port_max)).collect::<Vec<_>>(),
            [(80, 80), (443, 445)]
        );
        let all = entries(&[rule(&["10.0.0.0/8"], &["10.0.0.0/8"], &[])]).expect("few");
        assert_eq!((all[0].port_min, all[0].port_max), (0, u16::MAX));
    }

    #[test]
    fn empty_sources_permit_nobody() {
        assert_eq!(entries(&[rule(&[], &["10.0.0.0/8"], &[])]).expect("few"), []);
    }

    #[test]
    fn too_many_are_refused_with_the_numbers() {
        let many: Vec<_> = (0..1025).map(|_| rule(&["10.0.0.0/8"], &["10.0.0.0/8"], &[])).collect();
        let error = entries(&many).expect_err("too many").to_string();
        assert!(error.contains("1025") && error.contains("1024"), "{error}");
    }
}
