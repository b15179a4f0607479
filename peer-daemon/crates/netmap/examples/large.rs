//! How long a large map takes: `cargo run --release -p peer-netmap --example large [PEERS [ROUTE_RULES [ROUNDS [PEER_RULES]]]]`,
//! the last for each peer.
//!
//! Prints milliseconds for each step from bytes to compiled rules, for a first map and for one that differs by one peer.

use std::sync::Arc;
use std::time::Instant;

use peer_core::key::PublicKey;
use peer_core::policy::compile::{Compiler, Limits};
use peer_netbird::management::SyncMessage;
use peer_netbird::proto::management as wire;
use peer_netmap::compile::{self, Compiled, Options};
use peer_netmap::ids::Ids;
use peer_netmap::model::OwnAddresses;
use peer_netmap::read::Reader;
use peer_netmap::session::Session;
use prost::Message as _;
use zeroize::Zeroizing;

const OWN: PublicKey = PublicKey([0xff; 32]);

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let (peers, route_rules) = (numbers.next().unwrap_or(10_000), numbers.next().unwrap_or(5_000));
    let rounds = numbers.next().unwrap_or(0);
    let peer_rules = numbers.next().unwrap_or(4) as usize;
    let first = message(peers, route_rules, peer_rules);
    let second = message(peers + 1, route_rules, peer_rules);
    println!("{peers} peers, {route_rules} route rules: {} bytes on the wire", first.len());
    println!("{:>24} {:>9} {:>9} {:>9} {:>9}", "", "decode", "session", "compile", "policy");
    let mut node = Node::default();
    let one = node.apply("first", &first);
    let other = node.apply("one peer more", &second);
    let again = node.apply("the same again", &second);
    for round in 0..rounds {
        let (what, bytes) = if round % 2 == 0 { ("one peer less", &first) } else { ("one peer more", &second) };
        node.apply(what, bytes);
    }
    println!(
        "peers {} → {}, rules {} (equal: {}), unchanged when sent again: {}",
        one.peers.len(),
        other.peers.len(),
        one.rules.len(),
        one.rules == other.rules,
        other == again
    );
    println!("resident: {} KiB", resident_kib());
}

/// What a node keeps from one map to the next.
struct Node {
    reader: Reader,
    session: Session,
    ids: Ids,
    compiler: compile::Compiler,
    policy: Compiler,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            reader: Reader::default(),
            session: Session::new(OWN),
            ids: Ids::new(),
            compiler: compile::Compiler::default(),
            policy: Compiler::default(),
        }
    }
}

impl Node {
    fn apply(&mut self, what: &str, bytes: &[u8]) -> Compiled {
        let plaintext = Zeroizing::new(bytes.to_vec());
        let start = Instant::now();
        let message = Arc::new(SyncMessage::new(plaintext).expect("a message"));
        let update = self.reader.read(&message).expect("a message");
        let decoded = Instant::now();
        self.session.update(update);
        let updated = Instant::now();
        let addresses = OwnAddresses { v4: "100.64.255.254/10".parse().ok(), v6: None };
        let options = Options {
            own_key: OWN,
            addresses,
            local: Vec::new(),
            keepalive: None,
            preshared_key: None,
            uplinks: peer_core::desired::UplinkChoice::Auto,
            server_routes: true,
            block_inbound: false,
        };
        let compiled = self.compiler.compile(self.session.map().expect("a map"), &options, &mut self.ids);
        let made = Instant::now();
        let limits = Limits { prefixes: 1 << 20, cells: 1 << 22 };
        let policy = self.policy.compile(&compiled.rules, &limits).expect("it fits");
        let steps = [decoded - start, updated - decoded, made - updated, made.elapsed()];
        let [decode, session, compile, tables] = steps.map(|step| step.as_secs_f64() * 1e3);
        println!(
            "{what:>24} {decode:>9.1} {session:>9.1} {compile:>9.1} {tables:>9.1}   ({} cells)",
            policy.cells.len()
        );
        compiled
    }
}

/// A map as a current server sends it: each peer with two addresses, rules for both, in and out; four resources for each policy
/// on routes, and eight peers, one more for the last policy if there is one more in all.
fn message(peers: u32, route_rules: u32, peer_rules: usize) -> Vec<u8> {
    let remote_peers = (1..=peers).map(|n| wire::RemotePeerConfig {
        wg_pub_key: key(n).to_string(),
        allowed_ips: vec![format!("{}/32", v4(n)), format!("{}/128", v6(n))],
        fqdn: format!("host-{n}.netbird.selfhosted"),
        agent_version: "0.77.1".into(),
    });
    let both = [wire::RuleDirection::In, wire::RuleDirection::Out].into_iter();
    let rules = both.take(peer_rules.div_ceil(2)).flat_map(|direction| {
        (1..=peers).flat_map(move |n| {
            let compact4 = [&v4(n).octets()[..], &[32]].concat();
            let compact6 = [&v6(n).octets()[..], &[128]].concat();
            let sources = [(v4(n).to_string(), compact4), (v6(n).to_string(), compact6)];
            sources.into_iter().take(peer_rules).map(move |(peer_ip, compact)| wire::FirewallRule {
                peer_ip,
                direction: direction.into(),
                protocol: wire::RuleProtocol::All.into(),
                policy_id: b"dc18p5dqmd2tq8cv91o0".to_vec(),
                source_prefixes: vec![compact],
                ..Default::default()
            })
        })
    });
    let policies = route_rules / 4;
    let members = |policy: u32| {
        let last = if policy + 1 == policies { peers.saturating_sub(policies * 8) } else { 0 };
        (policy * 8 + 1..=policy * 8 + 8 + last).filter(move |peer| *peer <= peers)
    };
    let route_rule = |n: u32| wire::RouteFirewallRule {
        source_ranges: members(n / 4)
            .flat_map(|peer| [format!("{}/32", v4(peer)), format!("{}/128", v6(peer))])
            .collect(),
        destination: format!("10.{}.{}.0/24", n % 4, n % 4),
        protocol: wire::RuleProtocol::Tcp.into(),
        port_info: Some(wire::PortInfo { selection: Some(wire::port_info::Selection::Port(10_000 + n / 4)) }),
        policy_id: format!("policy-{}", n / 4).into_bytes(),
        route_id: format!("resource-{n}:router"),
        ..Default::default()
    };
    let route = |n: u32| wire::Route {
        id: format!("resource-{n}:router"),
        network: format!("10.{n}.{n}.0/24"),
        network_type: 1,
        peer: OWN.to_string(),
        net_id: format!("lan-{n}"),
        masquerade: true,
        ..Default::default()
    };
    let map = wire::NetworkMap {
        serial: peers.into(),
        remote_peers: remote_peers.collect(),
        firewall_rules: rules.collect(),
        routes_firewall_rules: (0..route_rules).map(route_rule).collect(),
        routes: (0..4).map(route).collect(),
        ..Default::default()
    };
    wire::SyncResponse { network_map: Some(map), ..Default::default() }.encode_to_vec()
}

fn key(n: u32) -> PublicKey {
    let mut bytes = [0; 32];
    // Spread, as keys are.
    bytes[..8].copy_from_slice(&u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    PublicKey(bytes)
}

fn v4(n: u32) -> std::net::Ipv4Addr {
    (0x6440_0000 + n).into()
}

fn v6(n: u32) -> std::net::Ipv6Addr {
    ((0xfd00 << 112) + u128::from(n)).into()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
