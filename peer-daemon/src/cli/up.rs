//! `up`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use peer_common::layout::DEFAULT_FLOWS;
use peer_dataplane::ReadyRoutes;

use super::SocketArgs;
use super::ignored::Ignored;
use super::values::{go_bool, go_duration, port_range};

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Static configuration instead of a NetBird network: a TOML file of interface, peers, routes and rules. A JSON file is
    /// the official client's: its key is adopted.
    #[arg(short, long, value_name = "FILE", env = "NB_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) netbird: NetBirdArgs,
    /// Where to serve /metrics, /livez, /readyz and /startupz; never an address of the mesh.
    #[arg(long, value_name = "ADDR:PORT", env = "NB_HEALTH_ADDR")]
    pub(crate) health_addr: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
    /// Mount point of the BPF file system that keeps programs and maps over restarts.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf", env = "NB_BPFFS")]
    pub(crate) bpffs: PathBuf,
    /// Refuse to run without a BPF file system: programs and flows would end with the process.
    #[arg(long, env = "NB_REQUIRE_PINS")]
    pub(crate) require_pins: bool,
    /// How to attach programs.
    #[arg(long, value_enum, default_value_t = AttachBy::Auto, env = "NB_ATTACH")]
    pub(crate) attach: AttachBy,
    /// Where programs are clsact filters (kernels before 6.6): go ahead although Cilium's filter has the same priority and
    /// may come to stand before ours.
    #[arg(long, env = "NB_ALLOW_UNSAFE_ORDER")]
    pub(crate) allow_unsafe_order: bool,
    /// Flows that fit. Maps left by an earlier run keep their size.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_FLOWS, value_parser = clap::value_parser!(u32).range(64..=16_777_216), env = "NB_MAX_FLOWS")]
    pub(crate) max_flows: u32,
    /// Ports that source NAT may take. Default: the widest range within 11000-29999 in which nobody listens.
    #[arg(long, value_name = "FIRST-LAST", value_parser = port_range, env = "NB_NAT_PORTS")]
    pub(crate) nat_ports: Option<RangeInclusive<u16>>,
    /// Addresses of the uplinks that source NAT uses in place of their first ones: each has all ports. A peer keeps one of them
    /// towards one destination.
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',', env = "NB_NAT_ADDRESSES")]
    pub(crate) nat_addresses: Vec<IpAddr>,
    /// Devices by which NetBird's routes may leave: with one, each route leaves by it; of several the node's own routes choose.
    /// Default: whichever the node's routes name.
    #[arg(long, value_name = "DEVICE,...", value_delimiter = ',', env = "NB_UPLINKS")]
    pub(crate) uplinks: Vec<String>,
    /// How many of its routes a node must serve to be ready: all, any, or a share. One that has routes and serves none never is.
    #[arg(long, value_name = "all|any|PERCENT", default_value_t, env = "NB_READY_ROUTES")]
    pub(crate) ready_routes: ReadyRoutes,
    /// Flows that one peer may have. Default: a quarter of --max-flows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..), env = "NB_PEER_FLOWS")]
    pub(crate) peer_flows: Option<u32>,
    /// Append a line of JSON for each flow that opens or closes and for each dropped packet to this file; -: standard output.
    /// SIGHUP opens it anew.
    #[arg(long, value_name = "PATH", env = "NB_FLOW_LOG")]
    pub(crate) flow_log: Option<PathBuf>,
    /// Flows, and dropped packets, that each CPU may tell of in a second. What is more is counted only.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000), env = "NB_FLOW_LOG_RATE")]
    pub(crate) flow_log_rate: u32,
    /// Tuples of dropped packets to remember for `flows --verdict denied`; 0: none.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(0..=1_000_000), env = "NB_DENIED_FLOWS")]
    pub(crate) denied_flows: u32,
    /// Answer what the policy refuses, a TCP segment by a reset and anything else by ICMP, instead of dropping it in silence.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, env = "NB_REJECT")]
    pub(crate) reject: Option<bool>,
    /// On exit leave device, programs and flows in place: the next start takes them over. Needs pins, as --require-pins does.
    #[arg(long, env = "NB_KEEP_DATAPLANE")]
    pub(crate) keep_dataplane: bool,
    /// On SIGTERM go on forwarding as long as there is traffic, and no longer than this.
    #[arg(long, value_name = "DURATION", default_value = "12s", value_parser = go_duration, env = "NB_DRAIN_TIMEOUT")]
    pub(crate) drain_timeout: Duration,
    /// What to log: error, warn, info, debug, trace, or directives such as info,peer_dataplane=debug.
    #[arg(short, long, value_name = "LEVEL", default_value = "info", env = "NB_LOG_LEVEL")]
    pub(crate) log_level: String,
    /// How to log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "NB_LOG_FORMAT", ignore_case = true)]
    pub(crate) log_format: LogFormat,
    /// Where to log: only to standard error, so anything but "console" is without effect.
    #[arg(long, value_name = "FILE", env = "NB_LOG_FILE", action = ArgAction::Append, value_delimiter = ',', hide = true)]
    pub(crate) log_file: Vec<String>,
    /// Taken for the official client's sake: this one always runs in the foreground.
    #[arg(short = 'F', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, hide = true)]
    pub(crate) foreground_mode: Option<bool>,
    #[command(flatten)]
    pub(crate) ignored: Ignored,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "NetBird")]
