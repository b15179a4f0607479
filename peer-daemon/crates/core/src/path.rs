//! How a peer is reached.

use std::net::{IpAddr, SocketAddr};

/// A way to and from a peer. Authenticated packets move a peer to the path they came by (roaming).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Path {
    /// UDP between two addresses.
    Udp {
        /// The peer's address. IPv4 addresses are never mapped.
        remote: SocketAddr,
        /// Our address that the peer sent to; answers leave from it. `None` lets the kernel choose.
        local: Option<IpAddr>,
    },
}
