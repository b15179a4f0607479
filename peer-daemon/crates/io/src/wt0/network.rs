//! What rtnetlink says about the device and is told about it.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_core::{DefaultNla, Nla as _};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, InfoData, InfoTun, LinkAttribute, LinkInfo,
    LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use super::SkippedRoute;
use crate::Error;

/// Packets that wait for a queue to be read: a full one holds two seconds of a gigabit in super-packets, and 20 ms of it
/// in single packets. The kernel's own default is 500.
const TX_QUEUE_LEN: u32 = 2000;
/// Marks routes as ours (`ip route` shows it as `proto 112`): not one of the numbers that routing daemons use.
const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(112);

// IFLA_TUN_… of linux/if_link.h.
const TUN_TYPE: u16 = 3;
const TUN_NUM_QUEUES: u16 = 8;
const TUN_NUM_DISABLED_QUEUES: u16 = 9;

/// A netlink connection in the network namespace where it was made; its task ends with it.
#[derive(Debug)]
pub(super) struct Network {
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

/// A device as the kernel describes it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) index: u32,
    /// Empty for real devices.
    pub(super) kind: String,
    /// A TUN that carries Ethernet.
    pub(super) tap: bool,
    /// Attached queues; `None` for TUNs that can have one only.
    pub(super) queues: Option<u32>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Network {
    pub(super) fn connect() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::io("opening a netlink socket"))?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }

    /// The device of that name, if there is one.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Found>, Error> {
        let mut links = std::pin::pin!(self.handle.link().get().match_name(name).execute());
        match links.try_next().await {
            Ok(link) => Ok(link.map(|link| read_link(&link))),
            Err(error) if is(&error, libc::ENODEV) => Ok(None),
            Err(error) => Err(Error::netlink(format!("looking for {name}"))(error)),
        }
    }

    /// MTU, queue length, IPv4 forwarding, up; and no link-local address, which would make the kernel send router
    /// solicitations into the mesh.
    pub(super) async fn bring_up(&self, index: u32, mtu: u16) -> Result<(), Error> {
        // Promotion: removing an address must not take others of its network along.
        let mut conf = InetDevConf::default();
        conf.forwarding = 1;
        conf.promote_secondaries = 1;
        let v4 = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(conf)]);
        let v6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message = |families| {
            LinkMessageBuilder::<LinkUnspec>::default()
                .index(index)
                .append_extra_attribute(LinkAttribute::AfSpecUnspec(families))
        };
        match self.change(message(vec![v6]).build()).await {
            // A kernel without IPv6 does not know the family.
            Err(error) if !is(&error, libc::EAFNOSUPPORT) => {
                return Err(Error::netlink("turning off link-local addresses")(error));
            }
            _ => {}
        }
        let message = message(vec![v4]).mtu(mtu.into()).txqueuelen(TX_QUEUE_LEN).up().build();
        self.change(message).await.map_err(Error::netlink("setting MTU and IPv4 forwarding"))
    }

    /// Removes addresses that are not wanted and adds those that are missing.
    pub(super) async fn set_addresses(&self, name: &str, index: u32, wanted: &[IpNet]) -> Result<(), Error> {
        let list = self.handle.address().get().set_link_index_filter(index).execute();
        let present: Vec<_> = list.try_collect().await.map_err(Error::netlink("listing addresses"))?;
        let present: Vec<_> = present.into_iter().filter(|message| message.header.index == index).collect();
        let mut kept = Vec::new();
        for message in present {
            match read_address(&message) {
                Some(net) if wanted.contains(&net) => kept.push(net),
                // Not one that we set: the kernel's own link-local address, on a device that had one before us.
                _ if message.header.scope != AddressScope::Universe => {}
                net => {
                    tracing::info!("{name}: removing the address {net:?}, which is not configured any more");
                    let removed = self.handle.address().del(message).execute().await;
                    if let Err(error) = removed
                        && !is(&error, libc::EADDRNOTAVAIL)
                    {
                        return Err(Error::netlink(format!("removing {net:?}"))(error));
                    }
                }
            }
        }
        for net in wanted.iter().filter(|net| !kept.contains(net)) {
            self.add_address(name, index, *net).await?;
        }
        Ok(())
    }

    /// Adds routes into the device that are missing and removes those of an earlier life that are not wanted. Returns
    /// those that the node already sends elsewhere.
    pub(super) async fn set_routes(&self, index: u32, wanted: &[IpNet]) -> Result<Vec<SkippedRoute>, Error> {
        let wanted: Vec<IpNet> = wanted.iter().map(IpNet::trunc).collect();
        let mut present = Vec::new();
        for message in [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
            let list = self.handle.route().get(message).execute();
            let list: Vec<_> = list.try_collect().await.map_err(Error::netlink("listing routes"))?;
            present.extend(list.into_iter().filter(|route| table(route) == RouteHeader::RT_TABLE_MAIN.into()));
        }
        for route in &present {
            let stale = destination(route).is_none_or(|net| !wanted.contains(&net));
            if stale && interface(route) == Some(index) && route.header.protocol == ROUTE_PROTOCOL {
                let removed = self.handle.route().del(route.clone()).execute().await;
                if let Err(error) = removed
                    && !is(&error, libc::ESRCH)
                {
                    return Err(Error::netlink("removing a route of an earlier life")(error));
                }
            }
        }
        let mut skipped = Vec::new();
        for net in wanted {
            let same = || present.iter().filter(|route| destination(route) == Some(net));
            if let Some(other) = same().find(|route| interface(route) != Some(index)) {
                skipped.push(skip(net, interface(other)));
            } else if same().next().is_none() && !self.add_route(index, net).await? {
                // Someone was quicker than we.
                skipped.push(skip(net, None));
            }
        }
        Ok(skipped)
    }

    /// Removes the device.
    pub(super) async fn delete(&self, index: u32) -> Result<(), Error> {
        match self.handle.link().del(index).execute().await {
            Err(error) if !is(&error, libc::ENODEV) => Err(Error::netlink("removing the device")(error)),
            _ => Ok(()),
        }
    }

    async fn change(&self, message: LinkMessage) -> Result<(), rtnetlink::Error> {
        self.handle.link().change(message).execute().await
    }

    async fn add_address(&self, name: &str, index: u32, net: IpNet) -> Result<(), Error> {
        let mut request = self.handle.address().add(index, net.addr(), net.prefix_len());
        if matches!(net, IpNet::V6(_)) {
            // Nobody on a TUN could answer the probe for duplicates, and the address would be unusable meanwhile.
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        match request.execute().await {
            Err(error) if matches!(net, IpNet::V6(_)) && (is(&error, libc::EACCES) || is(&error, libc::EOPNOTSUPP)) => {
                Err(Error::Ipv6Off { name: name.into(), address: net.addr() })
            }
            Err(error) if !is(&error, libc::EEXIST) => Err(Error::netlink(format!("adding the address {net}"))(error)),
            _ => Ok(()),
        }
    }

    /// Returns `false` when there is such a route already.
    async fn add_route(&self, index: u32, net: IpNet) -> Result<bool, Error> {
        let message = match net {
            IpNet::V4(net) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .scope(RouteScope::Link)
                .output_interface(index)
                .protocol(ROUTE_PROTOCOL)
                .build(),
            IpNet::V6(net) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .output_interface(index)
                .protocol(ROUTE_PROTOCOL)
                .build(),
        };
        match self.handle.route().add(message).execute().await {
            Ok(()) => Ok(true),
            Err(error) if is(&error, libc::EEXIST) => Ok(false),
            Err(error) => Err(Error::netlink(format!("adding the route to {net}"))(error)),
        }
    }
}

