//! What the official client has no words for: how this node carries what it serves. Fields are only ever added.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::doctor::Finding;

/// Everything about this node.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    /// Version of the daemon.
    pub(crate) version: String,
    /// Who says what it serves.
    pub(crate) control: Control,
    /// Seconds since it started.
    pub(crate) uptime_seconds: u64,
    /// Whether packets can flow.
    pub(crate) ready: bool,
    /// What readiness is made of.
    pub(crate) parts: Vec<Part>,
    /// Absent until it is known what the node shall be.
    pub(crate) interface: Option<Interface>,
    /// As [`Self::interface`].
    pub(crate) dataplane: Option<Dataplane>,
    /// The BPF file system that keeps its programs and tables.
    #[serde(default)]
    pub(crate) bpffs: Option<PathBuf>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) routes: Vec<Route>,
    /// What the network wants of this node and it cannot do.
    #[serde(default)]
    pub(crate) unsupported: Vec<String>,
    /// The map in force, where there is one.
    #[serde(default)]
    pub(crate) map: Option<Map>,
    /// Measures that confine the process, and whether the kernel holds it to them.
    #[serde(default)]
    pub(crate) hardening: BTreeMap<String, bool>,
}

/// Who says what a node serves.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Control {
    /// A file.
    Static,
    /// A NetBird network.
    NetBird,
}

/// The network map in force.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Map {
    pub(crate) serial: u64,
    /// Seconds since it was received.
    pub(crate) age_seconds: u64,
    /// It was kept by an earlier run, and the server has not yet said anything.
    pub(crate) kept: bool,
    /// Why a newer one is not in force, if so.
    pub(crate) refused: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) ready: bool,
    /// Why not.
    pub(crate) reason: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) mtu: u16,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) listen_port: u16,
    pub(crate) public_key: String,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Dataplane {
    pub(crate) mode: String,
    /// Why this mode.
    pub(crate) why: String,
    /// Without CAP_PERFMON.
    pub(crate) hardened: bool,
    pub(crate) policy: Policy,
    pub(crate) flows: Flows,
    /// Memory of all maps.
    pub(crate) map_bytes: u64,
    pub(crate) programs: Vec<Attachment>,
    /// Packets by path.
    pub(crate) packets: BTreeMap<String, u64>,
    /// By reason; reasons that never occurred are left out.
    pub(crate) drops: BTreeMap<String, Count>,
    /// What stands in the way, as `doctor` tells it.
    #[serde(default)]
    pub(crate) findings: Vec<Finding>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Policy {
    pub(crate) generation: u32,
    pub(crate) entries: u32,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Flows {
    pub(crate) used: u64,
    pub(crate) max: u64,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Attachment {
    pub(crate) program: String,
    pub(crate) device: String,
    /// Place in the chain, 0 is first; absent: not attached.
    pub(crate) position: Option<usize>,
    /// Programs in the chain.
    pub(crate) chain: usize,
    /// Whose programs run before it.
    #[serde(default)]
    pub(crate) ahead: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Count {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Peer {
    pub(crate) public_key: String,
    /// Whether it has a session.
    pub(crate) connected: bool,
    pub(crate) endpoint: Option<SocketAddr>,
    /// Seconds since the last handshake.
    pub(crate) last_handshake_seconds: Option<u64>,
    pub(crate) received: Count,
    pub(crate) sent: Count,
    pub(crate) allowed_ips: Vec<IpNet>,
    /// Seconds.
    pub(crate) persistent_keepalive: Option<u16>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Route {
    pub(crate) destination: IpNet,
    pub(crate) masquerade: bool,
    /// Devices that carry it now.
    pub(crate) uplinks: Vec<String>,
    /// The device by which the kernel forwards it, where no uplink carries it.
    #[serde(default)]
    pub(crate) by_kernel: Option<String>,
    /// Why it is not served, if so.
    pub(crate) unserved: Option<String>,
    /// Mesh → LAN.
    pub(crate) forwarded_out: Count,
    /// LAN → mesh.
    pub(crate) forwarded_in: Count,
}
