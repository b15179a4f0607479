//! A NAT in user space that does what the programs promise, written for clarity: the oracle of the property test. It shares
//! with them the key of the port hash, the order of checks, and nothing of their code.

mod answers;
mod forward;
pub(crate) mod parse;
pub(crate) mod ports;
mod rewrite;
mod tcp;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use peer_common::{Counter, DropReason, FlowKind};
use peer_core::desired::{Rule, Scope};
use peer_core::policy::{self, Query, Verdict};

use self::parse::{Parsed, Part, Tuple};
use self::ports::{Ports, Times};
pub(crate) use self::tcp::Side;
use crate::wire::{TCP, UDP};

/// What cannot change while packets flow.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) peers: Vec<(IpNet, u32)>,
    pub(crate) routes: Vec<RefRoute>,
    /// Rules of routes open no address of the node.
    pub(crate) protect_node: bool,
    /// Own addresses; `true`: of the overlay.
    pub(crate) locals: BTreeMap<IpAddr, bool>,
    pub(crate) listeners: BTreeSet<(u8, u16)>,
    pub(crate) overlay: [IpAddr; 2],
    pub(crate) uplink: [IpAddr; 2],
    pub(crate) hash_key: [u64; 2],
    pub(crate) ports: (u16, u16),
    pub(crate) quota: u32,
    /// What the policy refuses is answered.
    pub(crate) reject: bool,
    pub(crate) wt0_mtu: usize,
    pub(crate) uplink_mtu: usize,
}

#[derive(Clone, Copy)]
pub(crate) struct RefRoute {
    pub(crate) destination: IpNet,
    pub(crate) id: u32,
    pub(crate) masquerade: bool,
    /// Whether its device is one of ours.
    pub(crate) served: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefFlow {
    pub(crate) nat: (IpAddr, u16),
    pub(crate) kind: FlowKind,
    pub(crate) by_uplink: bool,
    pub(crate) route: Option<u32>,
    pub(crate) peer: u32,
    pub(crate) tcp: Side,
    pub(crate) timestamp: Option<u32>,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    generation: u32,
    aged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefMapping {
    pub(crate) peer: (IpAddr, u16),
    pub(crate) kind: FlowKind,
    pub(crate) route: Option<u32>,
    pub(crate) tcp: Side,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    generation: u32,
}

/// The NAT and what it has counted.
pub(crate) struct Reference {
    pub(crate) network: Network,
    pub(crate) rules: Vec<Rule>,
    pub(crate) generation: u32,
    pub(crate) flows: BTreeMap<Tuple, RefFlow>,
    pub(crate) mappings: BTreeMap<Tuple, RefMapping>,
    pub(crate) counters: BTreeMap<&'static str, u64>,
    /// Packets and bytes.
    pub(crate) drops: BTreeMap<&'static str, (u64, u64)>,
    fragments: BTreeMap<(IpAddr, IpAddr, u8, u32), (u16, u16)>,
    peer_flows: BTreeMap<u32, u32>,
    ports: Ports,
    /// The packet at hand has a flow that was judged by an older policy.
    judged_again: bool,
    pub(crate) times: Times,
}

/// What passes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// To the stack, untouched, or as it was changed.
    Next(Vec<u8>),
    Redirect(Vec<u8>),
    Drop,
}

/// An accepted question.
struct Accepted {
    peer: u32,
    kind: FlowKind,
    route: Option<RefRoute>,
}

impl Reference {
    pub(crate) fn new(network: Network) -> Self {
        Self {
            network,
            rules: Vec::new(),
            generation: 0,
            flows: BTreeMap::new(),
            mappings: BTreeMap::new(),
            counters: BTreeMap::new(),
            drops: BTreeMap::new(),
            fragments: BTreeMap::new(),
            peer_flows: BTreeMap::new(),
            ports: Ports::default(),
            judged_again: false,
            times: Times::default(),
        }
    }

    /// Two seconds pass for the mesh side of every flow.
    pub(crate) fn age(&mut self) {
        self.flows.values_mut().for_each(|flow| flow.aged = true);
    }

    fn count(&mut self, counter: Counter, packets: u64) {
        *self.counters.entry(counter.name()).or_default() += packets;
    }

    fn count_drop(&mut self, reason: DropReason, bytes: usize) {
        let slot = self.drops.entry(reason.name()).or_default();
        *slot = (slot.0 + 1, slot.1 + bytes as u64);
    }

    fn peer_of(&self, addr: IpAddr) -> Option<u32> {
        let covering = self.network.peers.iter().filter(|(net, _)| net.contains(&addr));
        covering.max_by_key(|(net, _)| net.prefix_len()).map(|&(_, id)| id)
    }

    fn route_to(&self, addr: IpAddr) -> Option<RefRoute> {
        let covering = self.network.routes.iter().filter(|route| route.destination.contains(&addr));
        covering.max_by_key(|route| route.destination.prefix_len()).copied()
    }