fn skip(destination: IpNet, interface: Option<u32>) -> SkippedRoute {
    tracing::warn!(
        "the node already has a route to {destination} (interface index {interface:?}): it stays, and traffic of the node \
         itself to there does not enter the mesh"
    );
    SkippedRoute { destination, interface }
}

fn is(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message)
        if io::Error::raw_os_error(&message.to_io()) == Some(errno))
}

fn read_link(message: &LinkMessage) -> Found {
    let mut found = Found { index: message.header.index, kind: String::new(), tap: false, queues: None };
    let infos = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    for info in infos.flatten() {
        match info {
            LinkInfo::Kind(kind) => found.kind = kind.to_string(),
            LinkInfo::Data(InfoData::Tun(attributes)) => {
                for attribute in attributes {
                    let InfoTun::Other(attribute) = attribute else { continue };
                    match attribute.kind() {
                        TUN_TYPE => found.tap = number(attribute) != Some(libc::IFF_TUN.unsigned_abs()),
                        // One that is switched off is somebody's, too.
                        TUN_NUM_QUEUES | TUN_NUM_DISABLED_QUEUES => {
                            *found.queues.get_or_insert(0) += number(attribute).unwrap_or(0);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// An attribute of one or four bytes.
fn number(attribute: &DefaultNla) -> Option<u32> {
    let mut value = [0; 4];
    let len = attribute.value_len();
    attribute.emit_value(value.get_mut(..len)?);
    match len {
        1 => Some(value[0].into()),
        4 => Some(u32::from_ne_bytes(value)),
        _ => None,
    }
}

fn read_address(message: &AddressMessage) -> Option<IpNet> {
    let mut local = None;
    let mut peer = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Address(addr) => peer = Some(*addr),
            _ => {}
        }
    }
    let address: IpAddr = local.or(peer)?;
    IpNet::new(address, message.header.prefix_len).ok()
}

fn table(route: &RouteMessage) -> u32 {
    let wide = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    wide.unwrap_or(route.header.table.into())
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(addr)) => Some(IpAddr::V4(*addr)),
        RouteAttribute::Destination(RouteAddress::Inet6(addr)) => Some(IpAddr::V6(*addr)),
        _ => None,
    })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

/// `None` for routes that lead to no single device.
fn interface(route: &RouteMessage) -> Option<u32> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}
