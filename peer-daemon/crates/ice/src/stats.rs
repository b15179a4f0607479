//! What ICE has done.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::types::DownReason;

/// A counter or a gauge.
#[derive(Debug, Default)]
pub struct Figure(AtomicU64);

impl Figure {
    /// The value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Relaxed);
    }
}

/// Figures of all sessions.
#[derive(Debug, Default)]
pub struct IceStats {
    /// Sessions.
    pub sessions: Figure,
    /// Sessions with a selected pair.
    pub connected: Figure,
    /// Requests that wait for a response.
    pub transactions: Figure,
    /// Remote candidates kept for a session to come.
    pub early: Figure,
    /// Our addresses that peers may try.
    pub local_candidates: Figure,
    /// Sessions that were opened.
    pub opened: Figure,
    /// Pairs that were selected, changes of a session's pair included.
    pub selected: Figure,
    /// Sessions that ended by themselves.
    pub down: Downs,
    /// Connectivity checks sent.
    pub checks_sent: Figure,
    /// Connectivity checks that peers sent.
    pub checks_received: Figure,
    /// Responses to our connectivity checks.
    pub responses: Figure,
    /// Requests to STUN servers.
    pub server_requests: Figure,
    /// Answers of STUN servers.
    pub server_answers: Figure,
    /// STUN servers that did not answer in time.
    pub server_failures: Figure,
    /// Datagrams that were dropped.
    pub dropped: Drops,
    /// Remote candidates that were refused.
    pub refused: Refusals,
}

/// Ends of sessions, by [`DownReason`].
#[derive(Debug, Default)]
pub struct Downs {
    /// [`DownReason::Unreachable`].
    pub unreachable: Figure,
    /// [`DownReason::Lost`].
    pub lost: Figure,
    /// [`DownReason::AddressGone`].
    pub address_gone: Figure,
    /// [`DownReason::Exhausted`].
    pub exhausted: Figure,
    /// [`DownReason::Credentials`].
    pub credentials: Figure,
    /// [`DownReason::Limit`].
    pub limit: Figure,
}

impl Downs {
    pub(crate) fn of(&self, reason: DownReason) -> &Figure {
        match reason {
            DownReason::Unreachable => &self.unreachable,
            DownReason::Lost => &self.lost,
            DownReason::AddressGone => &self.address_gone,
            DownReason::Exhausted => &self.exhausted,
            DownReason::Credentials => &self.credentials,
            DownReason::Limit => &self.limit,
        }
    }
}

/// Datagrams that were dropped, by reason.
#[derive(Debug, Default)]
pub struct Drops {
    /// No binding message, or one with attributes that have no place in it.
    pub malformed: Figure,
    /// From an address that may not be a peer's.
    pub source: Figure,
    /// Request for no session of ours.
    pub unknown: Figure,
    /// Response to no request of ours, or from elsewhere than the request went.
    pub unexpected: Figure,
    /// Request to an address that we did not offer.
    pub local: Figure,
    /// MESSAGE-INTEGRITY or USERNAME was wrong.
    pub integrity: Figure,
    /// Its source used up its verifications.
    pub budget: Figure,
    /// The caller did not drain the queue.
    pub queue: Figure,
}

/// Remote candidates that were refused, by reason.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Text that is no UDP candidate.
    pub malformed: Figure,
    /// An address that may not be a peer's, or is our own.
    pub address: Figure,
    /// More than a session may have.
    pub limit: Figure,
}
