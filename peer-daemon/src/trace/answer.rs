//! The daemon's answers.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use peer_dataplane::observe::Follow;

use super::live::{Following, Packets};
use super::question;
use super::report::{Context, Report};
use crate::admin::Running;
use crate::flows::{BadField, Query};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The question is wrong.
    #[error(transparent)]
    Field(#[from] BadField),
    /// One follows at a time.
    #[error("somebody else follows packets, for {seconds} s at most: try again then")]
    Busy { seconds: u64 },
    /// The dataplane has failed.
    #[error(transparent)]
    Dataplane(#[from] peer_dataplane::Error),
}

/// What would become of the packet that a query string describes.
///
/// # Errors
/// When the query cannot be used, or the dataplane fails.
pub(crate) async fn describe(running: &Running, query: &str) -> Result<Report, Refused> {
    let known = running.known();
    let packet = question::described(&Query::parse(query), &known)?;
    let event = running.dataplane.describe(packet).await?;
    Ok(Report::new(
        &event,
        &Context { known: &known, observer: &running.observer, configuration: running.configuration },
    ))
}

/// Begins to follow the packets that a query string names.
///
/// # Errors
/// When the query cannot be used, somebody follows packets already, or the dataplane fails.
pub(crate) async fn follow(running: &Running, query: &str) -> Result<Following, Refused> {
    let (follow, seconds) = question::wanted(&Query::parse(query), &running.known())?;
    let time = Duration::from_secs(seconds.into());
    let begun = running.live_trace.begin(Instant::now(), time);
    let number = begun.map_err(|seconds| Refused::Busy { seconds })?;
    let what = shown(&follow);
    if let Err(error) = running.dataplane.follow(Some((follow, time))).await {
        running.live_trace.end();
        return Err(error.into());
    }
    tokio::spawn(running.live_trace.clone().watch(number, running.dataplane.clone()));
    tracing::info!(what, seconds, "packets are followed");
    Ok(Following { next: running.observer.followed(u64::MAX).next, seconds, what })
}

/// Packets that were followed, from the one on that the query string names.
///
/// # Errors
/// When the query cannot be used.
pub(crate) fn followed(running: &Running, query: &str) -> Result<Packets, Refused> {
    let query = Query::parse(query);
    let mut from = 0;
    for (field, value) in query.fields() {
        let fix = "write next=N with a number that was told".to_owned();
        let number = value.parse().ok().filter(|_| field == "next");
        from = number.ok_or_else(|| BadField { field: field.to_owned(), value: value.to_owned(), fix })?;
    }
    // Asked before the packets are taken: what comes in between is not lost.
    let ended = !running.live_trace.fetched(Instant::now());
    let followed = running.observer.followed(from);
    let known = running.known();
    let context = Context { known: &known, observer: &running.observer, configuration: running.configuration };
    let packets = followed.packets.iter().map(|event| Report::new(event, &context)).collect();
    Ok(Packets { packets, next: followed.next, missed: followed.missed, ended })
}

/// Follows packets no more.
///
/// # Errors
/// When the dataplane fails.
pub(crate) async fn end(running: &Running) -> Result<(), Refused> {
    running.live_trace.end();
    Ok(running.dataplane.follow(None).await?)
}

fn shown(follow: &Follow) -> String {
    let mut text = String::from("packets");
    let mut add = |what: &str, value: Option<String>| {
        // A string takes everything.
        let _ = value.map(|value| write!(text, " {what} {value}"));
    };
    add("of", follow.protocol.map(|protocol| format!("{protocol:?}").to_lowercase()));
    add("of the peer at", follow.peer.map(|net| net.to_string()));
    add("from port", follow.peer_port.map(|port| port.to_string()));
    add("with", follow.remote.map(|net| net.to_string()));
    add("port", follow.remote_port.map(|port| port.to_string()));
    text
}
