//! What becomes of a packet, stage by stage: of one that somebody describes, and of those that somebody follows.

mod packet;

pub use self::packet::{MAX_LEN, Packet};
