//! What goes wrong, as real servers say it.

use tonic::Status;

use crate::account::{RegistrationError, RemovalError};
use crate::sealed::OpenError;

/// A body that cannot be read, or a name that is no key.
pub(crate) fn invalid(error: &OpenError) -> Status {
    Status::invalid_argument(format!("failed handling request: {error}"))
}

pub(crate) fn registration(error: RegistrationError) -> Status {
    match error {
        RegistrationError::SetupKey => Status::not_found(error.to_string()),
        RegistrationError::DnsLabels => Status::failed_precondition(error.to_string()),
        RegistrationError::NoAddress => Status::internal(error.to_string()),
    }
}

pub(crate) fn removal(error: RemovalError) -> Status {
    match error {
        RemovalError::Unknown => Status::not_found(error.to_string()),
        RemovalError::Router => Status::failed_precondition(error.to_string()),
    }
}
