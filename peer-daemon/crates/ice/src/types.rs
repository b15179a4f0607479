//! What goes in and comes out.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use peer_core::key::PublicKey;

use crate::candidate::Kind;
use crate::credentials::Credentials;

/// Timers that an operator sets. The defaults are the official client's.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Interval of consent checks on the selected pair (`NB_ICE_KEEP_ALIVE_INTERVAL_SEC`).
    pub keepalive: Duration,
    /// A selected pair without a response for so long is lost (`NB_ICE_DISCONNECTED_TIMEOUT_SEC`).
    pub disconnected: Duration,
    /// A session that is still unconnected after `disconnected` and this time has failed (`NB_ICE_FAILED_TIMEOUT_SEC`).
    pub failed: Duration,
    /// How long a session still looks for a better pair after it has selected one (`NB_ICE_RELAY_ACCEPTANCE_MIN_WAIT_SEC`).
    pub relay_acceptance_min_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keepalive: Duration::from_secs(4),
            disconnected: Duration::from_secs(6),
            failed: Duration::from_secs(6),
            relay_acceptance_min_wait: Duration::from_secs(2),
        }
    }
}

/// A public address, forwarded with its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalIp {
    /// The public address.
    pub external: IpAddr,
    /// The interface address that it leads to; `None`: any of the same family.
    pub internal: Option<IpAddr>,
}

/// One attempt to reach a peer directly.
#[derive(Clone, Debug)]
pub struct Session {
    /// The peer.
    pub peer: PublicKey,
    /// To repeat in events.
    pub attempt: u32,
    /// Our credentials, the same for all sessions with this peer.
    pub local: Credentials,
    /// The peer's credentials, from its offer or answer.
    pub remote: Credentials,
    /// Whether our key is the greater one.
    pub controlling: bool,
}

/// A datagram to send through the WireGuard socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Destination.
    pub remote: SocketAddr,
    /// Source address; `None`: the kernel chooses.
    pub local: Option<IpAddr>,
    /// Payload.
    pub bytes: Vec<u8>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Send this candidate to the peer.
    Candidate {
        /// The peer.
        peer: PublicKey,
        /// That of the session.
        attempt: u32,
        /// Payload of CANDIDATE.
        text: String,
    },
    /// A pair was selected, the first or another one.
    Up {
        /// The peer.
        peer: PublicKey,
        /// That of the session.
        attempt: u32,
        /// Where the peer is reached.
        remote: SocketAddr,
        /// Our address of the pair.
        local: Option<IpAddr>,
    },
    /// The session has ended; nothing more comes of it.
    Down {
        /// The peer.
        peer: PublicKey,
        /// That of the session.
        attempt: u32,
        /// Why.
        reason: DownReason,
    },
    /// Our candidates changed.
    LocalChanged,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DownReason {
    /// No pair was selected within `disconnected` and `failed`.
    Unreachable,
    /// The selected pair had no response for `disconnected`.
    Lost,
    /// Our address of the selected pair vanished.
    AddressGone,
    /// The peer's or our own mapping changed so often that the session's tables are full.
    Exhausted,
    /// The peer's credentials are not usable: empty, too long, or with a colon in the fragment.
    Credentials,
    /// There are too many sessions.
    Limit,
}

/// The selected pair of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairStatus {
    /// How the peer sees us.
    pub local_kind: Kind,
    /// Our address, as the peer sees it.
    pub local: SocketAddr,
    /// How the peer's address became known.
    pub remote_kind: Kind,
    /// The peer's address.
    pub remote: SocketAddr,
    /// The last check's time from request to response.
    pub round_trip: Duration,
}
