//! What becomes of a packet, stage by stage: of one that somebody describes, and of those that somebody follows.
//!
//! The programs tell what they have found ([`peer_common::FlowEvent`]); [`explain()`] says what a drop means, [`RuleText`] which
//! rule was asked.

mod explain;
mod packet;
mod rule;

pub use self::explain::{Explanation, Stage, explain, remedy};
pub use self::packet::{MAX_LEN, Packet};
pub use self::rule::RuleText;
