//! `status`, `networks`, `routes`.

use std::net::IpAddr;

use clap::{ArgAction, Args, Subcommand, ValueEnum};

use super::SocketArgs;
use crate::status::{ConnectionType, Filter, PeerState};

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Peers and events, one by one, and how the node carries what it serves.
    #[arg(short, long)]
    pub(crate) detail: bool,
    /// As JSON.
    #[arg(short, long, conflicts_with = "detail")]
    pub(crate) json: bool,
    /// Print nothing and answer by exit code: 0 yes, 1 no.
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with_all = ["detail", "json"])]
    pub(crate) check: Option<Check>,
    /// Print the own IPv4 address only.
    #[arg(short = '4', long, conflicts_with_all = ["detail", "json", "check"])]
    pub(crate) ipv4: bool,
    /// Print the own IPv6 address only.
    #[arg(short = '6', long, conflicts_with_all = ["detail", "json", "check", "ipv4"])]
    pub(crate) ipv6: bool,
    /// Peers of these addresses.
    #[arg(short = 'I', long, value_name = "ADDRESS", value_delimiter = ',', action = ArgAction::Append)]
    filter_by_ips: Vec<IpAddr>,
    /// Peers whose names begin so.
    #[arg(short = 'N', long, value_name = "NAME", value_delimiter = ',', action = ArgAction::Append)]
    filter_by_names: Vec<String>,
    /// Peers of this status.
    #[arg(short = 'S', long, value_name = "STATUS", ignore_case = true)]
    filter_by_status: Option<StatusFilter>,
    /// Peers that are reached so.
    #[arg(short = 'T', long, value_name = "TYPE", ignore_case = true)]
    filter_by_connection_type: Option<TypeFilter>,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

impl StatusArgs {
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            ips: self.filter_by_ips.clone(),
            names: self.filter_by_names.clone(),
            status: self.filter_by_status.map(|status| match status {
                StatusFilter::Idle => PeerState::Idle,
                StatusFilter::Connecting => PeerState::Connecting,
                StatusFilter::Connected => PeerState::Connected,
            }),
            connection_type: self.filter_by_connection_type.map(|kind| match kind {
                TypeFilter::P2p => ConnectionType::Direct,
                TypeFilter::Relayed => ConnectionType::Relayed,
            }),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Check {
    /// The daemon answers.
    Live,
    /// Packets can flow.
    Ready,
    /// Management and signal are connected, and a relay if there is any.
    Startup,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StatusFilter {
    Idle,
    Connecting,
    Connected,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TypeFilter {
    #[value(name = "p2p")]
    P2p,
    Relayed,
}

#[derive(Debug, Args)]
pub(crate) struct NetworksArgs {
    #[command(subcommand)]
    pub(crate) command: Option<NetworksCommand>,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NetworksCommand {
    /// List the networks of the map, and whether this peer carries them.
    #[command(alias = "ls")]
    List,
}
