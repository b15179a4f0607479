//! What only the whole file shows.

use std::collections::HashMap;
use std::hash::Hash;

use ipnet::IpNet;
use peer_core::key::PublicKey;

use crate::node::{Node, Sink};

/// Most routes: what the dataplane's map holds.
pub const MAX_ROUTES: usize = 4096;
/// Most prefixes of all peers together: what the dataplane's map holds.
pub const MAX_PEER_PREFIXES: usize = 65_536;

/// RFC 8200 §5.
const MIN_MTU_V6: u16 = 1280;

/// Good values with their places.
#[derive(Default)]
pub(crate) struct Seen<'a> {
    pub(crate) own_key: Option<PublicKey>,
    pub(crate) name: Option<String>,
    pub(crate) mtu: Option<(Node<'a>, u16)>,
    pub(crate) addresses: Vec<(Node<'a>, IpNet)>,
    pub(crate) public_keys: Vec<(Node<'a>, PublicKey)>,
    pub(crate) allowed: Vec<(Node<'a>, IpNet)>,
    pub(crate) routes: Vec<Node<'a>>,
    pub(crate) destinations: Vec<(Node<'a>, IpNet)>,
    pub(crate) uplinks: Vec<(Node<'a>, String)>,
    /// Ids that the file gives.
    pub(crate) rule_ids: Vec<(Node<'a>, u32)>,
    /// Rules whose id is their position.
    pub(crate) rule_positions: Vec<(Node<'a>, u32)>,
}

impl Seen<'_> {
    /// Refuses what does not go together.
    pub(crate) fn check(&self, sink: &mut Sink) {
        let addresses: Vec<_> = self.addresses.iter().map(|(node, net)| (node, net.addr())).collect();
        unique(addresses, "give each address once", sink);
        unique(by_ref(&self.public_keys), "put all that is to be said of a peer under one [[peer]]", sink);
        unique(by_ref(&self.allowed), "each prefix belongs to one peer: remove one of the two", sink);
        unique(by_ref(&self.destinations), "keep one of the two", sink);
        unique(by_ref(&self.rule_ids), "give each rule an id of its own", sink);
        self.check_rule_positions(sink);
        self.check_own(sink);
        self.check_mtu(sink);
        self.check_limits(sink);
    }

    fn check_rule_positions(&self, sink: &mut Sink) {
        let positions: HashMap<_, _> = self.rule_positions.iter().map(|(node, id)| (*id, node)).collect();
        for (node, id) in &self.rule_ids {
            if let Some(rule) = positions.get(id) {
                let why = format!("is also the id of {}, by its position", sink.place(rule));
                sink.refuse(node, why, "choose another id, or give that rule one");
            }
        }
    }

    /// What is ours cannot be a peer's, and traffic cannot leave by the overlay it came from.
    fn check_own(&self, sink: &mut Sink) {
        for (node, key) in &self.public_keys {
            if Some(*key) == self.own_key {
                sink.refuse(node, "is this node's own key", "write the peer's public key, or remove this [[peer]]");
            }
        }
        let own: HashMap<_, _> = self.addresses.iter().map(|(node, net)| (IpNet::from(net.addr()), node)).collect();
        for (node, prefix) in &self.allowed {
            if let Some(address) = own.get(prefix) {
                let why = format!("is this node's own address, see {}", sink.place(address));
                sink.refuse(node, why, "write the peer's overlay address");
            }
        }
        for (node, uplink) in &self.uplinks {
            if Some(uplink) == self.name.as_ref() {
                sink.refuse(
                    node,
                    "is the overlay's own device",
                    "write the device that leads to the destination, or \"auto\"",
                );
            }
        }
    }

    fn check_mtu(&self, sink: &mut Sink) {
        let Some((node, mtu)) = &self.mtu else { return };
        let mut all = self.addresses.iter().chain(&self.allowed).chain(&self.destinations);
        let Some((first, _)) = all.find(|(_, net)| net.addr().is_ipv6()) else { return };
        if *mtu < MIN_MTU_V6 {
            let why = format!("is too small for IPv6, see {}", sink.place(first));
            sink.refuse(node, why, format!("write {MIN_MTU_V6} or more"));
        }
    }

    fn check_limits(&self, sink: &mut Sink) {
        if let Some(node) = self.routes.get(MAX_ROUTES) {
            let why = format!("{} routes are more than the {MAX_ROUTES} there is room for", self.routes.len());
            sink.refuse(node, why, "merge destinations into larger prefixes");
        }
        if let Some((node, _)) = self.allowed.get(MAX_PEER_PREFIXES) {
            let count = self.allowed.len();
            let why = format!("{count} prefixes of peers are more than the {MAX_PEER_PREFIXES} there is room for");
            sink.refuse(node, why, "merge them into larger prefixes");
        }
    }
}

fn by_ref<'n, 'a, T: Copy>(seen: &'n [(Node<'a>, T)]) -> Vec<(&'n Node<'a>, T)> {
    seen.iter().map(|(node, value)| (node, *value)).collect()
}

/// Refuses every value that an earlier one equals.
fn unique<T: Eq + Hash>(values: Vec<(&Node<'_>, T)>, fix: &str, sink: &mut Sink) {
    let mut first = HashMap::with_capacity(values.len());
    for (node, value) in values {
        match first.entry(value) {
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(node);
            }
            std::collections::hash_map::Entry::Occupied(taken) => {
                let why = format!("is the same as {}", sink.place(taken.get()));
                sink.refuse(node, why, fix);
            }
        }
    }
}
