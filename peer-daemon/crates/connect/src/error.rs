//! Why a server is not reached.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use peer_core::reach::{Failure, Step};
use rustix::io::Errno;

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
    /// No address is known of its name.
    #[error("cannot resolve the name of {address}: {source}")]
    Name {
        /// `host:port`.
        address: String,
        /// The resolver's answer.
        source: io::Error,
    },
    /// There is no TCP connection.
    #[error("cannot reach {address}: {reason}")]
    Tcp {
        /// `host:port`.
        address: String,
        /// The answer.
        reason: String,
        /// The kernel's error, where it is one.
        errno: Option<Errno>,
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
        /// What it thinks of user and password.
        credentials: Credentials,
    },
    /// No TLS session: most often a certificate that is not trusted.
    #[error("TLS with {address}: {source}")]
    Tls {
        /// `host:port`.
        address: String,
        /// The answer.
        source: io::Error,
    },
    /// It took too long.
    #[error("no connection to {address} within {seconds} s ({step})")]
    Timeout {
        /// `host:port`.
        address: String,
        /// How long it was tried.
        seconds: u64,
        /// What was not done by then.
        step: Step,
    },
}

/// What a proxy thinks of user and password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// It did not ask for any, or took them.
    Fine,
    /// It wants them, and there are none.
    Missing,
    /// It does not take those that it was given.
    Refused,
}

impl Error {
    /// How far it went. Settings that cannot be used fail before the first step.
    #[must_use]
    pub fn step(&self) -> Step {
        match self {
            Self::Target { .. } | Self::Name { .. } => Step::Name,
            Self::Tcp { .. } => Step::Connect,
            Self::ProxyUrl { .. } | Self::Proxy { .. } => Step::Proxy,
            Self::CaFile { .. } | Self::TlsSettings(_) | Self::Tls { .. } => Step::Tls,
            Self::Timeout { step, .. } => *step,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Target { .. } => Some("correct the server's URL"),
            Self::Name { .. } | Self::Timeout { step: Step::Name, .. } => Some(
                "check the name and the resolvers in /etc/resolv.conf; a pod in the host's network needs dnsPolicy: \
                 ClusterFirstWithHostNet",
            ),
            Self::Tcp { errno: Some(Errno::MFILE | Errno::NFILE), .. } => {
                Some("raise the limit of open files: LimitNOFILE in the systemd unit, ulimit -n in a shell")
            }
            Self::Tcp { errno: Some(Errno::CONNREFUSED), .. } => {
                Some("check that the server runs and listens at this address and port")
            }
            Self::Tcp { .. } | Self::Timeout { step: Step::Connect, .. } => Some(
                "check routes and firewalls between the node and this address and port, or name a proxy in HTTPS_PROXY",
            ),
            Self::ProxyUrl { .. } => Some("write it as http://proxy.example:3128"),
            Self::Proxy { credentials: Credentials::Missing, .. } => {
                Some("name user and password in the proxy's URL (HTTPS_PROXY)")
            }
            Self::Proxy { credentials: Credentials::Refused, .. } => {
                Some("correct user and password in the proxy's URL (HTTPS_PROXY)")
            }
            Self::Proxy { credentials: Credentials::Fine, .. } | Self::Timeout { step: Step::Proxy, .. } => {
                Some("let the proxy connect to this server, or name the server in NO_PROXY")
            }
            Self::CaFile { .. } => Some("name a PEM file of certificates in NB_CA_FILE"),
            Self::Tls { source, .. } => Some(tls_remedy(source)),
            Self::Timeout { step: Step::Tls, .. } => Some("check that the server speaks TLS at this port"),
            Self::TlsSettings(_) | Self::Timeout { .. } => None,
        }
    }

    /// The same for those who know no more of connections than that they fail.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure { step: self.step(), error: self.to_string(), remedy: self.remedy() }
    }
}

impl From<Error> for io::Error {
    /// Its inner error is the [`Failure`].
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Timeout { .. } => ErrorKind::TimedOut,
            _ => ErrorKind::Other,
        };
        Self::new(kind, error.failure())
    }
}

fn tls_remedy(source: &io::Error) -> &'static str {
    let error = source.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match error {
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::Expired
            | rustls::CertificateError::ExpiredContext { .. }
            | rustls::CertificateError::NotValidYet
            | rustls::CertificateError::NotValidYetContext { .. },
        )) => "renew the server's certificate, or set the node's clock",
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. },
        )) => "name the server as its certificate does",
        Some(rustls::Error::InvalidCertificate(_)) => {
            "name the certificate of the server's authority in NB_CA_FILE; behind an intercepting proxy, that proxy's authority"
        }
        _ => "check that the server speaks TLS at this port",
    }
}
