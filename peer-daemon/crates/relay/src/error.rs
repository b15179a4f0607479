//! Why there is no connection to a relay.

use peer_core::reach::{Failure, Step};

use crate::websocket::{UpgradeError, WebSocketError};

/// What went wrong between us and a relay.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// It is not reached.
    #[error(transparent)]
    Connect(#[from] peer_connect::Error),
    /// It is no WebSocket server.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// It hung up when it saw our token.
    #[error("it closed the connection on our token: expired, or of another deployment")]
    Refused,
    /// It answered something else.
    #[error("it answered our token with something else than its address")]
    UnexpectedAnswer,
    /// The address that it says others shall use.
    #[error("its own address: {0}")]
    Instance(#[from] crate::url::RelayUrlError),
    /// It did not answer.
    #[error("it did not answer our token within {0} s")]
    NoAnswer(u64),
    /// What it sends is no WebSocket.
    #[error("it sends {0}")]
    WebSocket(#[from] WebSocketError),
    /// The connection.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It ended the connection.
    #[error("it closed the connection")]
    Closed,
    /// It does not say that it is alive.
    #[error("it has not checked us for too long: the connection is dead")]
    Silent,
    /// It does not take what we send.
    #[error("it took nothing from us for {0} s")]
    Stuck(u64),
    /// The shard that the datagrams are for.
    #[error("the shard has stopped")]
    ShardStopped,
    /// The relay has forgotten a machine that slept.
    #[error("this machine has slept")]
    Slept,
}

impl ConnectError {
    /// How far it went, and what to do.
    pub(crate) fn failure(&self) -> Failure {
        let (step, remedy) = match self {
            Self::Connect(error) => return error.failure(),
            Self::Upgrade(_) => {
                (Step::Upgrade, Some("check the relay's address; proxies in front of it must pass WebSockets on"))
            }
            Self::Refused => (
                Step::Login,
                Some("check that relay and management share one secret, and that the clocks of both are right"),
            ),
            Self::UnexpectedAnswer | Self::Instance(_) | Self::NoAnswer(_) => {
                (Step::Login, Some("check that the address that management names is that of a NetBird relay"))
            }
            Self::WebSocket(_)
            | Self::Io(_)
            | Self::Closed
            | Self::Silent
            | Self::Stuck(_)
            | Self::ShardStopped
            | Self::Slept => (Step::Stream, None),
        };
        Failure { step, error: text(self), remedy }
    }
}

/// An error with its causes.
fn text(error: &ConnectError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
