//! The lab: a mesh member, a node and a LAN service, each in a network namespace of its own, with real programs in them;
//! the demo and the scenarios run in it.
//!
//! ```text
//! client (wireguard-go) ──underlay──▶ node (peer-daemon): wt0 ──eBPF──▶ eth0 ──LAN──▶ gateway (HTTP, echo, iperf3)
//! ```
//!
//! Namespaces and mounts are anonymous: they have no name anywhere and are held by descriptors of this process, and
//! every process started here dies with the thread that started it. So nothing is left behind, whichever way it ends.

pub mod demo;
pub mod guest;
pub mod lab;
pub mod manifests;
pub mod monitoring;
pub mod picture;
pub mod suite;
mod sys;
