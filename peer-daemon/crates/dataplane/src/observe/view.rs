//! What the numbers in records stand for.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;

use crate::flows::{Names, Owners};
use crate::{Intent, PeerPrefixes};

/// Names and owners of one intent.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) names: Names,
    peers: Arc<[PeerPrefixes]>,
    /// Made when somebody asks: peers come and go more often than that.
    owners: Arc<OnceLock<Owners>>,
}

impl View {
    /// That of another intent; owners stay as they are while the peers do.
    pub(crate) fn next(&self, names: Names, intent: &Intent) -> Self {
        let same = Arc::ptr_eq(&self.peers, &intent.peers);
        let owners = if same { Arc::clone(&self.owners) } else { Arc::default() };
        Self { names, owners, peers: Arc::clone(&intent.peers) }
    }

    /// Whose addresses are.
    pub(crate) fn owners(&self) -> &Owners {
        self.owners.get_or_init(|| Owners::new(&self.peers))
    }

    /// Name of a device; `None`: the packet leaves by none.
    pub(crate) fn uplink(&self, index: u32) -> Option<String> {
        let name = || self.names.uplinks.get(&index).cloned().unwrap_or_else(|| format!("if{index}"));
        (index != 0).then(name)
    }

    /// Destination of a route.
    pub(crate) fn route(&self, id: u32) -> Option<IpNet> {
        self.names.routes.get(&id).copied()
    }

    /// Peer that owns an address.
    pub(crate) fn peer(&self, addr: IpAddr) -> Option<u32> {
        self.owners().of(addr)
    }
}
