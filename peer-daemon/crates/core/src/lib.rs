//! Sans-IO core of *peer*: no socket, clock, file or thread in here; time is an argument.
//!
//! - [`desired`]: what a control plane wants: interface, peers, routes, rules;
//! - [`diff`]: what differs between two long lists;
//! - [`policy`]: the reference evaluator, oracle of every dataplane;
//! - [`batch`]: packets and datagrams as the rest passes them on;
//! - [`path`]: how a peer is reached;
//! - [`shard`]: the contract between an engine and its thread;
//! - [`key`]: keys that do not leak;
//! - [`reach`]: servers that cannot be reached, and what the log says of them;
//! - [`readiness`]: latches behind `/readyz`.
#![forbid(unsafe_code)]

pub mod batch;
pub mod desired;
pub mod diff;
pub mod filter;
pub mod key;
pub mod net;
pub mod path;
pub mod policy;
pub mod reach;
pub mod readiness;
pub mod shard;
