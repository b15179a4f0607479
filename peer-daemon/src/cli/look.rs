//! Commands that ask a running peer, or look at the node.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::Args;
use peer_dataplane::flows::KINDS;

use super::SocketArgs;
use super::values::port_range;
use crate::{flows, trace};

#[derive(Debug, Args)]
pub(crate) struct FlowsArgs {
    /// Flows of this peer: a public key, its first characters, or an overlay address or prefix.
    #[arg(long, value_name = "KEY|ADDRESS", value_parser = flows::check_key_or_address)]
    pub(crate) peer: Option<String>,
    /// Flows with one end at this address or in this prefix.
    #[arg(long, value_name = "ADDRESS", value_parser = address_text)]
    pub(crate) address: Option<String>,
    /// Flows with this port at either end or after NAT.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Flows of this protocol.
    #[arg(long, value_name = "PROTOCOL", value_parser = flows::PROTOCOLS.map(|(name, _)| name))]
    pub(crate) protocol: Option<String>,
    /// Flows of this kind.
    #[arg(long, value_name = "KIND", value_parser = KINDS.map(|(name, _)| name))]
    pub(crate) kind: Option<String>,
    /// allowed: the flows; denied: tuples of which packets were dropped in the last ten minutes, with the reason; any: both.
    #[arg(long, value_name = "VERDICT", default_value = "allowed", value_parser = flows::VERDICTS.map(|(name, _)| name))]
    pub(crate) verdict: String,
    /// Show so many.
    #[arg(long, value_name = "N", default_value_t = flows::DEFAULT_LIMIT as u32, value_parser = clap::value_parser!(u32).range(1..=flows::MAX_LIMIT as i64))]
    pub(crate) limit: u32,
    /// As JSON: one object per line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Look every second until Ctrl-C: rates, and which flows open (+) and close (-).
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// Who sends: a peer by its public key or the first characters of it, or an address. With --live: the end in the mesh,
    /// also as a prefix.
    #[arg(long, value_name = "PEER|ADDRESS", value_parser = flows::check_key_or_address, required_unless_present = "live")]
    pub(crate) from: Option<String>,
    /// Whom it is for. With --live: the other end, also as a prefix.
    #[arg(long, value_name = "ADDRESS", value_parser = address_text, required_unless_present = "live")]
    pub(crate) to: Option<String>,
    /// tcp, udp, icmp (an echo request), or of a described packet the number of any other.
    #[arg(long, visible_alias = "protocol", value_name = "PROTOCOL", value_parser = trace::check_protocol)]
    pub(crate) proto: Option<String>,
    /// Port that it is for.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Port that it comes from; of an echo request its identifier. Default of a described packet: 40000.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) sport: Option<u16>,
    /// TTL or hop limit of the described packet. Default: 64.
    #[arg(long, value_name = "N", conflicts_with = "live")]
    pub(crate) ttl: Option<u8>,
    /// Bytes of the described packet, from its IP header. Default: as small as it can be.
    #[arg(long, value_name = "BYTES", conflicts_with = "live", value_parser = clap::value_parser!(u16).range(..=i64::from(peer_dataplane::trace::MAX_LEN)))]
    pub(crate) size: Option<u16>,
    /// Follow packets that pass, both ways, until the time is over or Ctrl-C.
    #[arg(long)]
    pub(crate) live: bool,
    /// Follow for so long.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=trace::MAX_SECONDS as i64), requires = "live")]
    pub(crate) seconds: u16,
    /// As JSON: one object per packet and line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The configuration of the peer: then its routes and its port are looked at, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The mesh device. Default: that of the configuration, else that of the running peer, else wt0.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) interface: Option<String>,
    /// Look at this uplink as well. May be given several times.
    #[arg(long = "uplink", value_name = "DEVICE")]
    pub(crate) uplinks: Vec<String>,
    /// Mount point of the BPF file system. Default: that of the running peer, else /sys/fs/bpf.
    #[arg(long, value_name = "DIR", env = "NB_BPFFS")]
    pub(crate) bpffs: Option<PathBuf>,
    /// Ports that source NAT may take. Default: as `up` chooses them.
    #[arg(long, value_name = "FIRST-LAST", value_parser = port_range, env = "NB_NAT_PORTS")]
    pub(crate) nat_ports: Option<RangeInclusive<u16>>,
    /// Addresses that source NAT is to use.
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', env = "NB_NAT_ADDRESSES")]
    pub(crate) nat_addresses: Vec<std::net::IpAddr>,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

fn address_text(text: &str) -> Result<String, String> {
    flows::check_address(text).map(|_| text.to_owned())
}
