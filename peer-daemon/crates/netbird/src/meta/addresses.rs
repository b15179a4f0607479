//! Addresses of this system's interfaces.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::Options;
use crate::proto::management::NetworkAddress;

/// Addresses told at most: a node of many pods has hundreds of interfaces, and a posture check needs few.
const MOST: usize = 128;

/// Those of interfaces that are up and have a hardware address: no loopback, no tunnel. In the kernel's order.
pub(super) async fn gather(options: &Options) -> Vec<NetworkAddress> {
    match read().await {
        Ok((links, addresses)) => select(options, &links, &addresses),
        Err(error) => {
            tracing::debug!(%error, "the kernel does not list its addresses");
            Vec::new()
        }
    }
}

async fn read() -> Result<(BTreeMap<u32, Link>, Vec<(u32, IpNet)>), Box<dyn std::error::Error + Send + Sync>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let answer = async {
        let links: Vec<_> = handle.link().get().execute().try_collect().await?;
        let addresses: Vec<_> = handle.address().get().execute().try_collect().await?;
        Ok::<_, rtnetlink::Error>((links, addresses))
    };
    let answer = answer.await;
    connection.abort();
    let (links, addresses) = answer?;
    let links = links.iter().filter_map(|link| Some((link.header.index, read_link(link)?))).collect();
    Ok((links, addresses.iter().filter_map(read_address).collect()))
}

/// An interface that may be told.
struct Link {
    name: String,
    mac: String,
}

fn select(options: &Options, links: &BTreeMap<u32, Link>, addresses: &[(u32, IpNet)]) -> Vec<NetworkAddress> {
    let mut told = Vec::new();
    for (index, net) in addresses {
        let Some(link) = links.get(index).filter(|link| !options.excluded_interfaces.contains(&link.name)) else {
            continue;
        };
        let net_ip = net.to_string();
        let known = told.iter().any(|address: &NetworkAddress| address.net_ip == net_ip);
        if useful(net.addr()) && !options.excluded_addresses.contains(&net.addr()) && !known {
            told.push(NetworkAddress { net_ip, mac: link.mac.clone() });
        }
    }
    told.truncate(MOST);
    told
}

/// Link-local IPv6 says nothing about where a system is, and each pod's interface has one.
const fn useful(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

fn read_link(message: &LinkMessage) -> Option<Link> {
    if !message.header.flags.contains(LinkFlags::Up) || message.header.flags.contains(LinkFlags::Loopback) {
        return None;
    }
    let (mut name, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Address(bytes) if bytes.iter().any(|byte| *byte != 0) => mac = Some(colons(bytes)),
            _ => {}
        }
    }
    Some(Link { name: name?, mac: mac? })
}

fn read_address(message: &AddressMessage) -> Option<(u32, IpNet)> {
    let (mut local, mut remote) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => remote = Some(*address),
            _ => {}
        }
    }
    // On a point-to-point link the other is the far end's.
    let net = IpNet::new(local.or(remote)?, message.header.prefix_len).ok()?;
    Some((message.header.index, net))
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnel_overlay_and_link_local_are_not_told() {
        let link = |name: &str| Link { name: name.to_owned(), mac: "02:00:00:00:00:01".to_owned() };
        let links = BTreeMap::from([(2, link("eth0")), (3, link("wt0")), (4, link("eth1"))]);
        let addresses = [
            (2, "192.0.2.5/24"),
            (2, "fe80::1/64"),
            (2, "2001:db8::5/64"),
            (3, "100.64.0.7/16"),
            (4, "100.64.0.8/32"),
            (4, "192.0.2.5/24"),
            (9, "198.51.100.1/24"),
        ]
        .map(|(index, net)| (index, net.parse().expect("a prefix")));
        let options = Options {
            excluded_interfaces: ["wt0".to_owned()].into(),
            excluded_addresses: [IpAddr::from([100, 64, 0, 8])].into(),
            ..Options::default()
        };
        let told: Vec<_> = select(&options, &links, &addresses).into_iter().map(|address| address.net_ip).collect();
        assert_eq!(told, ["192.0.2.5/24", "2001:db8::5/64"]);
    }

    #[test]
    fn hardware_addresses_read_as_usual() {
        assert_eq!(colons(&[2, 0, 0, 0xab, 0xcd, 0xef]), "02:00:00:ab:cd:ef");
    }

    #[test]
    fn there_is_a_limit() {
        let links = BTreeMap::from([(2, Link { name: "eth0".to_owned(), mac: "02:00:00:00:00:01".to_owned() })]);
        let addresses: Vec<_> = (0..1000_u32)
            .map(|n| (2, IpNet::new(IpAddr::V4((0x0a00_0000 + n).into()), 8).expect("a prefix")))
            .collect();
        assert_eq!(select(&Options::default(), &links, &addresses).len(), MOST);
    }
}
