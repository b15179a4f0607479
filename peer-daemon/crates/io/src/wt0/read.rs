//! Reads what rtnetlink says of links, addresses and routes.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_core::{DefaultNla, Nla as _};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecUnspec, InfoData, InfoTun, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};

use super::state::Seen;

/// The main table's number.
pub(super) const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;
/// The local table's.
pub(super) const LOCAL: u32 = 255;

// IFLA_TUN_… of linux/if_link.h.
const TUN_TYPE: u16 = 3;
const TUN_NUM_QUEUES: u16 = 8;
const TUN_NUM_DISABLED_QUEUES: u16 = 9;

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

pub(super) fn read_state(message: &LinkMessage) -> Seen {
    let mut seen = Seen { up: message.header.flags.contains(LinkFlags::Up), ..Seen::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => seen.mtu = *mtu,
            LinkAttribute::TxQueueLen(length) => seen.queue_length = *length,
            LinkAttribute::AfSpecUnspec(families) => {
                let inet = families.iter().filter_map(|family| match family {
                    AfSpecUnspec::Inet(settings) => Some(settings),
                    _ => None,
                });
                let conf = |setting: &AfSpecInet| matches!(setting, AfSpecInet::DevConf(conf) if conf.forwarding != 0);
                seen.forwarding = inet.flatten().any(conf);
            }
            _ => {}
        }
    }
    seen
}

pub(super) fn read_link(message: &LinkMessage) -> Found {
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

pub(super) fn read_address(message: &AddressMessage) -> Option<IpNet> {
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

pub(super) fn table(route: &RouteMessage) -> u32 {
    let wide = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    wide.unwrap_or(route.header.table.into())
}

pub(super) fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(addr)) => Some(IpAddr::V4(*addr)),
        RouteAttribute::Destination(RouteAddress::Inet6(addr)) => Some(IpAddr::V6(*addr)),
        _ => None,
    })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

/// `None` for routes that lead to no single device.
pub(super) fn interface(route: &RouteMessage) -> Option<u32> {
    if route.header.kind == RouteType::Unicast { oif(route) } else { None }
}

pub(super) fn oif(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}
