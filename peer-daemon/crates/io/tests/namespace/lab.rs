//! Threads in namespaces, and what the kernel says about a device there.

use std::future::Future;
use std::net::IpAddr;
use std::thread;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use peer_io::Wt0Config;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use crate::sys;

/// Runs `test` on a thread in a network namespace of its own, with a runtime that never leaves that thread.
pub(crate) fn in_namespace<T: Send + 'static, F: Future<Output = T>>(test: impl FnOnce() -> F + Send + 'static) -> T {
    let run = move || {
        enter_new_namespace();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test())
    };
    match thread::spawn(run).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Moves the calling thread on into another new namespace. Sockets and devices made before stay where they are.
pub(crate) fn enter_new_namespace() {
    sys::unshare_network().expect("these tests make network namespaces and devices in them: run them as root");
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

pub(crate) fn config(addresses: &[&str], routes: &[&str]) -> Wt0Config {
    let nets = |texts: &[&str]| texts.iter().map(|text| net(text)).collect();
    Wt0Config {
        name: "wt0".into(),
        mtu: 1420,
        addresses: nets(addresses),
        routes: nets(routes),
        queues: 1,
        adopt: true,
    }
}

/// A look at the namespace in which it was made.
pub(crate) struct Kernel(pub(crate) Handle);

impl Kernel {
    pub(crate) fn connect() -> Self {
        let (connection, handle, _) = rtnetlink::new_connection().expect("a netlink socket");
        tokio::spawn(connection);
        Self(handle)
    }

    pub(crate) async fn up(&self, index: u32) {
        let message = LinkMessageBuilder::<LinkUnspec>::default().index(index).up().build();
        self.0.link().change(message).execute().await.expect("a device");
    }

    pub(crate) async fn link(&self, name: &str) -> Option<LinkMessage> {
        let links: Vec<_> = self.0.link().get().execute().try_collect().await.expect("links");
        links.into_iter().find(|link| {
            link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::IfName(found) if found == name))
        })
    }

    /// Addresses of a device, with whether they are usable at once.
    pub(crate) async fn addresses(&self, index: u32) -> Vec<(IpNet, bool)> {
        let list: Vec<_> = self.0.address().get().execute().try_collect().await.expect("addresses");
        let mut found = Vec::new();
        for message in list.iter().filter(|message| message.header.index == index) {
            let mut usable = true;
            let mut address = None;
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Address(ip) => address = Some(*ip),
                    AddressAttribute::Flags(flags) => usable = !flags.contains(AddressFlags::Tentative),
                    _ => {}
                }
            }
            let address = address.expect("an address");
            found.push((IpNet::new(address, message.header.prefix_len).expect("a prefix"), usable));
        }
        found.sort();
        found
    }

    /// Destinations of routes in the main table with the interface they lead to.
    pub(crate) async fn routes(&self) -> Vec<(IpNet, u32)> {
        let messages = [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ];
        let mut found = Vec::new();
        for message in messages {
            let list: Vec<_> = self.0.route().get(message).execute().try_collect().await.expect("routes");
            for route in list.iter().filter(|route| route.header.table == 254) {
                let mut destination = None;
                let mut interface = 0;
                for attribute in &route.attributes {
                    match attribute {
                        RouteAttribute::Destination(RouteAddress::Inet(ip)) => destination = Some(IpAddr::V4(*ip)),
                        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => destination = Some(IpAddr::V6(*ip)),
                        RouteAttribute::Oif(index) => interface = *index,
                        _ => {}
                    }
                }
                let prefix = route.header.destination_prefix_length;
                found.extend(destination.and_then(|ip| IpNet::new(ip, prefix).ok()).map(|net| (net, interface)));
            }
        }
        found.sort();
        found
    }
}

pub(crate) fn is_up(link: &LinkMessage) -> bool {
    link.header.flags.contains(LinkFlags::Up)
}
