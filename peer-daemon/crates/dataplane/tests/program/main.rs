//! The eBPF programs themselves, run by `BPF_PROG_TEST_RUN` on packets made here: verdicts, bytes, checksums, counters.
//!
//! Needs CAP_BPF and CAP_NET_ADMIN (root) and the object: `cargo xtask test` sees to both.

mod bench;
mod capabilities;
mod lab;
mod packet;
mod reference;
mod sys;
mod wire;
mod wires;

mod drops;
mod events;
mod fragments;
mod healing;
mod icmp;
mod listeners;
mod log;
mod mss;
mod next_hops;
mod node;
mod offload;
mod own_errors;
mod policy;
mod property;
mod quota;
mod resets;
mod reuse;
mod sockets;
mod sources;
mod tcp_state;
mod translate;

pub(crate) use bench::{Bench, REDIRECT, SHOT, UNSPEC};
