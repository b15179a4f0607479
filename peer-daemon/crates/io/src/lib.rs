//! Packet I/O: the mesh device, UDP sockets, and the shard threads that move batches between them.
//!
//! * [`wt0`] makes or adopts the persistent TUN and gives it addresses and routes.
//! * [`tun`] reads and writes it: super-packets of up to 64 KiB outside, batches of packets inside.
//! * [`udp`] sends with GSO and receives with GRO.
//! * [`stun`] hands STUN datagrams of the same port to the control side.
//! * [`relay`] lets relay connections take part beside the sockets.
//! * [`clock`] is the shards' time, which counts while the machine sleeps.
//! * [`shard`] is the thread that owns one TUN queue, its sockets and one engine.
//!
//! What degrades, and how: an old kernel without UDP segmentation on TUNs gets single datagrams; a refused super-packet
//! (EINVAL, EIO) ends that offload for the queue or the socket; a host without IPv6 gets an IPv4 socket only; small limits
//! on socket buffers are kept to. All of it shows in [`stats::ShardStats`].

mod checksum;
pub mod clock;
mod error;
mod metrics;
pub mod relay;
pub mod shard;
pub mod stats;
pub mod stun;
mod sys;
pub mod tun;
pub mod udp;
pub mod wt0;

pub use error::Error;
pub use metrics::IoMetrics;
pub use relay::{RelayConnection, RelayPort};
pub use shard::{Shard, ShardConfig, StopReason, Stopped, spawn};
pub use stats::{IoDrop, ShardStats};
pub use stun::{KnownSources, StunDatagram, StunReceiver};
pub use tun::{Offloads, TunQueue};
pub use udp::{DatagramTx, Sockets};
pub use wt0::{Wt0, Wt0Config};
