//! Wire messages, generated from the crate's .proto files.
//!
//! Enumerations are `i32` in here: a value that we do not know is no error, and the typed accessor of the field gives the
//! default for it.
#![allow(missing_docs, reason = "generated; the .proto files say what a field is")]
#![allow(
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]

use std::fmt;

/// Package `management`.
pub mod management {
    tonic::include_proto!("management");
}

/// Package `signalexchange`.
pub mod signal {
    tonic::include_proto!("signalexchange");
}

use management::{LoginRequest, ProtectedHostConfig, RelayConfig};

impl fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setup_key: _, meta, peer_keys, dns_labels } = self;
        f.debug_struct("LoginRequest")
            .field("meta", meta)
            .field("peer_keys", peer_keys)
            .field("dns_labels", dns_labels)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ProtectedHostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host_config, user, password: _ } = self;
        f.debug_struct("ProtectedHostConfig")
            .field("host_config", host_config)
            .field("user", user)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RelayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { urls, token_payload, token_signature: _ } = self;
        f.debug_struct("RelayConfig").field("urls", urls).field("token_payload", token_payload).finish_non_exhaustive()
    }
}
