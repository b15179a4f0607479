//! Ways out of the node, asked of the kernel: all next hops of a route, and the source that it would choose for each.
//!
//! Asked as for a packet that is forwarded, which comes in by the mesh device with a member's address: rules of the node
//! (`ip rule`) and source-specific routes speak of those.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::{StreamExt as _, TryStreamExt as _};
use ipnet::IpNet;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteType, RouteVia,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::snapshot::{FibRoute, Origin, Questions, Snapshot, Way};

/// The loopback device has this index in every network namespace.
const LOOPBACK: u32 = 1;
/// How many of the node's routes are read at most, and how many are kept.
const MOST_SEEN: usize = 200_000;
const MOST_KEPT: usize = 2048;

/// Answers `questions` into the snapshot, whose links are known.
pub(super) async fn ask(
    handle: &Handle,
    questions: &Questions,
    snapshot: &mut Snapshot,
) -> Result<(), rtnetlink::Error> {
    for &destination in &questions.destinations {
        let ways = ways(handle, destination, questions.origin.as_ref()).await;
        if !ways.is_empty() {
            snapshot.ways.insert(destination, ways);
        }
    }
    for (destination, device) in &questions.by_device {
        let Some((link, _)) = snapshot.link_named(device) else { continue };
        if let Some(source) = source(handle, *destination, link).await {
            snapshot.sources.insert((*destination, link), source);
        }
    }
    for v4 in [true, false] {
        let within: Vec<&IpNet> = questions.within.iter().filter(|net| net.addr().is_ipv4() == v4).collect();
        if !within.is_empty() {
            let routes = routes(handle, v4, &within, snapshot).await?;
            snapshot.routes.extend(routes);
        }
    }
    Ok(())
}

/// All ways that the kernel may choose for the address.
async fn ways(handle: &Handle, destination: IpAddr, origin: Option<&Origin>) -> Vec<Way> {
    let origin = origin.and_then(|origin| {
        let source = origin.sources.iter().find(|source| source.is_ipv4() == destination.is_ipv4())?;
        Some((origin.link, *source))
    });
    let mut route = get(handle, question(destination, origin, None)).await;
    // The kernel takes the source for a stranger's, because the mesh device has no route to it now.
    if let (Err(Some(libc::EINVAL)), Some(_)) = (&route, origin) {
        route = get(handle, question(destination, None, None)).await;
    }
    let Ok(route) = route else { return Vec::new() };
    match route.header.kind {
        RouteType::Local => vec![Way { link: LOOPBACK, gateway: None, source: None }],
        RouteType::Unicast => with_sources(handle, destination, &route).await,
        _ => Vec::new(),
    }
}

/// Routes within these prefixes, and those around them but for default routes, of all tables.
async fn routes(
    handle: &Handle,
    v4: bool,
    within: &[&IpNet],
    snapshot: &Snapshot,
) -> Result<Vec<FibRoute>, rtnetlink::Error> {
    let all = if v4 {
        RouteMessageBuilder::<Ipv4Addr>::new().build()
    } else {
        RouteMessageBuilder::<Ipv6Addr>::new().build()
    };
    let mut seen = 0;
    let mut found: Vec<(IpNet, RouteMessage)> = Vec::new();
    let mut list = std::pin::pin!(handle.route().get(all).execute());
    while let Some(route) = list.try_next().await? {
        seen += 1;
        if seen > MOST_SEEN || found.len() >= MOST_KEPT {
            tracing::debug!(seen, kept = found.len(), "not all routes of the node were read");
            break;
        }
        let unicast = route.header.kind == RouteType::Unicast;
        let concerned = |net: &IpNet| within.iter().any(|ours| ours.contains(net) || net.contains(*ours));
        if let Some(net) = destination(&route).filter(|net| unicast && net.prefix_len() > 0 && concerned(net)) {
            found.push((net, route));
        }
    }
    let mut routes = Vec::new();
    for (destination, route) in found {
        let probe = destination.hosts().next().unwrap_or_else(|| destination.addr());
        let mut ways = with_sources(handle, probe, &route).await;
        // A device without an address that leads to one host is a container's: that is no uplink.
        ways.retain(|way| {
            way.gateway.is_some() || snapshot.links.get(&way.link).is_some_and(|l| !l.addresses.is_empty())
        });
        if !ways.is_empty() {
            routes.push(FibRoute { destination, ways });
        }
    }
    Ok(routes)
}

async fn with_sources(handle: &Handle, destination: IpAddr, route: &RouteMessage) -> Vec<Way> {
    let preferred = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(address) => ip(address),
        _ => None,
    });
    let mut ways = Vec::new();
    for (link, gateway) in next_hops(route) {
        let source = match preferred {
            Some(source) => Some(source),
            None => source(handle, destination, link).await,
        };
        ways.push(Way { link, gateway, source });
    }
    ways
}

/// The source that the kernel would choose towards the address, out of that link.
async fn source(handle: &Handle, destination: IpAddr, link: u32) -> Option<IpAddr> {
    let route = get(handle, question(destination, None, Some(link))).await.ok()?;
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(address) => ip(address),
        _ => None,
    })
}

/// Asks for the route itself, with all its next hops; of one link, for the way that a packet would take.
fn question(destination: IpAddr, origin: Option<(u32, IpAddr)>, link: Option<u32>) -> RouteMessage {
    let mut message = match destination {
        IpAddr::V4(addr) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(addr, 32).build(),
        IpAddr::V6(addr) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(addr, 128).build(),
    };
    if let Some((link, source)) = origin {
        message.header.source_prefix_length = if source.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Source(source.into()));
        message.attributes.push(RouteAttribute::Iif(link));
    }
    match link {
        Some(link) => message.attributes.push(RouteAttribute::Oif(link)),
        None => message.header.flags |= RouteFlags::FibMatch,
    }
    message
}

/// The answer, or the kernel's error number.
async fn get(handle: &Handle, message: RouteMessage) -> Result<RouteMessage, Option<i32>> {
    let mut answer = std::pin::pin!(handle.route().get(message).execute());
    match answer.next().await {
        Some(Ok(route)) => Ok(route),
        Some(Err(rtnetlink::Error::NetlinkError(error))) => Err(Some(error.raw_code().abs())),
        _ => Err(None),
    }
}

/// Links and gateways of a route, without those that are down.
fn next_hops(route: &RouteMessage) -> Vec<(u32, Option<IpAddr>)> {
    let (mut link, mut gateway, mut all) = (None, None, BTreeSet::new());
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::MultiPath(hops) => all.extend(hops.iter().filter(|hop| is_alive(hop)).map(read_hop)),
            attribute => gateway = gateway.or_else(|| read_gateway(attribute)),
        }
    }
    all.extend(link.map(|link| (link, gateway)));
    all.into_iter().collect()
}

fn is_alive(hop: &RouteNextHop) -> bool {
    !hop.flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown)
}

fn read_hop(hop: &RouteNextHop) -> (u32, Option<IpAddr>) {
    (hop.interface_index, hop.attributes.iter().find_map(read_gateway))
}

fn read_gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    }
}

/// `None`: of another family.
fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
