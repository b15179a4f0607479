//! `flows --watch`.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::ctrl_c;
use tokio::time::{MissedTickBehavior, interval};

use super::events::Watched;
use super::query::Query;
use super::{ask, text};
use crate::cli::SocketArgs;

const EVERY: Duration = Duration::from_secs(1);

/// Tells what becomes of the flows, until Ctrl-C.
pub(super) async fn run(socket: &SocketArgs, query: &Query, json: bool) -> anyhow::Result<()> {
    let watch = async {
        let mut watched = Watched::default();
        let mut more = 0;
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let listing = ask(socket, query).await?;
            if more == 0 && listing.more > 0 {
                eprintln!("{}", text::more(listing.more));
            }
            more = listing.more;
            let mut lines = String::new();
            watched.look(listing, |event| {
                lines += &if json { serde_json::to_string(event)? } else { event.to_string() };
                lines.push('\n');
                serde_json::Result::Ok(())
            })?;
            io::stdout().write_all(lines.as_bytes()).context("write standard output")?;
            io::stdout().flush().context("write standard output")?;
        }
    };
    tokio::select! {
        ended = watch => ended,
        interrupted = ctrl_c() => interrupted.context("wait for Ctrl-C"),
    }
}
