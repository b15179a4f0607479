//! What lies behind peers: networks with resources, and routes of the older kind.

use ipnet::IpNet;

use super::{ALL, Account};

/// A network: resources, and the peers that lead there.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// What can be reached.
    pub resources: Vec<Resource>,
    /// Who leads there.
    pub routers: Vec<Router>,
}

/// Something that can be reached, if a policy has one of its groups as destination.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its id.
    pub id: String,
    /// Shown to people.
    pub name: String,
    /// Where it is.
    pub destination: Destination,
    /// Groups it is in.
    pub groups: Vec<String>,
    /// Whether it is to be had.
    pub enabled: bool,
}

/// An address range or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A prefix.
    Prefix(IpNet),
    /// A domain; `*.` in front: everything below it.
    Domain(String),
}

/// Peers that route for a network.
#[derive(Clone, Debug)]
pub struct Router {
    /// Which ones.
    pub routers: Routers,
    /// Lower is better.
    pub metric: u16,
    /// Whether the network sees the router's address.
    pub masquerade: bool,
    /// Whether it is in use.
    pub enabled: bool,
}

/// Routers by key, or by group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routers {
    /// One peer. It cannot be deleted while it is named here.
    Peer(String),
    /// All peers of these groups.
    Groups(Vec<String>),
}

/// A route of the older kind.
#[derive(Clone, Debug)]
pub struct ClassicRoute {
    /// Its id.
    pub id: String,
    /// Routes with the same name and destination stand for each other.
    pub net_id: String,
    /// Where it leads.
    pub destination: Destination,
    /// Who leads there.
    pub routers: Routers,
    /// Lower is better.
    pub metric: u16,
    /// Whether the network sees the router's address.
    pub masquerade: bool,
    /// Groups of those who may know of it.
    pub groups: Vec<String>,
    /// Groups that stand for its destination in policies; none: everything may pass.
    pub access_control_groups: Vec<String>,
    /// Whether it is in use.
    pub enabled: bool,
}

impl Network {
    /// A network with one prefix, in a group of its own name, behind these routers.
    #[must_use]
    pub fn of_prefix(id: &str, prefix: IpNet, routers: Routers) -> Self {
        let resource = Resource {
            id: format!("{id}-resource"),
            name: id.to_owned(),
            destination: Destination::Prefix(prefix),
            groups: vec![id.to_owned()],
            enabled: true,
        };
        let router = Router { routers, metric: 9999, masquerade: true, enabled: true };
        Self { id: id.to_owned(), resources: vec![resource], routers: vec![router] }
    }
}

impl ClassicRoute {
    /// Through these routers, for everybody, unrestricted.
    #[must_use]
    pub fn new(id: &str, destination: Destination, routers: Routers) -> Self {
        Self {
            id: id.to_owned(),
            net_id: id.to_owned(),
            destination,
            routers,
            metric: 9999,
            masquerade: true,
            groups: vec![ALL.to_owned()],
            access_control_groups: Vec::new(),
            enabled: true,
        }
    }
}

impl Routers {
    /// Keys, in order.
    pub(crate) fn keys<'a>(&'a self, account: &'a Account) -> Vec<&'a str> {
        match self {
            Self::Peer(key) => account.peers.contains_key(key).then_some(key.as_str()).into_iter().collect(),
            Self::Groups(groups) => account.members(groups).into_iter().collect(),
        }
    }
}
