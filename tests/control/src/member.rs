//! A member of the mesh that is neither the daemon nor an official client: it registers, signals, and carries the packets
//! of a `WireGuard` that is not ours through the relay.

mod agent;
mod link;
mod management;
mod relay;
mod signal;

pub use agent::{Agent, Device, Habits, Heard, Membership, PeerSettings};
pub use management::{Management, Syncs, meta};
pub use relay::{Relay, RelayReceiver, RelaySender};
pub use signal::{Signal, SignalReceiver};

use std::time::Duration;

/// Time for anything on one machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
