//! Rules as people wrote them.

use std::fmt::{self, Display, Formatter};

use peer_core::desired::{Action, PortRange, Protocol, Rule, Scope};

/// Prefixes and ports of a list that are shown.
const SHOWN: usize = 4;

/// Displays a rule in one line: `100.64.0.0/16 → 10.1.2.0/24, tcp 80, 8000-8100: accept`.
#[derive(Debug)]
pub struct RuleText<'a>(pub &'a Rule);

impl Display for RuleText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        list(f, &rule.sources, "nobody", " or ")?;
        f.write_str(" → ")?;
        list(f, &rule.destinations, "nothing", " or ")?;
        f.write_str(match rule.protocol {
            Protocol::Any => ", any protocol",
            Protocol::Tcp => ", tcp",
            Protocol::Udp => ", udp",
            Protocol::Icmp => ", icmp",
        })?;
        if !rule.ports.is_empty() {
            f.write_str(" ")?;
            let ports: Vec<_> = rule.ports.iter().map(Ports).collect();
            list(f, &ports, "", ", ")?;
        }
        f.write_str(match rule.scope {
            Scope::Node => ", to the node",
            Scope::Route => ", through the node",
            Scope::Both => "",
        })?;
        f.write_str(match rule.action {
            Action::Accept => ": accept",
            Action::Drop => ": drop",
        })
    }
}

struct Ports<'a>(&'a PortRange);

impl Display for Ports<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let PortRange { min, max } = self.0;
        if min == max { write!(f, "{min}") } else { write!(f, "{min}-{max}") }
    }
}

fn list<T: Display>(f: &mut Formatter<'_>, items: &[T], none: &str, between: &str) -> fmt::Result {
    if items.is_empty() {
        return f.write_str(none);
    }
    for (position, item) in items.iter().take(SHOWN).enumerate() {
        if position > 0 {
            f.write_str(between)?;
        }
        write!(f, "{item}")?;
    }
    match items.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => write!(f, "{between}{more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_as_it_was_written() {
        let rule = |sources: &[&str], ports: &[(u16, u16)], protocol, action, scope| Rule {
            id: 1,
            sources: sources.iter().map(|text| text.parse().expect("a prefix")).collect(),
            destinations: vec!["10.1.2.0/24".parse().expect("a prefix")],
            protocol,
            ports: ports.iter().map(|&(min, max)| PortRange { min, max }).collect(),
            action,
            scope,
        };
        let web = rule(&["100.64.0.0/16"], &[(80, 80), (8000, 8100)], Protocol::Tcp, Action::Accept, Scope::Both);
        assert_eq!(RuleText(&web).to_string(), "100.64.0.0/16 → 10.1.2.0/24, tcp 80, 8000-8100: accept");
        let none = rule(&[], &[], Protocol::Any, Action::Drop, Scope::Node);
        assert_eq!(RuleText(&none).to_string(), "nobody → 10.1.2.0/24, any protocol, to the node: drop");
        let many: Vec<String> = (0..7).map(|n| format!("10.{n}.0.0/16")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let text = RuleText(&rule(&many, &[], Protocol::Icmp, Action::Accept, Scope::Route)).to_string();
        assert!(
            text.contains("10.3.0.0/16 or 3 more → ") && text.ends_with("icmp, through the node: accept"),
            "{text}"
        );
    }
}
