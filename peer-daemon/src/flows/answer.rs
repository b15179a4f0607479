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
    let denied = || {
        let denied = observer.denied(&filter, limit);
        let flows = denied.denied.iter().map(|denied| Flow::denied(denied, keys)).collect();
        Listing { flows, more: denied.more, now_ns: denied.now_ns }
    };
    if verdict == Verdict::Denied {
        return Ok(denied());
    }
    let allowed = {
        let _turn = TURN.lock().await;
        let reader = dataplane.flows().await?;
        let listing = block_in_place(|| reader.list(&filter, limit))?;
        let flows = listing.flows.iter().map(|flow| Flow::new(flow, keys)).collect();
        Listing { flows, more: listing.more, now_ns: listing.now_ns }
    };
    Ok(if verdict == Verdict::Allowed { allowed } else { joined(allowed, denied(), limit) })
}

/// Both together. What opened between the two looks is in one and not in the other: all is as it was at the earlier one.
fn joined(mut one: Listing, other: Listing, limit: usize) -> Listing {
    one.flows.extend(other.flows);
    one.flows.sort_by_key(|flow| Reverse(flow.active_ns));
    let too_many = one.flows.len().saturating_sub(limit);
    one.flows.truncate(limit);
    Listing { more: one.more + other.more + too_many as u64, now_ns: one.now_ns.min(other.now_ns), ..one }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::record::tests::{denied_sample, sample};

    #[test]
    fn a_listing_of_both_is_of_the_earlier_moment_and_the_most_recent() {
        let at = |mut flow: Flow, active_ns| {
            flow.active_ns = active_ns;
            flow
        };
        let allowed = Listing { flows: vec![at(sample(), 9), at(sample(), 7)], more: 1, now_ns: 10 };
        let denied = Listing { flows: vec![at(denied_sample(), 8)], more: 2, now_ns: 11 };
        let both = joined(allowed, denied, 2);
        assert_eq!(both.flows, [at(sample(), 9), at(denied_sample(), 8)]);
        assert_eq!((both.more, both.now_ns), (4, 10));
    }
}
