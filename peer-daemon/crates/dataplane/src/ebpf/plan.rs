//! From intent and node to the contents of the maps. Pure: what the kernel is told follows from its arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use peer_common::addr::MAPPED_BITS;
use peer_common::route::{MAX_CHOSEN, MAX_LOCALS, MAX_NAT_SOURCES, MAX_ROUTES, NO_ROUTE, listener_key};
use peer_common::{Addr, ChosenKey, LocalAddr, LocalKind, Route, Uplink};
use peer_core::desired::{self, UplinkChoice};

use super::next_hops::Hardware;
use super::policy::Policy;
use crate::kernel::{Address, Link, Origin, Questions, Snapshot, Way};
use crate::{Error, Intent, Listener};

/// Prefix length over 128 bits, and address with its host bits cleared.
pub(super) type Prefix = (u32, Addr);

/// The contents of all tables, but for that of the peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) uplinks: BTreeMap<u32, Uplink>,
    pub(super) locals: BTreeMap<Addr, LocalAddr>,
    pub(super) routes: BTreeMap<Prefix, Route>,
    /// By `listener_key`; the value says nothing.
    pub(super) listeners: BTreeMap<u32, u32>,
    /// Further sources of NAT, as the uplinks name them.
    pub(super) nat_sources: Vec<Addr>,
    /// Sources that the kernel would choose, for programs that cannot ask: by [`ChosenKey`] and the bits of it that count.
    pub(super) chosen: BTreeMap<(u32, ChosenKey), Addr>,
    pub(super) policy: Arc<Policy>,
    /// By position in the intent: which uplinks, and why none.
    pub(super) service: Vec<Service>,
    /// Names of the uplinks.
    pub(super) names: BTreeMap<u32, String>,
    /// Ethernet addresses of the uplinks.
    pub(super) hardware: Hardware,
    /// What the kernel's choice of a way depends on besides routes, of links with an address.
    pub(super) links: BTreeMap<u32, (bool, Vec<Address>)>,
}

/// How a route is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// Index of its counters.
    pub(super) id: u32,
    pub(super) uplinks: Vec<u32>,
    /// The device by which the kernel forwards it, where no uplink is needed: sources are kept.
    pub(super) by_kernel: Option<String>,
    pub(super) unserved: Option<String>,
}

/// What a snapshot must tell for this intent: the ways to one address of each route and to one beyond all routes, and what routes
/// of the node's lie within ours.
pub(crate) fn questions(intent: &Intent) -> Questions {
    let mut destinations: BTreeSet<IpAddr> = BEYOND.into();
    destinations.extend(intent.routes.iter().map(|route| probe(&route.destination)));
    let named = |route: &desired::Route| match &route.uplink {
        UplinkChoice::Named(name) => Some((probe(&route.destination), name.clone())),
        UplinkChoice::Auto | UplinkChoice::Among(_) => None,
    };
    Questions {
        destinations: destinations.into_iter().collect(),
        within: intent.routes.iter().map(|route| route.destination.trunc()).collect(),
        by_device: intent.routes.iter().filter_map(named).collect(),
        origin: Some(Origin { link: intent.wt0.index, sources: members(intent) }),
    }
}

/// As [`questions`], where nothing is known of any intent.
pub(crate) fn default_questions() -> Questions {
    Questions { destinations: BEYOND.into(), ..Questions::default() }
}

/// An address of some member, of each family.
fn members(intent: &Intent) -> Vec<IpAddr> {
    let hosts =
        || intent.peers.iter().flat_map(|peer| &*peer.prefixes).filter(|net| net.prefix_len() == net.max_prefix_len());
    let first = |v4| hosts().map(IpNet::addr).find(|addr| addr.is_ipv4() == v4);
    [true, false].into_iter().filter_map(first).collect()
}

