//! From a message's bytes to an update. Management sends whole maps: an entry whose bytes were in the message before is not
//! decoded again, and what was made of it is shared.

mod list;

use std::sync::Arc;

use peer_netbird::management::{Field, SyncMessage, Value, fields};
use peer_netbird::proto::management as wire;
use peer_netbird::sealed::DecodeError;
use prost::Message as _;

use self::list::{List, Places};
use crate::model::{NetworkMap, PeerRule, RemotePeer, Route, RouteRule, Update};
use crate::wire::map::{Entries, Rest, Shared, peer_rule, remote_peer, route, route_rule};
use crate::wire::update;

/// Reads one message after the other.
#[derive(Debug, Default)]
pub struct Reader {
    last: Lists,
    /// The message that the lists are of.
    message: Arc<SyncMessage>,
    shared: Shared,
    work: Work,
}

/// What a [`Reader`] had to do so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Entries that were decoded.
    pub decoded: u64,
    /// Entries that were as before.
    pub reused: u64,
}

/// The lists of a map.
#[derive(Debug, Default)]
struct Lists {
    peers: List<Arc<RemotePeer>>,
    offline: List<Arc<RemotePeer>>,
    routes: List<Arc<Route>>,
    peer_rules: List<PeerRule>,
    route_rules: List<Arc<RouteRule>>,
}

/// Where the entries of the lists are.
#[derive(Debug, Default)]
struct Found {
    peers: Places,
    offline: Places,
    routes: Places,
    peer_rules: Places,
    route_rules: Places,
}

// Field numbers of NetworkMap.
const SERIAL: u64 = 1;
const OWN: u64 = 2;
const PEERS: u64 = 3;
const NO_PEERS: u64 = 4;
const ROUTES: u64 = 5;
const OFFLINE: u64 = 7;
const PEER_RULES: u64 = 8;
const NO_PEER_RULES: u64 = 9;
const ROUTE_RULES: u64 = 10;
const NO_ROUTE_RULES: u64 = 11;
const FORWARDING_RULES: u64 = 12;

impl Reader {
    /// What `message` says: the same as `Update::from` the whole message decoded.
    ///
    /// # Errors
    /// When it has an entry that is none. The next message is then compared with the one before.
    pub fn read(&mut self, message: &Arc<SyncMessage>) -> Result<Update, DecodeError> {
        let wire::SyncHead { netbird_config, checks, version } = message.head().clone();
        // One of another kind may hold anything.
        let map = if version == 0 && message.has_map() { Some(self.map(message)?) } else { None };
        Ok(update(netbird_config, map, checks, version))
    }

    /// What it had to do so far.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work
    }

    fn map(&mut self, message: &Arc<SyncMessage>) -> Result<NetworkMap, DecodeError> {
        let (found, rest) = find(message)?;
        let texts = (self.message.plaintext(), message.plaintext());
        let (shared, work, last) = (&mut self.shared, &mut self.work, &self.last);
        let peer = |bytes: &[u8]| Ok(remote_peer(wire::RemotePeerConfig::decode(bytes)?));
        let peers = last.peers.next(texts, found.peers, work, peer)?;
        let offline = last.offline.next(texts, found.offline, work, peer)?;
        let routes = last.routes.next(texts, found.routes, work, |bytes| Ok(route(wire::Route::decode(bytes)?)))?;
        let peer_rules = last
            .peer_rules
            .next(texts, found.peer_rules, work, |bytes| Ok(peer_rule(&wire::FirewallRule::decode(bytes)?, shared)))?;
        let route_rules = last.route_rules.next(texts, found.route_rules, work, |bytes| {
            Ok(route_rule(&wire::RouteFirewallRule::decode(bytes)?, shared))
        })?;
        self.last.peers.turn_into(peers);
        self.last.offline.turn_into(offline);
        self.last.routes.turn_into(routes);
        self.last.peer_rules.turn_into(peer_rules);
        self.last.route_rules.turn_into(route_rules);
        let map = self.last.entries().map(rest);
        self.message = Arc::clone(message);
        self.shared.forget_unused();
        Ok(map)
    }
}

impl Lists {
    fn entries(&self) -> Entries<'_> {
        Entries {
            peers: self.peers.entries(),
            offline: self.offline.entries(),
            routes: self.routes.entries(),
            peer_rules: self.peer_rules.entries(),
            route_rules: self.route_rules.entries(),
        }
    }
}

/// Where the entries of all lists are, and what else the map says.
fn find(message: &SyncMessage) -> Result<(Found, Rest), DecodeError> {
    let text = message.plaintext();
    let (mut found, mut rest) = (Found::default(), Rest::default());
    for field in message.maps().flat_map(|map| fields(text, map)) {
        let Field { number, value, .. } = field?;
        match (number, value) {
            (SERIAL, Value::Number(serial)) => rest.serial = serial,
            (NO_PEERS, Value::Number(flag)) => rest.no_peers = flag != 0,
            (NO_PEER_RULES, Value::Number(flag)) => rest.no_peer_rules = flag != 0,
            (NO_ROUTE_RULES, Value::Number(flag)) => rest.no_route_rules = flag != 0,
            (OWN, Value::Bytes(place)) => rest.own.get_or_insert_default().merge(&text[place])?,
            (PEERS, Value::Bytes(place)) => found.peers.push(place),
            (OFFLINE, Value::Bytes(place)) => found.offline.push(place),
            (ROUTES, Value::Bytes(place)) => found.routes.push(place),
            (PEER_RULES, Value::Bytes(place)) => found.peer_rules.push(place),
            (ROUTE_RULES, Value::Bytes(place)) => found.route_rules.push(place),
            (FORWARDING_RULES, Value::Bytes(_)) => rest.forwarding_rules += 1,
            _ => {}
        }
    }
    Ok((found, rest))
}

#[cfg(test)]
mod tests;
