//! The daemon's answer.

use peer_dataplane::driver::StatsReader;
use tokio::sync::Mutex;
use tokio::task::block_in_place;

use super::query::{BadField, Query};
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
pub(crate) async fn answer(dataplane: &StatsReader, keys: &PeerKeys, query: &str) -> Result<Listing, Refused> {
    let (filter, limit) = Query::parse(query).check(keys)?;
    let _turn = TURN.lock().await;
    let reader = dataplane.flows().await?;
    let listing = block_in_place(|| reader.list(&filter, limit))?;
    let flows = listing.flows.iter().map(|flow| Flow::new(flow, keys)).collect();
    Ok(Listing { flows, more: listing.more, now_ns: listing.now_ns })
}
