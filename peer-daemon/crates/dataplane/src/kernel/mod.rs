//! What the node's kernel says: links, addresses, and where its routes lead.

mod netlink;
mod snapshot;

pub use netlink::{Netlink, changes};
pub use snapshot::{Address, Link, Snapshot};
