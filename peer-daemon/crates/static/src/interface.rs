//! `[interface]`.

use std::path::Path;

use peer_core::desired::Interface;
use peer_core::key::PrivateKey;

use crate::check::Seen;
use crate::node::{Node, Sink, Table};
use crate::{file, schema, value};

/// As WireGuard's own tools choose it: an Ethernet frame less the outer IPv6, UDP and WireGuard headers.
const DEFAULT_MTU: u16 = 1420;
/// Every host takes 576 bytes of IPv4 (RFC 791); IPv6 needs 1280, which [`Seen::check`] sees to.
const MIN_MTU: i64 = 576;
/// The largest datagram less the outer headers.
const MAX_MTU: i64 = 65_455;

pub(crate) fn read<'a>(node: &Node<'a>, base: &Path, seen: &mut Seen<'a>, sink: &mut Sink) -> Option<Interface> {
    let table = Table::open(node, schema::INTERFACE, sink)?;
    let private_key = private_key(&table, base, sink);
    seen.own_key = private_key.as_ref().map(PrivateKey::public_key);
    let listen_port = table.get("listen_port").map_or(Some(0), |node| value::integer(&node, 0..=65_535, sink));
    let mtu = match table.get("mtu") {
        Some(node) => {
            let mtu = value::integer(&node, MIN_MTU..=MAX_MTU, sink);
            seen.mtu = mtu.map(|mtu| (node, mtu));
            mtu
        }
        None => Some(DEFAULT_MTU),
    };
    let name = match table.get("name") {
        Some(node) => value::device_name(&node, sink),
        None => Some("wt0".to_owned()),
    };
    seen.name.clone_from(&name);
    let addresses = addresses(&table, seen, sink);
    Some(Interface { name: name?, private_key: private_key?, listen_port: listen_port?, addresses, mtu: mtu? })
}

fn addresses<'a>(table: &Table<'a>, seen: &mut Seen<'a>, sink: &mut Sink) -> Vec<ipnet::IpNet> {
    let example = "addresses = [\"100.64.0.1/16\"]";
    let Some(node) = table.get("addresses") else {
        sink.missing(table, "addresses", format!("add the node's overlay addresses: {example}"));
        return Vec::new();
    };
    if node.value().as_array().is_some_and(|items| items.is_empty()) {
        sink.refuse(&node, "is empty", format!("write the node's overlay addresses: {example}"));
    }
    let items = value::list(&node, example, sink);
    seen.addresses =
        items.into_iter().filter_map(|item| value::own_address(&item, sink).map(|net| (item, net))).collect();
    seen.addresses.iter().map(|(_, net)| *net).collect()
}

fn private_key(table: &Table<'_>, base: &Path, sink: &mut Sink) -> Option<PrivateKey> {
    match (table.get("private_key"), table.get("private_key_file")) {
        (Some(node), None) => value::key::<PrivateKey>(&node, sink).and_then(|key| usable(&node, key, sink)),
        (None, Some(node)) => {
            let text = value::string(&node, "the path of a file in quotes", sink)?;
            let read = if text.is_empty() {
                Err(("is empty".to_owned(), "write the path of a file that holds the key".to_owned()))
            } else if text.parse::<PrivateKey>().is_ok() {
                Err(("is a key, not the path of a file".to_owned(), "write it as private_key".to_owned()))
            } else {
                file::private_key(&base.join(text))
            };
            match read {
                Ok(key) => usable(&node, key, sink),
                Err((why, fix)) => {
                    sink.refuse(&node, why, fix);
                    None
                }
            }
        }
        (Some(_), Some(node)) => {
            sink.refuse(&node, "there is a private_key, too", "keep one of private_key and private_key_file");
            None
        }
        (None, None) => {
            sink.missing(
                table,
                "private_key",
                "add private_key_file = \"wt0.key\" (umask 077; peer-daemon genkey > wt0.key)",
            );
            None
        }
    }
}

fn usable(node: &Node<'_>, key: PrivateKey, sink: &mut Sink) -> Option<PrivateKey> {
    if key.expose().iter().all(|byte| *byte == 0) {
        sink.refuse(node, "all zeros are no key", "make one with peer-daemon genkey");
        return None;
    }
    Some(key)
}
