//! Which peers are shown.

use std::net::IpAddr;

use super::{ConnectionType, Overview, Peer, PeerState};

/// What is asked for; empty: everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) ips: Vec<IpAddr>,
    /// Beginnings of names.
    pub(crate) names: Vec<String>,
    pub(crate) status: Option<PeerState>,
    pub(crate) connection_type: Option<ConnectionType>,
}

impl Filter {
    /// Whether something is asked for.
    pub(crate) fn is_set(&self) -> bool {
        let Self { ips, names, status, connection_type } = self;
        !ips.is_empty() || !names.is_empty() || status.is_some() || connection_type.is_some()
    }

    /// Leaves out the other peers. The counts stay those of all.
    pub(crate) fn apply(&self, overview: &mut Overview) {
        overview.peers.details.retain(|peer| self.takes(peer));
    }

    fn takes(&self, peer: &Peer) -> bool {
        let own = [peer.netbird_ip.map(IpAddr::from), peer.netbird_ipv6.map(IpAddr::from)];
        let by_ip = self.ips.is_empty() || own.iter().flatten().any(|ip| self.ips.contains(ip));
        let by_name = self.names.is_empty() || self.names.iter().any(|name| peer.fqdn.starts_with(name));
        by_ip
            && by_name
            && self.status.is_none_or(|status| status == peer.status)
            && self.connection_type.is_none_or(|kind| kind == peer.connection_type)
    }
}
