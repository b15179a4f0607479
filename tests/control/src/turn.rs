//! A TURN server over UDP (RFC 8656) with the time-limited users that management hands out.
//!
//! It behaves as the servers that deployments run: long-term credentials by MD5 and SHA-1, no password algorithms and
//! no anonymous users, so a client meets what it meets in practice. Scenarios can expire its nonces, forget its
//! allocations and change its secret.
//!
//! - [`credentials`]: user names and passwords;
//! - [`protocol`]: the state, without sockets and clock;
//! - [`TurnServer`]: the sockets.

pub mod credentials;
pub mod protocol;
mod server;

pub use credentials::Credentials;
pub use protocol::{Lifetimes, Seen};
pub use server::TurnServer;
