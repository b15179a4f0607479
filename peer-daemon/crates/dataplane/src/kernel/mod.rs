//! What the node's kernel says: links, addresses, and where its routes lead.

mod change;
mod netlink;
mod snapshot;
mod ways;

pub use change::{Change, Changes, Hardware, Neighbour, Ways};
pub use netlink::{Netlink, changes};
pub use snapshot::{Address, DeviceCount, FibRoute, Link, Origin, Questions, Snapshot, Way};
