//! Interactive Connectivity Establishment (RFC 8445) with NetBird peers. Sans-IO: time and randomness are arguments.
//!
//! [`Ice`] holds the sessions with all peers and shares one UDP socket with WireGuard:
//!
//! - in: [`Ice::set_local`], [`Ice::set_stun_servers`], [`Ice::set_forbidden`] (our side), [`Ice::open`], [`Ice::close`],
//!   [`Ice::add_remote_candidate`] (signalling), [`Ice::handle_datagram`], [`Ice::handle_timeout`];
//! - out: [`Ice::poll_event`], [`Ice::poll_transmit`], [`Ice::poll_timeout`].
//!
//! Drain events and datagrams after every input.
//!
//! A session ends with [`Event::Down`] or [`Ice::close`]. It does not come back: a new attempt needs a new session, for which the
//! peers exchange offers. Checks and nomination are the work of the crate `is`; this one adds what `is` leaves open:
//!
//! - a selected pair is alive as long as it answers, and only that pair is checked once others had their time;
//! - a response counts only from where the request went, and once;
//! - every table and rate is bounded.
#![forbid(unsafe_code)]

pub mod candidate;
pub mod metrics;
pub mod stats;

mod address;
mod agent;
mod budget;
mod credentials;
mod early;
mod gather;
mod hmac;
mod ice;
mod limits;
mod shared;
mod stun;
mod transactions;
mod types;

pub use credentials::Credentials;
pub use ice::Ice;
pub use types::{DownReason, Event, ExternalIp, PairStatus, Session, Settings, Transmit};
