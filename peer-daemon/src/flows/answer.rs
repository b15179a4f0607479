//! The daemon's answer.

use std::cmp::Reverse;

use peer_dataplane::driver::StatsReader;
use peer_dataplane::observe::Observer;
use tokio::sync::Mutex;
use tokio::task::block_in_place;

use super::query::{BadField, Query, Verdict, Wanted};
use super::record::{Flow, Listing};
use crate::peers::PeerKeys;

/// Held while the tables are read: however many ask, one scan runs at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The question is wrong.
    #[error(transparent)]
    Field(#[from] BadField),
    /// The dataplane has failed.
    #[error(transparent)]
    Dataplane(#[from] peer_dataplane::Error),
}

/// The flows that a query string asks for. `keys` are those of the peers.
///
/// # Errors
/// When the query cannot be used, or the tables cannot be read.
pub(crate) async fn answer(
    dataplane: &StatsReader,
    observer: &Observer,
    keys: &PeerKeys,
    query: &str,
) -> Result<Listing, Refused> {
    let Wanted { filter, verdict, limit } = Query::parse(query).check(keys)?;
    let mut listing = match verdict {
        Verdict::Denied => Listing::default(),
        Verdict::Allowed | Verdict::Any => {
            let _turn = TURN.lock().await;
            let reader = dataplane.flows().await?;
            let listing = block_in_place(|| reader.list(&filter, limit))?;
            let flows = listing.flows.iter().map(|flow| Flow::new(flow, keys)).collect();
            Listing { flows, more: listing.more, now_ns: listing.now_ns }
        }
    };
    if verdict != Verdict::Allowed {
        let denied = observer.denied(&filter, limit);
        listing.flows.extend(denied.denied.iter().map(|denied| Flow::denied(denied, keys)));
        listing.flows.sort_by_key(|flow| Reverse(flow.active_ns));
        let too_many = listing.flows.len().saturating_sub(limit);
        listing.flows.truncate(limit);
        listing.more += denied.more + too_many as u64;
        listing.now_ns = listing.now_ns.max(denied.now_ns);
    }
    Ok(listing)
}
