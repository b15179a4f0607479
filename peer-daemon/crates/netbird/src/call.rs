//! What calls to both services have in common: a time limit, and what may go wrong on the way to an answer.

use std::time::Duration;

use peer_core::reach::Failure;
use tokio::time::timeout;
use tonic::{Code, Response, Status};

use crate::text;

/// A call without an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection to the server.
    #[error("{call}: {failure}")]
    Unreached {
        /// Which call.
        call: &'static str,
        /// How far it went, and why no farther.
        failure: Failure,
    },
    /// The server answered with an error, or the connection broke.
    #[error("{call}: {message} ({code:?})")]
    Status {
        /// Which call.
        call: &'static str,
        /// gRPC code; `Unavailable` where the connection broke.
        code: Code,
        /// The server's words, or what the connection broke of.
        message: String,
    },
    /// No answer in time.
    #[error("{call}: no answer within {after:?}")]
    Timeout {
        /// Which call.
        call: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The server ended the stream.
    #[error("{call}: the server ended the stream")]
    Ended {
        /// Which call opened it.
        call: &'static str,
    },
    /// We ended the stream: the server has forgotten a machine that slept.
    #[error("{call}: this machine has slept, the stream is made anew")]
    Slept {
        /// Which call opened it.
        call: &'static str,
    },
}

impl CallError {
    pub(crate) fn status(call: &'static str, status: &Status) -> Self {
        match text::failure_of(status) {
            Some(failure) => Self::Unreached { call, failure },
            None => Self::Status { call, code: status.code(), message: text::of_status(status) },
        }
    }

    /// The connection may be dead without having been closed.
    pub(crate) fn doubts_connection(&self) -> bool {
        match self {
            Self::Unreached { .. } | Self::Timeout { .. } | Self::Slept { .. } => true,
            Self::Status { code, .. } => {
                matches!(code, Code::Unavailable | Code::Unknown | Code::DeadlineExceeded | Code::Cancelled)
            }
            Self::Ended { .. } => false,
        }
    }
}

/// Waits for the answer to a call.
pub(crate) async fn within<T>(
    call: &'static str,
    after: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, CallError> {
    match timeout(after, answer).await {
        Ok(answer) => answer.map_err(|status| CallError::status(call, &status)),
        Err(_) => Err(CallError::Timeout { call, after }),
    }
}
