//! What management knows: peers, groups, policies, networks and routes.

mod peer;
mod policy;
mod routing;
mod setup_key;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

pub use peer::{Peer, RegistrationError, RemovalError};
pub use policy::{Action, Policy, Protocol};
pub use routing::{ClassicRoute, Destination, Network, Resource, Router, Routers};
pub use setup_key::SetupKey;

/// Group of all peers.
pub const ALL: &str = "All";

/// One account. Names are ids here: of groups, policies, networks and routes.
#[derive(Clone, Debug)]
pub struct Account {
    /// Where addresses come from, and the prefix that peers put on their interface.
    pub network: Ipv4Net,
    /// As above; `None`: no IPv6 overlay.
    pub network6: Option<Ipv6Net>,
    /// DNS domain of peers.
    pub domain: String,
    /// Whether peers are told to connect when needed only.
    pub lazy: bool,
    /// Whether routers resolve the names of domain routes.
    pub dns_resolution: bool,
    /// Setup keys by [`SetupKey::lookup`].
    pub setup_keys: BTreeMap<String, SetupKey>,
    /// Peers by public key.
    pub peers: BTreeMap<String, Peer>,
    /// Members of groups by name; [`ALL`] is not among them.
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// Who may talk to whom, and use what.
    pub policies: Vec<Policy>,
    /// Networks with their resources and routers.
    pub networks: Vec<Network>,
    /// Routes of the older kind.
    pub routes: Vec<ClassicRoute>,
    /// Counts changes.
    pub serial: u64,
}

impl Default for Account {
    /// As a real server makes one: everybody may talk to everybody; not lazy, which is a new account's other default.
    fn default() -> Self {
        Self {
            network: Ipv4Net::new_assert(Ipv4Addr::new(100, 90, 0, 0), 16),
            network6: Some(Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x90, 0, 0, 0, 0, 0, 0), 64)),
            domain: "netbird.selfhosted".to_owned(),
            lazy: false,
            dns_resolution: true,
            setup_keys: BTreeMap::new(),
            peers: BTreeMap::new(),
            groups: BTreeMap::new(),
            policies: vec![Policy::new("default", Action::Accept, Protocol::All, &[ALL], &[ALL])],
            networks: Vec::new(),
            routes: Vec::new(),
            serial: 1,
        }
    }
}

impl Account {
    /// Keys of the peers that are in any of these groups, in order.
    #[must_use]
    pub fn members(&self, groups: &[String]) -> BTreeSet<&str> {
        let mut members = BTreeSet::new();
        for group in groups {
            if group == ALL {
                members.extend(self.peers.keys().map(String::as_str));
            } else if let Some(group) = self.groups.get(group) {
                members.extend(group.iter().map(String::as_str).filter(|key| self.peers.contains_key(*key)));
            }
        }
        members
    }

    /// Adds a setup key and returns what a peer must present.
    pub fn add_setup_key(&mut self, key: SetupKey) -> String {
        let text = key.text.clone();
        self.setup_keys.insert(SetupKey::lookup(&text), key);
        text
    }

    /// The peer with this host name, if there is one.
    #[must_use]
    pub fn peer_named(&self, name: &str) -> Option<&Peer> {
        self.peers.values().find(|peer| peer.name == name)
    }
}
