//! What strangers, servers and peers may send, datagram by datagram.

mod bench;
mod bounds;
mod candidates;
mod checks;
mod scale;
mod servers;
