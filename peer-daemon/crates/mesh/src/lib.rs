//! Connections to the peers of a NetBird mesh: when to offer, where to meet, which path to take. Sans-IO: time and
//! randomness are arguments.
//!
//! [`Mesh`] holds one state machine for each peer of the map and multiplexes them:
//!
//! - in: [`Mesh::set_peers`], [`Mesh::set_home_relay`], [`Mesh::set_signal`], [`Mesh::handle`] (messages, paths,
//!   handshakes, traffic), [`Mesh::handle_timeout`];
//! - out: [`Mesh::poll_action`], [`Mesh::poll_timeout`].
//!
//! Drain the actions after every input, and carry them out in their order.
#![forbid(unsafe_code)]

pub mod message;
pub mod metrics;
pub mod version;

mod conn;
mod guard;
mod mesh;
mod types;

pub use mesh::{Mesh, Remote, Settings};
pub use types::{Action, Input, PathKind, State, Status};
