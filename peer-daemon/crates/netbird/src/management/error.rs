//! What goes wrong between us and management, and what it means.

use peer_core::key::ParseKeyError;
use peer_core::reach::{Failure, Step};
use tonic::Code;

use crate::call::CallError;
use crate::sealed::DecodeError;

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There was no answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An answer that cannot be read.
    #[error("{call}: unreadable answer: {source}")]
    Answer {
        /// Which call.
        call: &'static str,
        /// Why.
        source: DecodeError,
    },
    /// The server's key is none.
    #[error("GetServerKey: {0}")]
    ServerKey(ParseKeyError),
}

/// What an error means for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Try again later.
    Transient,
    /// The server does not take this peer: unknown, expired, blocked.
    Refused,
    /// The server does not take the setup key: unknown, expired, revoked, used up.
    SetupKey,
    /// The server made no sense.
    Garbage,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Transient, Self::Refused, Self::SetupKey, Self::Garbage];

    /// Label of metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Refused => "refused",
            Self::SetupKey => "setup_key",
            Self::Garbage => "garbage",
        }
    }
}

impl Error {
    /// How far it went, and what to do. What the server refuses has its remedy where it is known what it was given.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let (step, remedy) = match self {
            Self::Call(CallError::Unreached { failure, .. }) => return failure.clone(),
            Self::Call(CallError::Status { call: SYNC, .. } | CallError::Ended { .. } | CallError::Slept { .. }) => {
                (Step::Stream, None)
            }
            Self::Call(CallError::Timeout { call: SYNC, .. }) => (Step::Stream, Some(SILENT)),
            Self::Call(CallError::Timeout { .. }) => (Step::Login, Some(SILENT)),
            Self::Answer { .. } | Self::ServerKey(_) => (Step::Login, Some(NO_MANAGEMENT)),
            Self::Call(CallError::Status { code: Code::Unimplemented, .. }) => (Step::Login, Some(NO_MANAGEMENT)),
            Self::Call(CallError::Status { .. }) => (Step::Login, None),
        };
        Failure { step, error: self.to_string(), remedy }
    }

    /// What it means. `InvalidArgument` is transient: a server that was restarted between two calls has a new key and
    /// cannot open what we sealed for the old one.
    #[must_use]
    pub fn class(&self) -> Class {
        let (call, code, message) = match self {
            Self::Call(CallError::Status { call, code, message }) => (*call, code, message),
            Self::Call(
                CallError::Unreached { .. }
                | CallError::Timeout { .. }
                | CallError::Ended { .. }
                | CallError::Slept { .. },
            ) => {
                return Class::Transient;
            }
            Self::Answer { .. } | Self::ServerKey(_) => return Class::Garbage,
        };
        match code {
            Code::PermissionDenied | Code::Unauthenticated => Class::Refused,
            Code::NotFound if call == REGISTER => Class::SetupKey,
            // The same text with another code when two registrations meet; "already registered" is the other one.
            Code::FailedPrecondition if call == REGISTER && message.contains("setup key") => Class::SetupKey,
            _ => Class::Transient,
        }
    }

    /// The connection may be dead without having been closed.
    pub(crate) fn doubts_connection(&self) -> bool {
        match self {
            Self::Call(error) => error.doubts_connection(),
            Self::Answer { .. } | Self::ServerKey(_) => false,
        }
    }
}

const SILENT: &str = "the server takes connections and does not answer: look at its log, and at proxies in front of it";
const NO_MANAGEMENT: &str = "check that NB_MANAGEMENT_URL names a management server";

/// Name of the call that opens the stream.
pub(super) const SYNC: &str = "Sync";
/// Name of a login with a setup key.
pub(crate) const REGISTER: &str = "Login with setup key";

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    fn class(call: &'static str, status: &Status) -> Class {
        Error::from(CallError::status(call, status)).class()
    }

    #[test]
    fn each_refusal_of_the_notes_has_its_class() {
        let denied = Status::permission_denied("peer is not registered");
        assert_eq!(class("Login", &denied), Class::Refused);
        assert_eq!(class("Sync", &denied), Class::Refused);
        assert_eq!(class("Login", &Status::unauthenticated("")), Class::Refused);
        let key = Status::not_found("couldn't add peer: setup key is invalid");
        assert_eq!(class(REGISTER, &key), Class::SetupKey);
        let race = Status::failed_precondition("couldn't add peer: setup key is invalid");
        assert_eq!(class(REGISTER, &race), Class::SetupKey);
        let twice = Status::failed_precondition("peer has been already registered");
        assert_eq!(class(REGISTER, &twice), Class::Transient);
        for status in [
            Status::invalid_argument("cannot open"),
            Status::internal("failed handling request"),
            Status::resource_exhausted("too many"),
            Status::unavailable("gone"),
            Status::not_found(""),
        ] {
            assert_eq!(class("Sync", &status), Class::Transient);
        }
    }

    #[test]
    fn a_servers_words_stay_on_one_line() {
        let error =
            CallError::status("Sync", &Status::internal(format!("a\nb\u{1b}[2J{}", "x".repeat(10_000)))).to_string();
        assert!(error.starts_with("Sync: a b [2Jxxx") && error.len() < 300, "{error}");
        assert!(!error.chars().any(char::is_control));
    }
}
