//! Namespaces, links, programs and services of a scenario, and the eyes that look at them.

mod addresses;
mod baseline;
mod binaries;
mod capture;
mod client;
mod command;
mod config;
mod counting;
mod errors;
mod flood;
mod forge;
mod gateway;
mod http;
mod iperf;
mod link;
mod metrics;
mod namespace;
mod node;
mod offload;
mod ping;
mod process;
mod queue;
mod relay;
mod topology;
mod traffic;
mod tunnel;
mod udp;
mod wireguard;

pub use addresses::{
    BEHIND, BEHIND6, GATEWAY, GATEWAY6, LAN, LAN6, NODE_LAN, NODE_LAN6, NODE_OVERLAY, NODE_OVERLAY6, OVERLAY, OVERLAY6,
    client_overlay, client_overlay6,
};
pub use baseline::Baseline;
pub use binaries::{Binaries, find_daemon, find_daemon_of_other_layout, find_wireguard_go};
pub use capture::{Capture, Captured};
pub use client::{Client, Outer};
pub use command::{Finished, run};
pub use config::{NodeConfig, PeerEntry, RouteEntry, RuleEntry};
pub use counting::{Behaviour, ForeignProgram, Hook, LegacyFilter};
pub use errors::{IcmpListener, IcmpMessage};
pub use flood::{Flood, flood, random_flows};
pub use forge::{Datagram, announce, forge, forge_bytes};
pub use gateway::{ECHO_PORT, Gateway, HTTP_PORT, IPERF_PORT};
pub use http::{Download, get, pattern_word};
pub use iperf::{Direction, Throughput, iperf};
pub use link::{End, add_address, sysctl, wire};
pub use metrics::{Metrics, Sample};
pub use namespace::Namespace;
pub use node::{Capabilities, Node};
pub use offload::{Offload, set_offload};
pub use ping::{Pings, ping, ping_with};
pub use process::{Cpu, Process};
pub use queue::arrive_twice_at_once;
pub use relay::Relay;
pub use topology::{Lab, Plan};
pub use traffic::{EchoSocket, PATIENCE, patient, wait_for};
pub use tunnel::Tunnel;
pub use udp::{Fragmenting, Udp};
pub use wireguard::{KeyPair, preshared_key};