    /// Judges a tuple that enters from the mesh. `problem`: why it may not be all there.
    fn judge(&self, tuple: Tuple, problem: Option<DropReason>) -> Result<Accepted, DropReason> {
        let peer = self.peer_of(tuple.src.0).ok_or(DropReason::ForeignSource)?;
        let to = tuple.dst.0;
        let route = self.route_to(to);
        let named = route.is_some_and(|route| route.destination.prefix_len() == route.destination.max_prefix_len());
        let own_overlay = self.network.locals.get(&to) == Some(&true);
        if let Some(reason) = denied(to).filter(|_| !named && !own_overlay) {
            return Err(reason);
        }
        let (scope, kind, route) = match (self.network.locals.get(&to), route) {
            (Some(&overlay), covering) => {
                let listener = matches!(tuple.protocol, TCP | UDP)
                    && self.network.listeners.contains(&(tuple.protocol, tuple.dst.1));
                if listener && !named {
                    return Err(DropReason::DeniedDestination);
                }
                (if !overlay && covering.is_some() { Scope::Both } else { Scope::Node }, FlowKind::ToNode, None)
            }
            (None, Some(route)) => {
                if let Some(reason) = problem {
                    return Err(reason);
                }
                let kind = if route.masquerade { FlowKind::Masqueraded } else { FlowKind::Routed };
                (Scope::Route, kind, Some(route))
            }
            (None, None) => return Err(problem.unwrap_or(DropReason::NoRoute)),
        };
        let query = Query {
            source: tuple.src.0,
            destination: to,
            protocol: tuple.protocol,
            destination_port: problem.is_none().then_some(tuple.dst.1),
            scope,
        };
        let mut verdict = policy::evaluate(&self.rules, &query);
        if self.network.protect_node && scope == Scope::Both && matches!(verdict, Verdict::Accept { .. }) {
            // Nothing drops it: rules for the node alone decide.
            verdict = policy::evaluate(&self.rules, &Query { scope: Scope::Node, ..query });
        }
        match verdict {
            Verdict::Accept { .. } => Ok(Accepted { peer, kind, route }),
            Verdict::Drop { .. } => Err(DropReason::PolicyRule),
            Verdict::Default => Err(problem.unwrap_or(DropReason::PolicyDefault)),
        }
    }

    fn complete(&self, parsed: &mut Parsed) {
        if parsed.part != Part::Later {
            return;
        }
        if let Some(&(src, dst)) = self.fragments.get(&fragment_key(parsed)) {
            (parsed.tuple.src.1, parsed.tuple.dst.1) = (src, dst);
            parsed.problem = None;
        }
    }

    fn remember(&mut self, parsed: &Parsed) {
        if parsed.part == Part::First {
            self.count(Counter::FragmentsTracked, 1);
            self.fragments.insert(fragment_key(parsed), (parsed.tuple.src.1, parsed.tuple.dst.1));
        }
    }

    fn opened(&mut self, tuple: Tuple, flow: RefFlow) {
        self.count_port(tuple, &flow, true);
        self.count(Counter::FlowsOpened, 1);
        *self.peer_flows.entry(flow.peer).or_default() += 1;
    }

    fn begin(&self, tuple: Tuple, kind: FlowKind) -> RefFlow {
        RefFlow {
            nat: tuple.src,
            kind,
            by_uplink: false,
            route: None,
            peer: 0,
            tcp: Side::default(),
            timestamp: None,
            packets: 0,
            bytes: 0,
            generation: self.generation,
            aged: false,
        }
    }

    fn map(&mut self, reply: Tuple, tuple: Tuple, flow: &RefFlow) {
        let mapping = RefMapping {
            peer: tuple.src,
            kind: flow.kind,
            route: flow.route,
            tcp: Side::default(),
            packets: 0,
            bytes: 0,
            generation: flow.generation,
        };
        self.mappings.insert(reply, mapping);
    }

    /// Forgets a flow and the mapping that is its own.
    fn forget(&mut self, tuple: Tuple) {
        let Some(flow) = self.flows.remove(&tuple) else { return };
        let peer = self.peer_flows.entry(flow.peer).or_default();
        *peer = peer.saturating_sub(1);
        self.count_port(tuple, &flow, false);
        let reply = reply_of(tuple, flow.nat);
        if self.mappings.get(&reply).is_some_and(|mapping| mapping.peer == tuple.src) {
            self.mappings.remove(&reply);
        }
    }
}

/// The tuple of a reply to `tuple` sent as `nat`.
pub(crate) fn reply_of(tuple: Tuple, nat: (IpAddr, u16)) -> Tuple {
    Tuple { src: tuple.dst, dst: nat, protocol: tuple.protocol }
}

fn fragment_key(parsed: &Parsed) -> (IpAddr, IpAddr, u8, u32) {
    (parsed.tuple.src.0, parsed.tuple.dst.0, parsed.tuple.protocol, parsed.id)
}

/// That of the uplink's network.
pub(crate) const BROADCAST: &str = "198.51.100.255";

/// Where clouds keep what only the node should read, beyond link-local addresses.
const METADATA: [&str; 3] = ["168.63.129.16", "100.100.100.200", "fd00:ec2::254"];

/// RFC 6890 and RFC 4291: what only a host route may name.
fn denied(addr: IpAddr) -> Option<DropReason> {
    match addr {
        IpAddr::V4(v4) if v4.octets()[0] >= 224 || addr.to_string() == BROADCAST => Some(DropReason::Multicast),
        _ if METADATA.contains(&addr.to_string().as_str()) => Some(DropReason::DeniedDestination),
        IpAddr::V4(v4) if v4.is_loopback() || v4.is_link_local() || v4.octets()[0] == 0 => {
            Some(DropReason::DeniedDestination)
        }
        IpAddr::V6(v6) if v6.is_multicast() => Some(DropReason::Multicast),
        IpAddr::V6(v6) if v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() => {
            Some(DropReason::DeniedDestination)
        }
        _ => None,
    }
}