/// Uplinks of an intent, and its routes that have none, with the reason.
pub(crate) fn uplinks(intent: &Intent, node: &Snapshot) -> (BTreeSet<u32>, Vec<(String, String)>) {
    let mut plan = Plan::default();
    for (id, route) in (0..).zip(&intent.routes) {
        plan.add_route(id, route, intent, node);
    }
    let reason = |(route, service): (&desired::Route, &Service)| {
        service.unserved.clone().map(|why| (route.destination.to_string(), why))
    };
    let unserved = intent.routes.iter().zip(&plan.service).filter_map(reason);
    (plan.uplinks.keys().copied().collect(), unserved.collect())
}

/// Uplinks of routes that keep sources, each with a family: IPv4 or not.
pub(crate) fn keeps_sources(intent: &Intent, node: &Snapshot) -> BTreeSet<(u32, bool)> {
    let mut plan = Plan::default();
    let kept = intent.routes.iter().filter(|route| !route.masquerade);
    kept.flat_map(|route| {
        plan.add_route(0, route, intent, node);
        let uplinks = plan.service.pop().map(|service| service.uplinks).unwrap_or_default();
        let v4 = route.destination.addr().is_ipv4();
        uplinks.into_iter().map(move |uplink| (uplink, v4))
    })
    .collect()
}

/// Where the default routes lead, if that is where packets can be sent.
pub(crate) fn default_uplinks(node: &Snapshot, wt0: &str) -> BTreeSet<u32> {
    let ways = BEYOND.iter().filter_map(|addr| node.ways.get(addr)).flatten().map(|way| way.link);
    ways.filter(|index| node.links.get(index).is_some_and(|link| link.ethernet && link.name != wt0)).collect()
}

/// Plans the tables; `policy` is what the rules of `intent` were compiled to. `known` are the routes in force: one that stays keeps its id, and with it its counters and flows.
pub(super) fn plan(
    intent: &Intent,
    policy: &Arc<Policy>,
    node: &Snapshot,
    known: &BTreeMap<Prefix, Route>,
) -> Result<Plan, Error> {
    let limit = MAX_ROUTES as usize;
    if intent.routes.len() > limit {
        return Err(Error::TooManyRoutes { routes: intent.routes.len(), limit });
    }
    let mut plan = Plan { policy: Arc::clone(policy), ..Plan::default() };
    for (id, route) in route_ids(&intent.routes, known).into_iter().zip(&intent.routes) {
        plan.add_route(id, route, intent, node);
    }
    let other = if intent.protect_node { LocalKind::Protected } else { LocalKind::Node };
    for (index, link) in &node.links {
        let kind = if *index == intent.wt0.index { LocalKind::Overlay } else { other };
        if !link.addresses.is_empty() {
            plan.links.insert(*index, (link.running, link.addresses.clone()));
        }
        for address in &link.addresses {
            plan.locals.insert(address.net.addr().into(), LocalAddr { kind: kind as u32 });
        }
    }
    plan.add_broadcasts(intent, node);
    plan.listeners = intent.listeners.iter().map(|listener| (key_of(*listener), 1)).collect();
    plan.add_sources(intent, node);
    for &address in &intent.addresses {
        plan.locals.insert(address.into(), LocalAddr { kind: LocalKind::Overlay as u32 });
    }
    Ok(plan)
}

/// The first own overlay address of a family, [`Addr::NONE`] without one.
pub(super) fn overlay(intent: &Intent, v4: bool) -> Addr {
    intent.addresses.iter().find(|addr| addr.is_ipv4() == v4).map_or(Addr::NONE, |&addr| addr.into())
}

impl Plan {
    /// Addresses that source NAT may use: the node's own.
    pub(super) fn sources(&self) -> BTreeSet<Addr> {
        let is_own = |local: &LocalAddr| local.kind != LocalKind::Broadcast as u32;
        self.locals.iter().filter(|(_, local)| is_own(local)).map(|(address, _)| *address).collect()
    }

