//! `status` and `networks`: what a running peer is doing, asked over its control socket.

mod client;
mod networks;
mod overview;
mod report;
mod text;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use jiff::Timestamp;
use peer_netbird::meta::NETBIRD_VERSION;
use serde::{Deserialize, Serialize};

pub(crate) use self::client::{NobodyAnswers, get};
use self::networks::Listing;
pub(crate) use self::networks::Network;
pub(crate) use self::overview::{
    ConnectionType, DaemonStatus, Ends, Event, Filter, Overview, Peer as OverviewPeer, PeerState, Peers, Relay, Relays,
    Server,
};
use self::overview::{Detail, Expanded, Summary};
pub(crate) use self::report::{
    Attachment, Control, Count, Dataplane, Flows, Interface, Map, Part, Peer, Policy, Report, Route,
};
pub(crate) use self::text::{Ago, Size};
use crate::cli::{Check, NetworksArgs, SocketArgs, StatusArgs};

/// What the daemon answers, and what `--json` prints: all that the official client says, and this node behind it.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Answer {
    #[serde(flatten)]
    pub(crate) overview: Overview,
    pub(crate) node: Report,
}

/// Prints how the running peer is.
///
/// # Errors
/// When no peer answers.
pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let runtime = runtime()?;
    if let Some(check) = args.check {
        let passed = runtime.block_on(passes(&args.socket, check));
        return Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut answer = runtime.block_on(ask(&args.socket))?;
    answer.overview.cli_version = cli_version(answer.node.control).to_owned();
    let filter = args.filter();
    filter.apply(&mut answer.overview);
    if args.ipv4 || args.ipv6 {
        return print_address(&answer.overview, args.ipv6);
    }
    let text = if args.json {
        serde_json::to_string(&answer)? + "\n"
    } else {
        in_words(&answer, args.detail || filter.is_set(), Timestamp::now())
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Of this program, in the terms of the daemon that answers.
fn cli_version(control: Control) -> &'static str {
    match control {
        Control::Static => env!("CARGO_PKG_VERSION"),
        Control::NetBird => NETBIRD_VERSION,
    }
}

/// Prints the networks of the map.
///
/// # Errors
/// When no peer answers.
pub(crate) fn networks(args: &NetworksArgs) -> anyhow::Result<ExitCode> {
    let body = runtime()?.block_on(get(&args.socket.candidates(), "/networks"))?;
    let networks: Vec<Network> = serde_json::from_slice(&body).context(OTHER_VERSION)?;
    print(&Listing(&networks).to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// What the running peer answers.
///
/// # Errors
/// When no peer answers.
pub(crate) async fn ask(socket: &SocketArgs) -> anyhow::Result<Answer> {
    let body = get(&socket.candidates(), "/status").await?;
    serde_json::from_slice(&body).context(OTHER_VERSION)
}

const OTHER_VERSION: &str = "the peer's answer is of another version";

async fn passes(socket: &SocketArgs, check: Check) -> bool {
    let path = match check {
        Check::Live => "/check/live",
        Check::Ready => "/check/ready",
        Check::Startup => "/check/startup",
    };
    match get(&socket.candidates(), path).await {
        Ok(_) => true,
        Err(error) => {
            eprintln!("peer-daemon: {error:#}");
            false
        }
    }
}

fn in_words(answer: &Answer, detail: bool, now: Timestamp) -> String {
    let Answer { overview, node } = answer;
    if let Some(help) = overview.needs_help() {
        return help;
    }
    let is_static = node.control == Control::Static;
    if !detail {
        return Summary { overview, expanded: Expanded::No, is_static }.to_string() + &node.verdict();
    }
    let summary = Summary { overview, expanded: Expanded::Yes, is_static };
    format!("{}{summary}{}\n{node}", Detail { overview, now }, node.verdict())
}

fn print_address(overview: &Overview, v6: bool) -> anyhow::Result<ExitCode> {
    let address = if v6 {
        overview.netbird_ipv6.map(|net| net.addr().to_string())
    } else {
        overview.netbird_ip.map(|net| net.addr().to_string())
    };
    print(&format!("{}\n", address.context("the peer has no such address yet")?))?;
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("write standard output")
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")
}
