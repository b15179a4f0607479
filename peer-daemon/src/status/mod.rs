//! `status`: what a running peer is doing, asked over its control socket.

mod client;
mod report;
mod text;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;

pub(crate) use self::client::get;
pub(crate) use self::report::{Attachment, Count, Dataplane, Flows, Interface, Part, Peer, Policy, Report, Route};
pub(crate) use self::text::{Ago, Size};
use crate::cli::{SocketArgs, StatusArgs};

/// Prints the report of the running peer.
///
/// # Errors
/// When no peer answers.
pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let report = runtime.block_on(ask(&args.socket))?;
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.to_string() };
    std::io::stdout().write_all(text.as_bytes()).context("write standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// The report of the running peer.
///
/// # Errors
/// When no peer answers.
pub(crate) async fn ask(socket: &SocketArgs) -> anyhow::Result<Report> {
    let body = get(&socket.candidates(), "/status").await?;
    serde_json::from_slice(&body).context("the peer's answer is of another version")
}
