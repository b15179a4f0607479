//! Snapshots and change notices by rtnetlink.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use ipnet::IpNet;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::mpsc;

use super::change::{Change, Hardware, Neighbour};
use super::snapshot::{Address, DeviceCount, Link, Questions, Snapshot};
use super::ways;
use crate::Error;

/// A netlink connection; its task ends with it.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Netlink {
    /// Connects, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When there is no netlink socket to be had.
    pub fn connect() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }

    /// The node as it is now, with the ways that are asked for.
    ///
    /// # Errors
    /// When the kernel does not answer. A destination without a route is no error: it is left out.
    pub async fn snapshot(&self, questions: &Questions) -> Result<Snapshot, Error> {
        let failed = |what| move |source| Error::Netlink { what, source };
        let links: Vec<_> = self.handle.link().get().execute().try_collect().await.map_err(failed("listing links"))?;
        let mut links: BTreeMap<u32, Link> = links.iter().map(|link| (link.header.index, read_link(link))).collect();
        let addresses: Vec<_> =
            self.handle.address().get().execute().try_collect().await.map_err(failed("listing addresses"))?;
        for message in &addresses {
            if let (Some(link), Some(address)) = (links.get_mut(&message.header.index), read_address(message)) {
                link.addresses.push(address);
            }
        }
        let mut snapshot = Snapshot { links, ..Snapshot::default() };
        ways::ask(&self.handle, questions, &mut snapshot).await.map_err(failed("listing routes"))?;
        Ok(snapshot)
    }

    /// What each device has counted, by interface index.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn counts(&self) -> Result<BTreeMap<u32, DeviceCount>, Error> {
        let failed = |source| Error::Netlink { what: "listing links", source };
        let links: Vec<_> = self.handle.link().get().execute().try_collect().await.map_err(failed)?;
        Ok(links.iter().filter_map(|link| Some((link.header.index, read_count(link)?))).collect())
    }

    /// All neighbours that the kernel knows, on all links.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, Error> {
        let failed = |source| Error::Netlink { what: "listing neighbours", source };
        let all: Vec<_> = self.handle.neighbours().get().execute().try_collect().await.map_err(failed)?;
        Ok(all.iter().filter_map(|message| read_neighbour(message, false)).collect())
    }

    /// Makes the kernel ask for a neighbour's Ethernet address, as a packet for it would.
    ///
    /// # Errors
    /// When the kernel refuses, as for a link that is down.
    pub async fn ask_for(&self, link: u32, addr: IpAddr) -> Result<(), Error> {
        let failed = |source| Error::Netlink { what: "asking for a neighbour", source };
        let request = self.handle.neighbours().add(link, addr).state(NeighbourState::None).flags(NeighbourFlags::Use);
        request.replace().execute().await.map_err(failed)
    }
}

/// Yields whenever links, addresses, routes, rules or neighbours change.
///
/// # Errors
/// When there is no netlink socket to be had.
pub fn changes() -> io::Result<impl Stream<Item = Change> + Send + Unpin> {
    let (connection, _handle, mut messages) = rtnetlink::new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Rule,
        MulticastGroup::Neigh,
    ])?;
    // One task owns both ends of the library's channel: a connection that outlives its reader complains in the log of each
    // change.
    let (tell, mut told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let forward = async {
            while let Some((message, _)) = messages.next().await {
                if let Some(change) = read_change(&message.payload)
                    && tell.send(change).is_err()
                {
                    return;
                }
            }
        };
        tokio::select! {
            () = connection => {}
            () = forward => {}
            () = tell.closed() => {}
        }
    });
    Ok(stream::poll_fn(move |cx| told.poll_recv(cx)))
}

/// `None`: nothing that matters.
fn read_change(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
    let message = match payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Some(Change::Lost),
        _ => return None,
    };
    match message {
        RouteNetlinkMessage::NewNeighbour(neighbour) => read_neighbour(neighbour, false).map(Change::Neighbour),
        RouteNetlinkMessage::DelNeighbour(neighbour) => read_neighbour(neighbour, true).map(Change::Neighbour),
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => read_prefix(route),
        RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => Some(Change::Rules),
        _ => Some(Change::Node),
    }
}

/// `None`: of another family.
fn read_prefix(route: &RouteMessage) -> Option<Change> {
    let addr = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(addr)) => Some(IpAddr::V4(*addr)),
        RouteAttribute::Destination(RouteAddress::Inet6(addr)) => Some(IpAddr::V6(*addr)),
        _ => None,
    });
    let unspecified = match route.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let prefix = IpNet::new(addr.unwrap_or(unspecified), route.header.destination_prefix_length);
    Some(prefix.map_or(Change::Rules, Change::Route))
}

/// `None`: not of IP, or of a device without Ethernet addresses.
fn read_neighbour(message: &NeighbourMessage, gone: bool) -> Option<Neighbour> {
    let mut addr = None;
    let mut hardware = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => addr = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => addr = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => hardware = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    let state = if gone { NeighbourState::None } else { message.header.state };
    let hardware = match (state, hardware) {
        (NeighbourState::Failed, _) => Hardware::Failed,
        (NeighbourState::Incomplete, _) => Hardware::Asked,
        (
            NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Noarp
            | NeighbourState::Permanent,
            Some(hardware),
        ) => Hardware::At(hardware),
        _ => Hardware::Unknown,
    };
    Some(Neighbour { link: message.header.ifindex, addr: addr?, hardware })
}

fn read_link(message: &LinkMessage) -> Link {
    let mut link = Link {
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        loopback: message.header.link_layer_type == LinkLayerType::Loopback,
        up: message.header.flags.contains(LinkFlags::Up),
        running: message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.hardware = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            _ => {}
        }
    }
    link
}

fn read_count(message: &LinkMessage) -> Option<DeviceCount> {
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(stats) => {
            Some(DeviceCount { rx_packets: stats.rx_packets, tx_bytes: stats.tx_bytes, tx_dropped: stats.tx_dropped })
        }
        _ => None,
    })
}

fn read_address(message: &AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut peer = None;
    let mut flags = AddressFlags::empty();
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Address(addr) => peer = Some(*addr),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // On a point-to-point link `Address` is the other end.
    let net = IpNet::new(local.or(peer)?, message.header.prefix_len).ok()?;
    let unusable = AddressFlags::Secondary
        | AddressFlags::Tentative
        | AddressFlags::Dadfailed
        | AddressFlags::Deprecated
        | AddressFlags::Optimistic;
    let usable = message.header.scope == AddressScope::Universe && !flags.intersects(unusable);
    Some(Address { net, usable })
}
