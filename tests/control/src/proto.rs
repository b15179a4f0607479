//! Messages, generated from `proto/`.

/// Package `management`.
pub mod management {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated; the fields are explained where they are used"
    )]
    tonic::include_proto!("management");
}

/// Package `signalexchange`.
pub mod signal {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated; the fields are explained where they are used"
    )]
    tonic::include_proto!("signalexchange");
}
