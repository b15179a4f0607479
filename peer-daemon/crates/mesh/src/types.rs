//! What goes into a connection and comes out of it.

use std::time::Instant;

use peer_core::path::Path;

use crate::message::{Credentials, Message, RelayServer};

/// What may happen to a connection.
#[derive(Clone, Debug)]
pub enum Input {
    /// The peer sent a message.
    Message(Message),
    /// A way to the peer works.
    PathUp {
        /// What kind of way.
        kind: PathKind,
        /// That of the action which asked for it.
        attempt: u32,
        /// The way.
        path: Path,
    },
    /// A way to the peer, asked for or working, is gone.
    PathDown {
        /// What kind of way.
        kind: PathKind,
        /// That of the action which asked for it.
        attempt: u32,
    },
    /// A WireGuard session was made at this time, and a packet has come in by it.
    Handshake(Instant),
    /// Data, keepalives aside, came from the peer or went to it at this time.
    Traffic(Instant),
    /// Data for the peer waits for a way.
    Wanted,
}

/// What is to be done for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this to the peer through the signal server.
    Send(Message),
    /// Open a way to the peer through this relay; say [`Input::PathUp`] once the relay says that the peer is there, and
    /// [`Input::PathDown`] when it fails or ends.
    OpenRelay {
        /// To repeat in the answers.
        attempt: u32,
        /// Where.
        server: RelayServer,
    },
    /// Close that way. Nothing is expected in answer.
    CloseRelay {
        /// That of the way.
        attempt: u32,
    },
    /// Seek a direct way by ICE; say [`Input::PathUp`] for each way that is nominated, the best last, and
    /// [`Input::PathDown`] when there is none, or none any more.
    OpenIce {
        /// To repeat in the answers.
        attempt: u32,
        /// Ours.
        local: Credentials,
        /// The peer's.
        remote: Credentials,
        /// Whether we nominate.
        controlling: bool,
    },
    /// End that. Nothing is expected in answer.
    CloseIce {
        /// That of the search.
        attempt: u32,
    },
    /// The peer may be reached at this candidate. It can come before the search that it is for.
    RemoteCandidate(String),
    /// Send to the peer by this way from now on.
    SetPath(Path),
    /// There is no way to the peer any more.
    ClearPath,
    /// Begin a WireGuard handshake now.
    Handshake,
}

/// Kinds of ways to a peer, the best last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathKind {
    /// Through a NetBird relay.
    Relay,
    /// Through a TURN server.
    Turn,
    /// From socket to socket.
    Direct,
}

/// How it stands with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// In a word.
    pub state: State,
    /// The way in use.
    pub kind: Option<PathKind>,
    /// The relay that is used or tried.
    pub relay: Option<RelayServer>,
    /// Since when `state` and `kind` are so.
    pub since: Instant,
    /// When the last WireGuard session was made.
    pub last_handshake: Option<Instant>,
}

/// How it stands with a peer, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Nobody wants it.
    Idle,
    /// There is no way to it yet.
    Connecting,
    /// There is a way to it.
    Connected,
}
