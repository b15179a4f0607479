//! What rtnetlink says about the device and is told about it.

use std::io;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, LinkAttribute, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::sys::AsyncSocket as _;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use super::read::{Found, LOCAL, MAIN, destination, interface, oif, read_address, read_link, read_state, table};
use super::state::{Seen, TX_QUEUE_LEN};
use super::{RefusedAddress, SkippedRoute};
use crate::Error;

/// Marks routes as ours (`ip route` shows it as `proto 112`): not one of the numbers that routing daemons use.
const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(112);

/// Netlink connections in the network namespace where they were made; their tasks end with them.
#[derive(Debug)]
pub(super) struct Network {
    handle: Handle,
    /// The kernel filters what this one lists: a node may have very many routes.
    filtered: Handle,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Drop for Network {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Network {
    pub(super) fn connect() -> Result<Self, Error> {
        let failed = || Error::io("opening a netlink socket");
        let (connection, handle, _) = rtnetlink::new_connection().map_err(failed())?;
        let (mut strict, filtered, _) = rtnetlink::new_connection().map_err(failed())?;
        strict.socket_mut().socket_mut().set_netlink_get_strict_chk(true).map_err(failed())?;
        Ok(Self { handle, filtered, tasks: [tokio::spawn(connection), tokio::spawn(strict)] })
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

    /// The device as it is now; `None`: it is gone.
    pub(super) async fn see(&self, index: u32) -> Result<Option<Seen>, Error> {
        let mut links = std::pin::pin!(self.handle.link().get().match_index(index).execute());
        let link = match links.try_next().await {
            Ok(Some(link)) => link,
            Ok(None) => return Ok(None),
            Err(error) if is(&error, libc::ENODEV) => return Ok(None),
            Err(error) => return Err(Error::netlink("looking at the device")(error)),
        };
        let mut seen = read_state(&link);
        seen.addresses = self.addresses(index).await?.iter().filter_map(read_address).collect();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.attributes.push(RouteAttribute::Oif(index));
            let routes: Result<Vec<_>, _> = self.filtered.route().get(message).execute().try_collect().await;
            let routes = match routes {
                Ok(routes) => routes,
                // A kernel without IPv6.
                Err(error) if is(&error, libc::EAFNOSUPPORT) || is(&error, libc::EOPNOTSUPP) => Vec::new(),
                Err(error) if is(&error, libc::ENODEV) => return Ok(None),
                Err(error) => return Err(Error::netlink("listing routes")(error)),
            };
            for route in routes.iter().filter(|route| oif(route) == Some(index)) {
                match (table(route), route.header.kind, destination(route)) {
                    (MAIN, RouteType::Unicast, Some(net)) => seen.routes.push(net),
                    (LOCAL, RouteType::Local, Some(net)) => seen.local.push(net.addr()),
                    _ => {}
                }
            }
        }
        Ok(Some(seen))
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
        let message = || LinkMessageBuilder::<LinkUnspec>::default().index(index);
        let families = |families| message().append_extra_attribute(LinkAttribute::AfSpecUnspec(families));
        // With an MTU below 1280 the kernel forgets what it has been told about IPv6.
        let first = families(vec![v4]).mtu(mtu.into()).txqueuelen(TX_QUEUE_LEN).build();
        self.change(first).await.map_err(Error::netlink("setting MTU and IPv4 forwarding"))?;
        match self.change(families(vec![v6]).build()).await {
            // A kernel without IPv6 does not know the family.
            Err(error) if !is(&error, libc::EAFNOSUPPORT) => {
                return Err(Error::netlink("turning off link-local addresses")(error));
            }
            _ => {}
        }
        self.change(message().up().build()).await.map_err(Error::netlink("setting the device up"))
    }

    /// Removes addresses that are not wanted and adds those that are missing. Returns those that the kernel does not take.
    pub(super) async fn set_addresses(
        &self,
        name: &str,
        index: u32,
        wanted: &[IpNet],
    ) -> Result<Vec<RefusedAddress>, Error> {
        let mut kept = Vec::new();
        for message in self.addresses(index).await? {
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
        let mut refused = Vec::new();
        for net in wanted.iter().filter(|net| !kept.contains(net)) {
            if let Err(error) = self.add_address(index, *net).await {
                refused.push(refusal(*net, error)?);
            }
        }
        Ok(refused)
    }

    /// Takes an address away, so that it can be set anew with all that the kernel routes because of it.
    pub(super) async fn remove_address(&self, index: u32, net: IpNet) -> Result<(), Error> {
        self.remove_addresses(index, |message| read_address(message) == Some(net)).await
    }

    /// Takes the kernel's own IPv6 address away.
    pub(super) async fn remove_link_local(&self, index: u32) -> Result<(), Error> {
        let is_link_local = |message: &AddressMessage| {
            message.header.family == AddressFamily::Inet6 && message.header.scope == AddressScope::Link
        };
        self.remove_addresses(index, is_link_local).await
    }

    /// Routes the network of an address into the device again, as the kernel does when the address is set.
    pub(super) async fn connect_network(&self, index: u32, own: IpNet) -> Result<(), Error> {
        const METRIC_V6: u32 = 256;
        let message = match own {
            IpNet::V4(net) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .scope(RouteScope::Link)
                .output_interface(index)
                .pref_source(net.addr())
                .protocol(RouteProtocol::Kernel)
                .build(),
            IpNet::V6(net) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .output_interface(index)
                .priority(METRIC_V6)
                .protocol(RouteProtocol::Kernel)
                .build(),
        };
        match self.handle.route().add(message).execute().await {
            Err(error) if !is(&error, libc::EEXIST) => {
                Err(Error::netlink(format!("routing {} into the device", own.trunc()))(error))
            }
            _ => Ok(()),
        }
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
            present.extend(list.into_iter().filter(|route| table(route) == MAIN));
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

    async fn remove_addresses(&self, index: u32, which: impl Fn(&AddressMessage) -> bool) -> Result<(), Error> {
        for message in self.addresses(index).await?.into_iter().filter(which) {
            match self.handle.address().del(message).execute().await {
                Err(error) if !is(&error, libc::EADDRNOTAVAIL) => {
                    return Err(Error::netlink("removing an address")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn addresses(&self, index: u32) -> Result<Vec<AddressMessage>, Error> {
        let mut request = self.filtered.address().get().set_link_index_filter(index);
        request.message_mut().header.index = index;
        match request.execute().try_collect().await {
            Err(error) if is(&error, libc::ENODEV) => Ok(Vec::new()),
            list => list.map_err(Error::netlink("listing addresses")),
        }
    }

    async fn change(&self, message: LinkMessage) -> Result<(), rtnetlink::Error> {
        self.handle.link().change(message).execute().await
    }

    async fn add_address(&self, index: u32, net: IpNet) -> Result<(), rtnetlink::Error> {
        let mut request = self.handle.address().add(index, net.addr(), net.prefix_len());
        if matches!(net, IpNet::V6(_)) {
            // Nobody on a TUN could answer the probe for duplicates, and the address would be unusable meanwhile.
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        match request.execute().await {
            Err(error) if is(&error, libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Returns `false` when there is such a route already, or IPv6 is off.
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
            Err(error) if is(&error, libc::EEXIST) || is_v6_off(net, &error) => Ok(false),
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

/// What the kernel says of one address is no reason to do without the others; a lost connection or a device that is gone is.
fn refusal(net: IpNet, error: rtnetlink::Error) -> Result<RefusedAddress, Error> {
    let answer = match &error {
        rtnetlink::Error::NetlinkError(message) if !is(&error, libc::ENODEV) && !is(&error, libc::EPERM) => {
            message.to_io()
        }
        _ => return Err(Error::netlink(format!("adding the address {net}"))(error)),
    };
    let why = if is_v6_off(net, &error) { "IPv6 is off".to_owned() } else { answer.to_string() };
    Ok(RefusedAddress { address: net, why })
}

/// By a sysctl, or the kernel has none.
fn is_v6_off(net: IpNet, error: &rtnetlink::Error) -> bool {
    let answers = [libc::EACCES, libc::EOPNOTSUPP, libc::EAFNOSUPPORT];
    matches!(net, IpNet::V6(_)) && answers.into_iter().any(|errno| is(error, errno))
}
