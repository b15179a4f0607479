//! `flows`: what the dataplane forwards now, asked over the control socket; and the answer to that.

mod answer;
mod events;
mod query;
mod record;
mod text;
mod watch;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;

pub(crate) use self::answer::{Refused, answer};
pub(crate) use self::query::{BadField, Query, number, peers_of};
pub(crate) use self::query::{DEFAULT_LIMIT, MAX_LIMIT, PROTOCOLS, VERDICTS, check_address, check_key_or_address};
use self::record::Listing;
pub(crate) use self::record::{Place, protocol_name};
use crate::cli::{FlowsArgs, SocketArgs};
use crate::status;

/// Prints the flows, once or every second.
///
/// # Errors
/// When no peer answers, or it refuses the filter.
pub(crate) fn run(args: &FlowsArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let query = Query::from(args);
    let done = if args.watch {
        runtime.block_on(watch::run(&args.socket, &query, args.json))
    } else {
        let listing = runtime.block_on(ask(&args.socket, &query))?;
        print(&listing, args.json)
    };
    match done {
        // Whoever read has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done.map(|()| ExitCode::SUCCESS),
    }
}

async fn ask(socket: &SocketArgs, query: &Query) -> anyhow::Result<Listing> {
    let body = status::get(&socket.candidates(), &format!("/flows?{query}")).await?;
    serde_json::from_slice(&body).context("the peer's answer is of another version")
}

fn print(listing: &Listing, json: bool) -> anyhow::Result<()> {
    let mut text = String::new();
    if json {
        for flow in &listing.flows {
            text += &serde_json::to_string(flow)?;
            text.push('\n');
        }
        if listing.more > 0 {
            eprintln!("{}", text::more(listing.more));
        }
    } else {
        text = listing.to_string();
    }
    io::stdout().write_all(text.as_bytes()).context("write standard output")
}

pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
