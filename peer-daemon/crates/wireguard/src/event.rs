//! What the control side is told.

use std::collections::VecDeque;

use peer_core::key::PublicKey;
use peer_core::path::Path;

use crate::limits::EVENT_QUEUE;

/// Something the control side should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session is up and confirmed: as initiator with the response, as responder with the first data.
    HandshakeCompleted {
        /// With whom.
        peer: PublicKey,
        /// By which path.
        path: Path,
    },
    /// A peer is now reached by another path; at most one report per second and peer, the last one always comes.
    PathChanged {
        /// Who.
        peer: PublicKey,
        /// The path reported before.
        from: Option<Path>,
        /// The path in use.
        to: Path,
    },
    /// A packet for a peer was dropped, since it is not known where the peer is; at most one report per second and peer.
    PathWanted {
        /// Who.
        peer: PublicKey,
    },
    /// The last session with a peer has expired: no packet reaches it until the next handshake.
    SessionExpired {
        /// Who.
        peer: PublicKey,
    },
    /// The peer did not answer for 90 seconds. The next packet for it, or its keepalive, tries again.
    HandshakeTimedOut {
        /// Who.
        peer: PublicKey,
    },
}

/// Bounded queue: when the control side sleeps, new events are lost and counted.
#[derive(Debug, Default)]
pub(crate) struct Events {
    queue: VecDeque<Event>,
}

impl Events {
    /// `false`: full.
    pub(crate) fn push(&mut self, event: Event) -> bool {
        let room = self.queue.len() < EVENT_QUEUE;
        if room {
            self.queue.push_back(event);
        }
        room
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}
