//! A small `NetBird` control plane for tests and the demo: management, signal and relay on one TCP port, STUN and TURN
//! over UDP, and a member.
//!
//! It speaks what real servers of versions 0.66 to 0.77 speak to a peer, as observed on the wire, and misbehaves on
//! demand. Nothing here is shared with the daemon: its messages, sealing and frames are written a second time, so
//! that a misreading on one side shows. Real clients are run against it, too.
//!
//! - [`account`]: peers, groups, policies, networks and routes, and what may be changed;
//! - [`map`]: what one peer is told of an account;
//! - [`server`]: the port, with [`management`], [`signal`] and [`relay`] behind it;
//! - [`stun`] and [`turn`]: servers on their own sockets, which management hands out;
//! - [`member`]: the other side, for a member that is no official client.
#![forbid(unsafe_code)]

pub mod account;
pub mod keys;
pub mod management;
pub mod map;
pub mod member;
pub mod proto;
pub mod relay;
pub mod sealed;
pub mod server;
pub mod signal;
mod state;
pub mod stun;
pub mod turn;

pub use account::Account;
pub use keys::KeyPair;
pub use server::{Options, Server, Turns};
pub use stun::StunServer;
pub use turn::TurnServer;
