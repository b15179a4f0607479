//! What a message means after those before it.
//!
//! The rules are those of the official client, in its order: servers first, then the own addresses, and only then the
//! serial, because an address may change without a new serial.

use peer_core::key::PublicKey;

use crate::model::{Login, NetworkMap, OwnConfig, Relay, ServersUpdate, Signal, Turn, Update};

/// What holds after all messages so far.
#[derive(Clone, Debug)]
pub struct Session {
    own_key: PublicKey,
    servers: Servers,
    own: Option<OwnConfig>,
    checks: Vec<String>,
    map: Option<NetworkMap>,
    stale_maps: u64,
}

/// Servers in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    /// STUN URIs.
    pub stuns: Vec<String>,
    /// TURN servers.
    pub turns: Vec<Turn>,
    /// The signal server.
    pub signal: Option<Signal>,
    /// Relays; `None`: relays are switched off.
    pub relay: Option<Relay>,
}

/// What a message changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// STUN or TURN servers, or their credentials.
    pub ice: bool,
    /// Relays or their token.
    pub relay: bool,
    /// The signal server.
    pub signal: bool,
    /// Own overlay addresses: the interface must be made anew. False for the first ones.
    pub readdressed: bool,
    /// Other facts about this peer.
    pub own: bool,
    /// The paths that posture checks ask for: answer with the facts about them.
    pub checks: bool,
    /// What became of the map.
    pub map: MapVerdict,
}

/// What became of a message's map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapVerdict {
    /// There was none.
    #[default]
    Absent,
    /// It is older than the one in force, and was dropped.
    Stale {
        /// Its serial.
        serial: u64,
        /// That of the map in force.
        last: u64,
    },
    /// It is in force. The same map may come twice.
    Accepted {
        /// Its serial.
        serial: u64,
    },
}

impl Session {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(own_key: PublicKey) -> Self {
        Self { own_key, servers: Servers::default(), own: None, checks: Vec::new(), map: None, stale_maps: 0 }
    }

    /// Takes the answer to a login.
    pub fn login(&mut self, login: Login) -> Applied {
        let mut applied = Applied::default();
        if let Some(servers) = login.servers {
            self.servers.apply(servers, &mut applied);
        }
        if let Some(own) = login.own {
            self.apply_own(own, &mut applied);
        }
        self.apply_checks(login.checks, &mut applied);
        applied
    }

    /// Takes a message of the sync stream.
    pub fn update(&mut self, update: Update) -> Applied {
        let mut applied = Applied::default();
        if let Some(servers) = update.servers {
            self.servers.apply(servers, &mut applied);
        }
        if let Some(map) = update.map {
            self.apply_checks(update.checks, &mut applied);
            self.apply_map(map, &mut applied);
        }
        applied
    }

    /// Servers in force.
    #[must_use]
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Facts about this peer, once known.
    #[must_use]
    pub fn own(&self) -> Option<&OwnConfig> {
        self.own.as_ref()
    }

    /// Absolute paths that posture checks ask for, sorted.
    #[must_use]
    pub fn checks(&self) -> &[String] {
        &self.checks
    }

    /// The map in force.
    #[must_use]
    pub fn map(&self) -> Option<&NetworkMap> {
        self.map.as_ref()
    }

    /// How many maps were dropped because they were older than the one in force.
    #[must_use]
    pub fn stale_maps(&self) -> u64 {
        self.stale_maps
    }

    fn apply_own(&mut self, own: OwnConfig, applied: &mut Applied) {
        let before = self.own.take();
        let known = before.as_ref().map(|own| own.addresses).filter(|addresses| !addresses.is_empty());
        let mut own = own;
        // A text that is no address must not take the interface down.
        if own.addresses.v4.is_none() {
            own.addresses.v4 = known.and_then(|known| known.v4);
        }
        applied.readdressed |= known.is_some_and(|known| known != own.addresses);
        applied.own |= before.as_ref() != Some(&own);
        self.own = Some(own);
    }

    fn apply_checks(&mut self, checks: Vec<String>, applied: &mut Applied) {
        applied.checks |= self.checks != checks;
        self.checks = checks;
    }

    fn apply_map(&mut self, mut map: NetworkMap, applied: &mut Applied) {
        if let Some(own) = map.own.take() {
            self.apply_own(own, applied);
        }
        let last = self.map.as_ref().map_or(0, |map| map.serial);
        // The official client starts anew with another address, and then takes any serial.
        if map.serial < last && !applied.readdressed {
            self.stale_maps += 1;
            applied.map = MapVerdict::Stale { serial: map.serial, last };
            return;
        }
        map.leave_out(self.own_key);
        applied.map = MapVerdict::Accepted { serial: map.serial };
        self.map = Some(map);
    }
}

impl Servers {
    fn apply(&mut self, update: ServersUpdate, applied: &mut Applied) {
        // Servers of 0.74.0 send a configuration that says nothing of servers with every map.
        if update == ServersUpdate::default() {
            return;
        }
        let ServersUpdate { stuns, turns, signal, relay } = update;
        if !stuns.is_empty() && stuns != self.stuns {
            applied.ice = true;
            self.stuns = stuns;
        }
        if !turns.is_empty() && turns != self.turns {
            applied.ice = true;
            self.turns = turns;
        }
        if signal.is_some() && signal != self.signal {
            applied.signal = true;
            self.signal = signal;
        }
        if relay != self.relay {
            applied.relay = true;
            self.relay = relay;
        }
    }
}

#[cfg(test)]
mod tests;
