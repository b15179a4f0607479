//! WireGuard engine without sockets, files or threads: sessions, index table, timers, allowed IPs, roaming.
//!
//! [`Engine`] implements [`peer_core::shard::Engine`]: datagrams and packets go in and out by batches, time and
//! randomness are arguments. The Noise core is boringtun's; it is hidden in one module, and its clock is set in another.
//!
//! What the engine adds to the core:
//! - random session indexes whose low bits name the shard (bits 8 and up of the index on the wire; the low byte is the
//!   session counter), so that a datagram can be steered by its receiver index;
//! - tunnels made at first need, timers only for peers that have something running;
//! - budgets for handshake messages in the order of their cost, cookies that last, a token bucket per proven source;
//! - cryptokey routing both ways: longest prefix, exact owner; roaming by authenticated messages other than cookie
//!   replies;
//! - padding, jittered repetitions, keepalives that can be changed, an answer to stale initiations;
//! - order among fragments: what comes before the first one waits for it;
//! - bounds, a gauge and a drop counter for every table and queue.
//!
//! The core logs the ordinary end of a session as an error; give the log filter [`LOG_DIRECTIVE`].
#![forbid(unsafe_code)]

mod admission;
mod allowed;
mod buckets;
mod budget;
mod context;
mod cookies;
mod core_clock;
mod deadlines;
mod engine;
mod error;
mod event;
mod fragments;
mod index;
mod inner;
mod known;
mod limits;
mod message;
pub mod metrics;
mod outbox;
mod peer;
mod screen;
pub mod stats;
mod summary;
pub mod traffic;
mod tunnel;

pub use engine::{Engine, EngineConfig, PeerError, PeersChanged, Roaming};
pub use error::{DatagramError, PacketError};
pub use event::Event;
pub use limits::MAX_PEERS;
pub use peer::PeerStatus;
pub use stats::EngineStats;

/// Directive for a log filter: what the core reports as errors are ordinary ends of sessions, which we report as
/// events.
pub const LOG_DIRECTIVE: &str = "boringtun=off";
