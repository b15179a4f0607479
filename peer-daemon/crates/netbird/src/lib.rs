//! NetBird's control plane, the client's side: everything is keyed by the WireGuard key.
//!
//! - [`management`]: login, registration, the stream of network maps;
//! - [`signal`]: offers, answers and candidates between peers;
//! - [`meta`]: what the server wants to know about this system;
//! - [`call`], [`stream`]: what both services have in common;
//! - [`sealed`]: the NaCl box around every message;
//! - [`proto`]: wire messages;
//! - [`dial`], [`server`]: how and where to connect;
//! - [`backoff`]: when to try again.
//!
//! State machines are sans-IO (time and randomness are arguments); each service has one task around them, which yields
//! typed events. Whatever a server sends ends in a value or in an error, never in a panic.

pub mod backoff;
pub mod call;
mod channel;
mod clock;
pub mod dial;
pub mod management;
pub mod meta;
pub mod proto;
pub mod sealed;
pub mod server;
pub mod signal;
pub mod stream;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod testdata;
mod text;
