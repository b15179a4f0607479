//! Network maps of a NetBird management service, sans-IO.
//!
//! - [`model`]: what a message says, typed; made `From` the wire messages, which tolerates whatever they hold;
//! - [`read`]: the same from a message's bytes, and only what the message before did not say;
//! - [`session`]: what a message means after those before it: partial configuration, serials, own addresses;
//! - [`compile`]: from a map to the parts of [`peer_core::desired::Desired`];
//! - [`ids`]: numbers for the policies that rules come from.
#![forbid(unsafe_code)]

pub mod compile;
pub mod ids;
pub mod model;
pub mod read;
pub mod session;

mod wire;
