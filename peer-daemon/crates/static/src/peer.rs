//! `[[peer]]`.

use std::num::NonZeroU16;

use peer_core::desired::Peer;
use peer_core::key::PublicKey;

use crate::check::Seen;
use crate::node::{Node, Sink, Table};
use crate::{schema, value};

pub(crate) fn read<'a>(node: &Node<'a>, seen: &mut Seen<'a>, sink: &mut Sink) -> Option<Peer> {
    let table = Table::open(node, schema::PEER, sink)?;
    let public_key = public_key(&table, seen, sink);
    let preshared_key = table.get("preshared_key").and_then(|node| value::key(&node, sink));
    let endpoint = table.get("endpoint").and_then(|node| value::endpoint(&node, sink));
    let persistent_keepalive = table.get("persistent_keepalive").and_then(|node| keepalive(&node, sink));
    let allowed = value::networks(table.get("allowed_ips"), "allowed_ips = [\"100.64.0.2/32\"]", sink);
    let allowed_ips = allowed.iter().map(|(_, prefix)| *prefix).collect();
    seen.allowed.extend(allowed);
    Some(Peer { public_key: public_key?, preshared_key, endpoint, allowed_ips, persistent_keepalive })
}

fn public_key<'a>(table: &Table<'a>, seen: &mut Seen<'a>, sink: &mut Sink) -> Option<PublicKey> {
    let Some(node) = table.get("public_key") else {
        sink.missing(
            table,
            "public_key",
            "add public_key = \"…\" with what peer-daemon pubkey prints for the peer's key",
        );
        return None;
    };
    let key = value::key(&node, sink)?;
    if key == PublicKey([0; 32]) {
        sink.refuse(&node, "all zeros are no key", "write what peer-daemon pubkey prints for the peer's key");
        return None;
    }
    seen.public_keys.push((node, key));
    Some(key)
}

/// Seconds; 0 and "off" are none.
fn keepalive(node: &Node<'_>, sink: &mut Sink) -> Option<NonZeroU16> {
    match node.value().as_str() {
        Some("off") => None,
        Some(_) => {
            sink.refuse(node, "is no number of seconds", "write a number from 0 to 65535, without quotes, or \"off\"");
            None
        }
        None => value::integer(node, 0..=65_535, sink).and_then(NonZeroU16::new),
    }
}