    /// Addresses of all hosts of a network, as far as there is room: without them such a packet is dropped for want of a way.
    fn add_broadcasts(&mut self, intent: &Intent, node: &Snapshot) {
        for address in node.links.values().filter(|link| !link.loopback).flat_map(|link| &link.addresses) {
            let IpNet::V4(net) = address.net else { continue };
            let broadcast = Addr::from(IpAddr::V4(net.broadcast()));
            let own = intent.addresses.contains(&IpAddr::V4(net.broadcast()));
            // RFC 3021: two hosts have no room for one.
            if net.prefix_len() <= 30 && !own && self.locals.len() < MAX_LOCALS as usize {
                self.locals.entry(broadcast).or_insert(LocalAddr { kind: LocalKind::Broadcast as u32 });
            }
        }
    }

    /// Gives each uplink those of the further sources that it has.
    fn add_sources(&mut self, intent: &Intent, node: &Snapshot) {
        for (index, uplink) in &mut self.uplinks {
            let Some(link) = node.links.get(index) else { continue };
            let mut parts = [(0, 0); 2];
            for (part, v4) in parts.iter_mut().zip([true, false]) {
                let has = |addr: &&IpAddr| addr.is_ipv4() == v4 && has_source(link, **addr);
                let room = MAX_NAT_SOURCES as usize - self.nat_sources.len();
                let first = self.nat_sources.len();
                self.nat_sources
                    .extend(intent.nat_addresses.iter().filter(has).map(|&addr| Addr::from(addr)).take(room));
                // Below `MAX_NAT_SOURCES`, both.
                *part = (first as u8, (self.nat_sources.len() - first) as u8);
            }
            let [v4, v6] = parts;
            uplink.sources = [v4.0, v4.1, v6.0, v6.1];
        }
    }

    fn add_route(&mut self, id: u32, route: &desired::Route, intent: &Intent, node: &Snapshot) {
        let candidates = candidates(route, node);
        let named = match &route.uplink {
            UplinkChoice::Named(name) => node.link_named(name).map_or(0, |(index, _)| index),
            UplinkChoice::Auto | UplinkChoice::Among(_) => 0,
        };
        let mut refused = None;
        let mut by_kernel = None;
        let mut uplinks = Vec::new();
        let mut idle = Vec::new();
        let mut sources = false;
        for &Candidate { link, within, source } in &candidates {
            if let Err(why) = self.add_uplink(link, intent, node) {
                refused = Some(why.to_string());
                if let Some(device) = node.links.get(&link).filter(|_| !route.masquerade && why.kernel_forwards()) {
                    // The readiness part `mesh_device` judges the mesh device itself.
                    match device.idle().filter(|_| link != intent.wt0.index) {
                        None => by_kernel = Some(device.name.clone()),
                        idle => refused = idle,
                    }
                }
                continue;
            }
            if !uplinks.contains(&link) {
                uplinks.push(link);
                idle.extend(node.links.get(&link).and_then(Link::idle));
            }
            sources |= source.is_some();
            if let Some(source) = source {
                self.choose(link, &within, source);
            }
        }
        let unserved = if !uplinks.is_empty() {
            let names =
                || uplinks.iter().filter_map(|index| self.names.get(index).cloned()).collect::<Vec<_>>().join(", ");
            let lacks = route.masquerade && !sources;
            if idle.len() == uplinks.len() {
                Some(idle.join(", "))
            } else if lacks {
                Some(format!("the node has no address that source NAT could use out of {}", names()))
            } else {
                idle_network(route, node, &candidates)
            }
        } else if by_kernel.is_some() {
            None
        } else {
            Some(refused.unwrap_or_else(|| match &route.uplink {
                UplinkChoice::Named(name) => format!("there is no device {name}"),
                UplinkChoice::Among(names) => {
                    format!("the node's routes to it leave by none of {}", names.join(", "))
                }
                UplinkChoice::Auto => "the node has no route to it".to_owned(),
            }))
        };
        let by_kernel = by_kernel.filter(|_| uplinks.is_empty());
        let (prefix_len, addr) = prefix(&route.destination);
        let value = Route {
            id,
            flags: if route.masquerade { Route::MASQUERADE } else { 0 },
            uplink: named,
            fallback_uplink: uplinks.first().copied().unwrap_or(0),
            prefix_len,
        };
        self.routes.insert((prefix_len, addr), value);
        self.service.push(Service { id, uplinks, by_kernel, unserved });
    }

