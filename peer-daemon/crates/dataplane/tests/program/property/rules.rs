//! Random rules.

use ipnet::IpNet;
use peer_core::desired::{Action, PortRange, Protocol, Rule, Scope};

use super::random::Random;

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

/// Mostly permissive: what is dropped shows little.
pub(crate) fn random(random: &mut Random) -> Vec<Rule> {
    let all = ["0.0.0.0/0", "::/0"];
    let count = random.below(5);
    let mut rules: Vec<Rule> = (0..count)
        .map(|id| {
            let sources = ["0.0.0.0/0", "::/0", "100.64.0.2/32", "100.64.0.0/16", "fd00:64::/120", "fd00:64::3/128"];
            let networks = ["0.0.0.0/0", "::/0", "198.51.100.0/24", "2001:db8:2::/63"];
            // Single addresses have prepared answers.
            let hosts = ["198.51.100.80/32", "203.0.113.80/32", "2001:db8:2::80/128", "100.64.0.1/32"];
            let destinations = [networks, hosts].concat();
            let (sources, destinations) = (some(random, &sources), some(random, &destinations));
            Rule {
                id: id as u32 + 2,
                sources,
                destinations,
                protocol: random.pick(&[Protocol::Any, Protocol::Tcp, Protocol::Udp, Protocol::Icmp]),
                ports: ports(random),
                action: if random.one_in(3) { Action::Drop } else { Action::Accept },
                scope: random.pick(&[Scope::Node, Scope::Route, Scope::Both]),
            }
        })
        .collect();
    if !random.one_in(4) {
        let (sources, destinations) = (all.map(net).to_vec(), all.map(net).to_vec());
        let (protocol, ports, action, scope) = (Protocol::Any, vec![], Action::Accept, Scope::Both);
        rules.push(Rule { id: 1, sources, destinations, protocol, ports, action, scope });
    }
    rules
}

fn some(random: &mut Random, from: &[&str]) -> Vec<IpNet> {
    (0..1 + random.below(2)).map(|_| net(random.pick(from))).collect()
}

fn ports(random: &mut Random) -> Vec<PortRange> {
    match random.below(4) {
        0 => vec![PortRange { min: 80, max: 443 }],
        1 => vec![PortRange { min: 80, max: 80 }, PortRange { min: 1024, max: 20481 }],
        _ => vec![],
    }
}
