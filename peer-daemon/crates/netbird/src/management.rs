//! Management: who we are to the account, and the stream of network maps.
//!
//! [`Client`] makes single calls; [`Session`] decides, without I/O, which call comes when; [`spawn`] starts the task that
//! does what the session says and yields [`Event`]s.

mod client;
mod decode;
mod error;
mod fields;
mod metrics;
mod session;
mod setup_key;
mod task;

pub use client::{Client, DEFAULT_MAX_MESSAGE, MapStream, Options};
pub use decode::{MAX_ENTRIES, SyncMessage, decode_login};
pub use error::{Class, Error};
pub use fields::{Field, Value, fields};
pub use metrics::ManagementStats;
pub use session::{Action, Event, Input, Session};
pub use setup_key::{ParseSetupKeyError, SetupKey};
pub use task::{Handle, Management, Node, spawn};

#[cfg(test)]
mod tests;
