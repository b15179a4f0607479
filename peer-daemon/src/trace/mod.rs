//! `trace`: what becomes of a packet, stage by stage, asked over the control socket; and the answer to that.

mod answer;
mod live;
mod question;
mod report;
mod stages;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use tokio::signal::ctrl_c;

pub(crate) use self::answer::{Refused, describe, end, follow, followed};
pub(crate) use self::live::LiveTrace;
use self::live::{Following, Packets};
pub(crate) use self::question::{MAX_SECONDS, check_protocol};
use self::report::Report;
use crate::cli::{SocketArgs, TraceArgs};
use crate::flows::{Query, is_broken_pipe};
use crate::status;

/// A packet that is described is dropped.
const EXIT_DROPPED: u8 = 1;
/// Nothing can be said.
const EXIT_UNKNOWN: u8 = 2;

/// How often packets that are followed are fetched.
const EVERY: Duration = Duration::from_millis(250);

/// Prints what becomes of a packet, or of those that pass.
///
/// # Errors
/// None: what cannot be said is printed here, for the sake of its exit code.
pub(crate) fn run(args: &TraceArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let query = Query::from(args);
    let done = if args.live {
        runtime.block_on(run_live(args, &query)).map(|()| ExitCode::SUCCESS)
    } else {
        runtime.block_on(run_described(args, &query))
    };
    match done {
        // Whoever read has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("peer-daemon: {error:#}");
            Ok(ExitCode::from(EXIT_UNKNOWN))
        }
        done => done,
    }
}

async fn run_described(args: &TraceArgs, query: &Query) -> anyhow::Result<ExitCode> {
    let report: Report = ask(&args.socket, &format!("/trace?{query}")).await?;
    print(&report, args.json)?;
    Ok(if report.dropped() { ExitCode::from(EXIT_DROPPED) } else { ExitCode::SUCCESS })
}

async fn run_live(args: &TraceArgs, query: &Query) -> anyhow::Result<()> {
    let Following { mut next, seconds, what } = ask(&args.socket, &format!("/trace/live?{query}")).await?;
    eprintln!("following {what} for {seconds} s");
    let fetch = async {
        loop {
            tokio::time::sleep(EVERY).await;
            let packets: Packets = ask(&args.socket, &format!("/trace/packets?next={next}")).await?;
            next = packets.next;
            packets.packets.iter().try_for_each(|report| print(report, args.json))?;
            if packets.missed > 0 {
                eprintln!("and {} more, too many to fetch", packets.missed);
            }
            if packets.ended {
                return Ok(());
            }
        }
    };
    let ended = tokio::select! {
        ended = fetch => ended,
        interrupted = ctrl_c() => interrupted.context("wait for Ctrl-C"),
    };
    // If that fails the daemon ends it by itself, in a few seconds.
    let _: Option<()> = ask(&args.socket, "/trace/end").await.ok();
    ended
}

async fn ask<T: DeserializeOwned>(socket: &SocketArgs, path: &str) -> anyhow::Result<T> {
    let body = status::get(&socket.candidates(), path).await?;
    serde_json::from_slice(&body).context("the peer's answer is of another version")
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string(report)? + "\n" } else { report.to_string() };
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write standard output")
}
