//! What stands in the way of packets: each conflict with its owner and the remedy.

mod finding;

pub use self::finding::{Check, Finding, Severity};