    /// Notes the source that the kernel would choose towards `within` out of that uplink.
    fn choose(&mut self, uplink: u32, within: &IpNet, source: IpAddr) {
        let (len, dst) = prefix(within);
        if self.chosen.len() < MAX_CHOSEN as usize {
            self.chosen.entry((ChosenKey::UPLINK_BITS + len, ChosenKey { uplink, dst })).or_insert(source.into());
        }
    }

    fn add_uplink(&mut self, index: u32, intent: &Intent, node: &Snapshot) -> Result<(), NoUplink> {
        let Some(link) = node.links.get(&index) else { return Err(NoUplink::Gone { index }) };
        let name = &link.name;
        if index == intent.wt0.index {
            return Err(NoUplink::Mesh { name: name.clone() });
        }
        if link.loopback {
            return Err(NoUplink::Own);
        }
        if !link.ethernet {
            return Err(NoUplink::NoEthernet { name: name.clone() });
        }
        if let Some(controller) = link.controller {
            let controller = node.links.get(&controller).map_or("its bond or bridge", |link| &link.name);
            return Err(NoUplink::Controlled { name: name.clone(), controller: controller.to_owned() });
        }
        let addr = |v4| link.source(v4).map_or(Addr::NONE, Addr::from);
        let uplink = Uplink { addr4: addr(true), addr6: addr(false), mtu: link.mtu, sources: [0; 4] };
        self.uplinks.insert(index, uplink);
        self.hardware.extend(link.hardware.map(|hardware| (index, hardware)));
        self.names.insert(index, name.clone());
        Ok(())
    }
}

/// Why a device is no uplink.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum NoUplink {
    #[error("there is no device {index}")]
    Gone { index: u32 },
    #[error("the node's route to it leaves by {name}, the mesh itself")]
    Mesh { name: String },
    #[error("the node itself has this address")]
    Own,
    #[error("{name} has no Ethernet header, which an uplink needs")]
    NoEthernet { name: String },
    #[error("{name} belongs to {controller}: name that one")]
    Controlled { name: String, controller: String },
}

impl NoUplink {
    /// The kernel forwards by such a device what keeps its source.
    fn kernel_forwards(&self) -> bool {
        matches!(self, Self::Mesh { .. } | Self::NoEthernet { .. })
    }
}

/// A way of a route of ours.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    link: u32,
    /// For destinations in this prefix.
    within: IpNet,
    /// What the kernel would choose.
    source: Option<IpAddr>,
}

/// Why the network that has all of the route is out of reach, if so: the kernel takes the routes of a device that is down away, and
/// its default route would carry the packets to somebody else.
fn idle_network(route: &desired::Route, node: &Snapshot, candidates: &[Candidate]) -> Option<String> {
    let has_it = |link: &&Link| {
        link.addresses.iter().any(|address| {
            let net = address.net.trunc();
            net.prefix_len() > 0 && net.contains(&route.destination)
        })
    };
    let mut links = candidates.iter().filter_map(|candidate| node.links.get(&candidate.link)).filter(has_it).peekable();
    links.peek()?;
    links.map(Link::idle).collect::<Option<Vec<_>>>().and_then(|idle| idle.into_iter().next())
}

/// Whether packets may leave the device with this source.
fn has_source(link: &Link, addr: IpAddr) -> bool {
    link.addresses.iter().any(|address| address.usable && address.net.addr() == addr)
}

/// Further sources that the admin wants and no uplink of these has.
pub(crate) fn absent_sources(intent: &Intent, uplinks: &BTreeSet<u32>, node: &Snapshot) -> Vec<IpAddr> {
    let links: Vec<&Link> = uplinks.iter().filter_map(|index| node.links.get(index)).collect();
    let absent = |addr: &&IpAddr| !links.iter().any(|link| has_source(link, **addr));
    intent.nat_addresses.iter().filter(absent).copied().collect()
}

