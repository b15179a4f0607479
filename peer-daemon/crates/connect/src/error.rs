//! Why a server is not reached.

use std::path::PathBuf;

/// What went wrong on the way to a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address of a server.
    #[error("{url:?} is no server's address: {reason}")]
    Target {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A variable that names a proxy cannot be used. Its value may hold a password and is not repeated.
    #[error("{variable} names no proxy: {reason}")]
    ProxyUrl {
        /// The variable.
        variable: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file of certificates.
    #[error("CA file {}: {reason}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS library does not take the settings.
    #[error("TLS settings: {0}")]
    TlsSettings(#[source] rustls::Error),
    /// Its name is unknown, or there is no TCP connection to be had.
    #[error("cannot reach {address}: {reason}")]
    Tcp {
        /// `host:port`.
        address: String,
        /// The answer.
        reason: String,
    },
    /// The proxy does not let us through.
    #[error("proxy {proxy} does not connect us to {address}: {reason}")]
    Proxy {
        /// The proxy's `host:port`.
        proxy: String,
        /// The server's.
        address: String,
        /// The answer.
        reason: String,
    },
    /// No TLS session: most often a certificate that is not trusted.
    #[error("TLS with {address}: {source}; a private CA is named by a CA file")]
    Tls {
        /// `host:port`.
        address: String,
        /// The answer.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("no connection to {address} within {seconds} s")]
    Timeout {
        /// `host:port`.
        address: String,
        /// How long it was tried.
        seconds: u64,
    },
}
