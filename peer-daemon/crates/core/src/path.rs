//! How a peer is reached.

use std::net::{IpAddr, SocketAddr};

/// A way to and from a peer. Authenticated packets move a peer to the path they came by (roaming).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// UDP between two addresses.
    Udp {
        /// The peer's address. IPv4 addresses are never mapped.
        remote: SocketAddr,
        /// Our address that the peer sent to; answers leave from it. `None` lets the kernel choose.
        local: Option<IpAddr>,
    },
    /// Through a relay server.
    Relay(RelayId),
}

/// A peer behind one connection to a relay server. Both numbers are handed out once: what is late for a connection that
/// is gone goes nowhere, never to somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId {
    /// Which connection.
    pub connection: u32,
    /// Which peer of it.
    pub peer: u32,
}