fn key_of(listener: Listener) -> u32 {
    match listener {
        Listener::Tcp(port) => listener_key(6, port),
        Listener::Udp(port) => listener_key(17, port),
    }
}

/// Ids for `routes`, in their order: the one that a destination has, else the lowest that is free.
fn route_ids(routes: &[desired::Route], known: &BTreeMap<Prefix, Route>) -> Vec<u32> {
    let kept: Vec<_> =
        routes.iter().map(|route| known.get(&prefix(&route.destination)).map(|known| known.id)).collect();
    let taken: BTreeSet<u32> = kept.iter().flatten().copied().collect();
    let mut free = (0..).filter(|id| !taken.contains(id));
    kept.into_iter().map(|id| id.or_else(|| free.next()).unwrap_or(NO_ROUTE)).collect()
}

/// The prefix as an LPM key: IPv4 in `::ffff:0:0/96`.
pub(super) fn prefix(net: &IpNet) -> Prefix {
    let len = u32::from(net.prefix_len());
    (if net.addr().is_ipv4() { MAPPED_BITS + len } else { len }, net.network().into())
}

/// The ways that packets of the route may take: those of the FIB to its first host, of narrower routes within it, into networks that
/// the node is connected to, and to what lies beyond every route, unless one of the node's has all of it.
fn candidates(route: &desired::Route, node: &Snapshot) -> Vec<Candidate> {
    let destination = route.destination.trunc();
    let v4 = destination.addr().is_ipv4();
    if let UplinkChoice::Named(name) = &route.uplink {
        let Some((index, link)) = node.link_named(name) else { return Vec::new() };
        let asked = node.sources.get(&(probe(&destination), index)).copied();
        return vec![Candidate { link: index, within: destination, source: asked.or_else(|| link.source(v4)) }];
    }
    let permitted = |link: u32| match &route.uplink {
        UplinkChoice::Among(names) => node.links.get(&link).is_some_and(|link| names.contains(&link.name)),
        UplinkChoice::Auto | UplinkChoice::Named(_) => true,
    };
    let mut found = Vec::new();
    let mut add = |within: IpNet, ways: &[Way]| {
        found.extend(ways.iter().map(|way| Candidate { link: way.link, within, source: way.source }));
    };
    let ways = |addr: IpAddr| node.ways.get(&addr).map_or(&[][..], |ways| ways);
    let inner = || node.routes.iter().filter(|inner| destination.contains(&inner.destination));
    // What is known of the first host is known of the narrowest route that has it.
    let host = probe(&destination);
    let around = inner().map(|inner| inner.destination).filter(|net| net.contains(&host)).max_by_key(IpNet::prefix_len);
    add(around.unwrap_or(destination), ways(host));
    for inner in inner() {
        add(inner.destination, &inner.ways);
    }
    if !node.routes.iter().any(|around| around.destination.contains(&destination)) {
        add(destination, ways(beyond(v4)));
    }
    for (index, link) in &node.links {
        let inside = |net: &IpNet| destination.contains(&net.trunc()) || net.contains(&destination.addr());
        let connected = link.addresses.iter().find(|address| inside(&address.net));
        if let Some(address) = connected.filter(|_| link.ethernet) {
            let within = if destination.contains(&address.net.trunc()) { address.net.trunc() } else { destination };
            found.push(Candidate { link: *index, within, source: link.source(v4) });
        }
    }
    found.retain(|candidate| permitted(candidate.link));
    found
}

/// An address of the prefix to ask the FIB about: its first host.
fn probe(net: &IpNet) -> IpAddr {
    net.hosts().next().unwrap_or_else(|| net.addr())
}

/// Addresses that only a default route covers (RFC 5737, RFC 3849).
const BEYOND: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1))];

fn beyond(v4: bool) -> IpAddr {
    BEYOND[usize::from(!v4)]
}

#[cfg(test)]
mod tests;