pub(crate) struct NetBirdArgs {
    /// The management server. Default: the one of the state directory, else api.netbird.io by HTTPS.
    #[arg(short, long, value_name = "URL", env = "NB_MANAGEMENT_URL")]
    pub(crate) management_url: Option<String>,
    /// Registers the peer where the server does not know it; better in a file or a variable, which others do not see.
    #[arg(short = 'k', long, value_name = "KEY", env = "NB_SETUP_KEY", hide_env_values = true)]
    pub(crate) setup_key: Option<String>,
    /// The same from a file, read whenever it is needed.
    #[arg(long, value_name = "FILE", env = "NB_SETUP_KEY_FILE")]
    pub(crate) setup_key_file: Option<PathBuf>,
    /// A symmetric key that all peers of the network have.
    #[arg(long, value_name = "KEY", env = "NB_PRESHARED_KEY", hide_env_values = true)]
    pub(crate) preshared_key: Option<String>,
    /// Name of the peer. Default: the host's.
    #[arg(short = 'n', long, value_name = "NAME", env = "NB_HOSTNAME")]
    pub(crate) hostname: Option<String>,
    /// Mesh device. Default: wt0.
    #[arg(long, value_name = "DEVICE", env = "NB_INTERFACE_NAME")]
    pub(crate) interface_name: Option<String>,
    /// UDP port of WireGuard; 0: any. Default: 51820, or any where that is in use.
    #[arg(long, value_name = "PORT", env = "NB_WIREGUARD_PORT")]
    pub(crate) wireguard_port: Option<u16>,
    /// MTU of the mesh device. Default: what the server says, else 1280.
    #[arg(long, value_name = "BYTES", env = "NB_MTU", value_parser = clap::value_parser!(u16).range(576..=8192))]
    pub(crate) mtu: Option<u16>,
    /// DNS labels to register beyond the host name's; the setup key must allow them.
    #[arg(long, value_name = "LABELS", env = "NB_EXTRA_DNS_LABELS", value_delimiter = ',')]
    pub(crate) extra_dns_labels: Vec<String>,
    /// PEM file of further certificate authorities that servers may be certified by. May be given several times.
    #[arg(long = "ca-file", value_name = "FILE", env = "NB_CA_FILE", value_delimiter = ',')]
    pub(crate) ca_files: Vec<PathBuf>,
    /// Serve no routes.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, env = "NB_DISABLE_SERVER_ROUTES")]
    pub(crate) disable_server_routes: Option<bool>,
    /// Serve no routes. Rules stay in force, other than with the official client.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, env = "NB_DISABLE_FIREWALL")]
    pub(crate) disable_firewall: Option<bool>,
    /// Let nothing in, neither to the node nor through it.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, env = "NB_BLOCK_INBOUND")]
    pub(crate) block_inbound: Option<bool>,
    /// Let members reach addresses of the node itself by peer rules only: rules of a route that covers them do not open them.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, env = "NB_PROTECT_NODE")]
    pub(crate) protect_node: Option<bool>,
    /// Not to be had yet, and refused rather than ignored.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, env = "NB_BLOCK_LAN_ACCESS", hide = true)]
    pub(crate) block_lan_access: Option<bool>,
    /// Take no overlay address of IPv6.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, env = "NB_DISABLE_IPV6")]
    pub(crate) disable_ipv6: Option<bool>,
    /// Whether idle peers stay unconnected. Default: what the server says.
    #[arg(long, value_name = "on|off", env = "NB_LAZY_CONN", value_parser = lazy)]
    pub(crate) lazy_connections: Option<bool>,
    /// Connect through relays only: neither offer nor take direct paths.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, env = "NB_FORCE_RELAY")]
    pub(crate) force_relay: Option<bool>,
    /// Direct paths through TURN servers only, which are not supported yet: as --force-relay.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool, env = "NB_ICE_FORCE_RELAY_CONN")]
    pub(crate) force_turn: Option<bool>,
    /// Devices whose addresses peers may connect to. Default: those by which routes lead to the internet or to the servers.
    #[arg(long, value_name = "DEVICE,...", value_delimiter = ',', env = "NB_ICE_INTERFACES")]
    pub(crate) ice_interfaces: Vec<String>,
    /// Devices whose addresses peers must not connect to, by the beginnings of their names.
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',', env = "NB_EXTRA_IFACE_BLACKLIST")]
    pub(crate) extra_iface_blacklist: Vec<String>,
    /// Public addresses that lead to this node, through a NAT that forwards the WireGuard port: PUBLIC, or PUBLIC/LOCAL for an
    /// address of the node or a device.
    #[arg(long, value_name = "PUBLIC[/LOCAL],...", value_delimiter = ',', env = "NB_EXTERNAL_IP_MAP")]
    pub(crate) external_ip_map: Vec<String>,
    /// Seconds between checks of a direct path.
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=60), env = "NB_ICE_KEEP_ALIVE_INTERVAL_SEC")]
    pub(crate) ice_keep_alive_interval: u16,
    /// Seconds without an answer after which a direct path is not used any more.
    #[arg(long, value_name = "SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u16).range(2..=300), env = "NB_ICE_DISCONNECTED_TIMEOUT_SEC")]
    pub(crate) ice_disconnected_timeout: u16,
    /// Seconds after that until it is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=300), env = "NB_ICE_FAILED_TIMEOUT_SEC")]
    pub(crate) ice_failed_timeout: u16,
    /// After how long without data a peer counts as idle.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = inactivity, env = "NB_LAZY_CONN_INACTIVITY_THRESHOLD")]
    pub(crate) lazy_inactivity: Duration,
    /// Whether to delete the peer from its network on exit. auto: if its state is in memory and a setup key registered it.
    #[arg(long, value_enum, default_value_t = EphemeralChoice::Auto, env = "NB_EPHEMERAL")]
    pub(crate) ephemeral: EphemeralChoice,
    /// A kept network map that is older is not used at a start without the server.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = go_duration, env = "NB_MAX_STALE_MAP")]
    pub(crate) max_stale_map: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum AttachBy {
    /// TCX where the kernel has it, else clsact filters.
    Auto,
    /// TCX links.
    Tcx,
    /// clsact filters.
    Clsact,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line of text per event.
    Text,
    /// A JSON object per event.
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum EphemeralChoice {
    /// By where the state is.
    Auto,
    /// Delete it.
    Yes,
    /// Leave it.
    No,
}

/// `on`, `off`, or a truth value.
fn lazy(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        other => go_bool(other).map_err(|_| "write on or off".to_owned()),
    }
}

fn inactivity(text: &str) -> Result<Duration, String> {
    let duration = go_duration(text)?;
    if duration < Duration::from_secs(60) {
        Err("one minute is the least: write 1m or more".to_owned())
    } else {
        Ok(duration)
    }
}
