//! Namespaces, links, programs and services of a scenario, and the eyes that look at them.

mod addresses;
mod baseline;
mod binaries;
mod client;
mod command;
mod config;
mod counting;
mod flood;
mod forge;
mod gateway;
mod http;
mod iperf;
mod link;
mod metrics;
mod namespace;
mod node;
mod ping;
mod process;
mod relay;
mod topology;
mod traffic;
mod wireguard;

pub use addresses::{
    BEHIND, BEHIND6, GATEWAY, GATEWAY6, LAN, LAN6, NODE_LAN, NODE_LAN6, NODE_OVERLAY, NODE_OVERLAY6, OVERLAY, OVERLAY6,
    client_overlay, client_overlay6,
};
pub use baseline::Baseline;
pub use binaries::{Binaries, find_daemon, find_wireguard_go};
pub use client::{Client, Outer};
pub use command::{Finished, run};
pub use config::{NodeConfig, PeerEntry, RouteEntry, RuleEntry};
pub use counting::ForeignProgram;
pub use flood::{Flood, flood};
pub use forge::{Datagram, forge};
pub use gateway::{ECHO_PORT, Gateway, HTTP_PORT, IPERF_PORT};
pub use http::{Download, get, pattern_word};
pub use iperf::{Direction, Throughput, iperf};
pub use metrics::{Metrics, Sample};
pub use namespace::Namespace;
pub use node::{Capabilities, Node};
pub use ping::{Pings, ping};
pub use process::{Cpu, Process};
pub use relay::Relay;
pub use topology::{Lab, Plan};
pub use traffic::{EchoSocket, wait_for};
pub use wireguard::{KeyPair, preshared_key};
