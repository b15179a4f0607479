//! Layouts shared by the eBPF programs and the daemon.
//!
//! Everything here is `no_std`, `repr(C)`, without implicit padding, and has its size asserted: the two sides are
//! compiled by different compilers and meet only in map memory. A change of any layout is a change of [`layout::ABI`].
#![no_std]
#![cfg_attr(not(feature = "user"), forbid(unsafe_code))]

pub mod addr;
pub mod bench;
pub mod config;
pub mod counters;
pub mod drop_reason;
pub mod event;
pub mod flow;
pub mod fragment;
pub mod hash;
pub mod layout;
pub mod next_hop;
pub mod policy;
pub mod ports;
pub mod reuse;
pub mod route;
#[cfg(feature = "user")]
mod sys;

pub use addr::Addr;
pub use bench::BenchPlan;
pub use config::Config;
pub use counters::{Counter, Direction, PacketCount};
pub use drop_reason::DropReason;
pub use event::{EventKind, FlowEvent, Judged, Observe, TraceFilter, Way};
pub use flow::{Flow, FlowKey, FlowKind, Mapping, TcpSeen, TcpWindow};
pub use fragment::{Fragment, FragmentKey};
pub use next_hop::{NextHop, NextHopKey};
pub use policy::{Answer, CellKey, CellKind, CellValue, RuleAction, RuleScope};
pub use route::{ChosenKey, LocalAddr, LocalKind, Peer, Route, Uplink};
