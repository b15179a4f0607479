//! Client of NetBird's relay servers.
//!
//! [`Relays`] keeps a connection to the home relay and opens others as peers need them; what it is told and what it says
//! is in terms of peers and ways to them. A way is a [`peer_core::path::Path`]: its datagrams go between the shard and the
//! relay's connection directly ([`peer_io::relay`]), many at once.
//!
//! * [`peer_id`], [`token`], [`url`] and [`message`] are the protocol's values;
//! * `websocket` is RFC 6455 as far as a client of one binary message type needs it;
//! * `session` is one connection's state, `manager` that of all: without sockets or clocks;
//! * `connection` and `task` drive them.
#![forbid(unsafe_code)]

mod connection;
mod early;
mod error;
mod framer;
mod manager;
pub mod message;
mod metrics;
pub mod peer_id;
mod session;
mod stats;
mod task;
pub mod token;
pub mod url;
mod websocket;

pub use manager::{Event, HomeRelay, RelayStatus};
pub use metrics::RelayMetrics;
pub use peer_id::PeerId;
pub use stats::RelayStats;
pub use task::{Config, Relays};
pub use token::Token;
pub use url::RelayUrl;
