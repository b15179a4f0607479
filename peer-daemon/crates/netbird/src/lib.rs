//! NetBird's control plane, the client's side.
//!
//! - [`proto`]: wire messages;
#![forbid(unsafe_code)]

pub mod proto;
