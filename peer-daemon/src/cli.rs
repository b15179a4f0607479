//! The command line. Environment variables are those of the official client where it has one.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use peer_common::layout::DEFAULT_FLOWS;
use peer_dataplane::flows::KINDS;

use crate::{flows, trace};

/// Configuration that cannot be used (`EX_CONFIG` of sysexits.h).
pub(crate) const EXIT_CONFIG: u8 = 78;

/// eBPF-accelerated, NetBird-compatible WireGuard routing peer.
#[derive(Debug, Parser)]
#[command(name = "peer-daemon", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the peer in the foreground until SIGTERM or SIGINT.
    Up(UpArgs),
    /// Show what a running peer is doing.
    Status(StatusArgs),
    /// Show the flows that the dataplane holds now, the most recently active first; or what it dropped lately.
    Flows(FlowsArgs),
    /// Show what becomes of a packet, stage by stage, and by which rule: of one that you describe (nothing is sent), or with
    /// --live of those that pass. Exit code of a described packet: 0: it passes; 1: it is dropped; 2: that cannot be said.
    Trace(TraceArgs),
    /// Name what stands in the way on this node, with its owner and the remedy. Exit code 0: nothing is wrong; 1: something
    /// is; 2: something could not be looked at; 78: the configuration cannot be used.
    Doctor(DoctorArgs),
    /// Print a new private key.
    Genkey,
    /// Read a private key from standard input and print its public key.
    Pubkey,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Static configuration: a TOML file of interface, peers, routes and rules.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Where to serve /metrics, /livez, /readyz and /startupz; never an address of the mesh.
    #[arg(long, value_name = "ADDR:PORT", env = "NB_HEALTH_ADDR")]
    pub(crate) health_addr: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
    /// Mount point of the BPF file system that keeps programs and maps over restarts.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf", env = "NB_BPFFS")]
    pub(crate) bpffs: PathBuf,
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
    /// Ports that source NAT may take.
    #[arg(long, value_name = "FIRST-LAST", default_value = "20480-29999", value_parser = port_range, env = "NB_NAT_PORTS")]
    pub(crate) nat_ports: RangeInclusive<u16>,
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
    /// On exit leave device, programs and flows in place: the next start takes them over.
    #[arg(long, env = "NB_KEEP_DATAPLANE")]
    pub(crate) keep_dataplane: bool,
    /// What to log: error, warn, info, debug, trace, or directives such as info,peer_dataplane=debug.
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "NB_LOG_LEVEL")]
    pub(crate) log_level: String,
    /// How to log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "NB_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Args)]
pub(crate) struct SocketArgs {
    /// Control socket. Default: /var/run/netbird.sock, or netbird.sock in the state directory where that is not writable.
    #[arg(long, value_name = "PATH", env = "NB_CONTROL_SOCKET")]
    pub(crate) control_socket: Option<PathBuf>,
    /// Where state is kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/netbird", env = "NB_STATE_DIR")]
    pub(crate) state_dir: PathBuf,
}

impl SocketArgs {
    /// Where the control socket may be, in the order of preference.
    pub(crate) fn candidates(&self) -> Vec<PathBuf> {
        match &self.control_socket {
            Some(path) => vec![path.clone()],
            None => vec![PathBuf::from("/var/run/netbird.sock"), self.state_dir.join("netbird.sock")],
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

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
    /// Mount point of the BPF file system.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf", env = "NB_BPFFS")]
    pub(crate) bpffs: PathBuf,
    /// Ports that source NAT may take.
    #[arg(long, value_name = "FIRST-LAST", default_value = "20480-29999", value_parser = port_range, env = "NB_NAT_PORTS")]
    pub(crate) nat_ports: RangeInclusive<u16>,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
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

fn address_text(text: &str) -> Result<String, String> {
    flows::check_address(text).map(|_| text.to_owned())
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let fix = || "write FIRST-LAST, such as 20480-29999".to_owned();
    let (first, last) = text.split_once('-').ok_or_else(fix)?;
    let first: u16 = first.trim().parse().map_err(|_| fix())?;
    let last: u16 = last.trim().parse().map_err(|_| fix())?;
    if first < 1024 {
        return Err(format!("{first} is a port of services: start at 1024 or above"));
    }
    if last < first || last - first < 15 {
        return Err("16 ports are the least".to_owned());
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn port_ranges_name_the_fix() {
        assert_eq!(port_range("20480-29999"), Ok(peer_dataplane::DEFAULT_NAT_PORTS), "the default");
        for (text, fix) in [
            ("80", "FIRST-LAST"),
            ("1-70000", "FIRST-LAST"),
            ("80-90", "1024"),
            ("2000-2003", "16 ports"),
            ("3000-2000", "16 ports"),
        ] {
            let error = port_range(text).expect_err(text);
            assert!(error.contains(fix), "{text}: {error}");
        }
    }

    #[test]
    fn filters_of_flows_name_the_fix() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["peer-daemon", "flows"], args].concat());
        assert!(parse(&["--peer", "100.64.0.0/24", "--port", "80", "--kind", "routed", "--protocol", "icmp"]).is_ok());
        for (args, fix) in [
            (["--peer", "10.0.0"], "public key"),
            (["--address", "10.0.0.0/40"], "10.1.2.0/24"),
            (["--port", "0"], "1..=65535"),
            (["--protocol", "sctp"], "tcp, udp, icmp"),
            (["--kind", "nat"], "masqueraded, routed, to_node, from_node, from_lan"),
            (["--limit", "10001"], "1..=10000"),
        ] {
            let error = parse(&args).expect_err(args[1]).to_string();
            assert!(args.iter().all(|arg| error.contains(arg)) && error.contains(fix), "{error}");
        }
    }

    #[test]
    fn the_socket_is_looked_for_in_both_places() {
        let args = |socket: Option<&str>| SocketArgs { control_socket: socket.map(Into::into), state_dir: "/s".into() };
        assert_eq!(args(Some("/x")).candidates(), [PathBuf::from("/x")]);
        assert_eq!(args(None).candidates(), [PathBuf::from("/var/run/netbird.sock"), PathBuf::from("/s/netbird.sock")]);
    }
}
