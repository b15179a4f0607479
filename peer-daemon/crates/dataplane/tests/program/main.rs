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

mod drops;
mod node;
mod policy;
mod property;
mod translate;

pub(crate) use bench::{Bench, REDIRECT, SHOT, UNSPEC};
