//! Messages that wait to be sent: in order for each peer, bounded for each and in all. No I/O in here.

use std::collections::{HashMap, HashSet, VecDeque};

use peer_core::key::PublicKey;

use super::Message;

/// Messages that wait for one peer at most; the oldest is dropped for the newest.
pub const QUEUE_PER_PEER: usize = 32;
/// Messages that wait in all at most.
pub const MAX_QUEUED: usize = 32_768;
/// Messages being sent at a time at most, one for each peer.
pub const MAX_IN_FLIGHT: usize = 64;

/// A message that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// There is no connection: offer again once there is.
    #[error("not connected to the signal server")]
    Offline,
    /// [`MAX_QUEUED`] messages wait already.
    #[error("{MAX_QUEUED} signal messages wait already")]
    Full,
}

/// Per-peer queues. A peer is in here only while something of it waits or is being sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    online: bool,
    queues: HashMap<PublicKey, VecDeque<Message>>,
    /// Peers with something waiting and nothing in flight, in order.
    ready: VecDeque<PublicKey>,
    in_flight: HashSet<PublicKey>,
    queued: usize,
    /// Dropped for newer ones since the start.
    pub(super) superseded: u64,
}

impl Outbox {
    /// Open or closed; what waited is dropped either way: it described another time.
    pub(super) fn set_online(&mut self, online: bool) {
        *self = Self { online, superseded: self.superseded, ..Self::default() };
    }

    pub(super) const fn queued(&self) -> usize {
        self.queued
    }

    /// Takes a message. An offer takes the place of one that still waits.
    pub(super) fn push(&mut self, to: PublicKey, message: Message) -> Result<(), NotSent> {
        if !self.online {
            return Err(NotSent::Offline);
        }
        let queue = self.queues.entry(to).or_default();
        if matches!(message, Message::Offer(_))
            && let Some(old) = queue.iter_mut().find(|waiting| matches!(waiting, Message::Offer(_)))
        {
            *old = message;
            self.superseded += 1;
            return Ok(());
        }
        if queue.len() >= QUEUE_PER_PEER {
            queue.pop_front();
            self.queued -= 1;
            self.superseded += 1;
        } else if self.queued >= MAX_QUEUED {
            if queue.is_empty() {
                self.queues.remove(&to);
            }
            return Err(NotSent::Full);
        }
        if queue.is_empty() && !self.in_flight.contains(&to) {
            self.ready.push_back(to);
        }
        queue.push_back(message);
        self.queued += 1;
        Ok(())
    }

    /// The next message to send: its peer gets no other before [`Self::done`].
    pub(super) fn pop(&mut self) -> Option<(PublicKey, Message)> {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let to = self.ready.pop_front()?;
        let queue = self.queues.get_mut(&to)?;
        let message = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&to);
        }
        self.queued -= 1;
        self.in_flight.insert(to);
        Some((to, message))
    }

    /// The message to `to` was sent, or given up.
    pub(super) fn done(&mut self, to: &PublicKey) {
        if self.in_flight.remove(to) && self.queues.contains_key(to) {
            self.ready.push_back(*to);
        }
    }
}

#[cfg(test)]
mod tests;
