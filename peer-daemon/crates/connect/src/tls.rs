//! TLS settings.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stream::Base;
use crate::{Error, Target};

/// What is spoken inside TLS (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// `h2`: gRPC.
    H2,
    /// `http/1.1`: WebSocket.
    Http1,
}

/// Settings, one per protocol. Sessions are resumed.
#[derive(Clone)]
pub(crate) struct Tls {
    h2: TlsConnector,
    http1: TlsConnector,
}

impl Tls {
    pub(crate) fn new(ca_files: &[PathBuf]) -> Result<Self, Error> {
        let roots = Arc::new(roots(ca_files)?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let connector = |protocol: &[u8]| {
            let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(Error::TlsSettings)?;
            let mut config = builder.with_root_certificates(Arc::clone(&roots)).with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            Ok(TlsConnector::from(Arc::new(config)))
        };
        Ok(Self { h2: connector(b"h2")?, http1: connector(b"http/1.1")? })
    }

    pub(crate) async fn connect(&self, target: &Target, alpn: Alpn, base: Base) -> Result<TlsStream<Base>, Error> {
        let name = ServerName::try_from(target.host.clone()).map_err(|_| Error::Target {
            url: target.to_string(),
            reason: "the host is no name that a certificate can have",
        })?;
        let connector = match alpn {
            Alpn::H2 => &self.h2,
            Alpn::Http1 => &self.http1,
        };
        let result = connector.connect(name, base).await;
        result.map_err(|source| Error::Tls { address: target.to_string(), source })
    }
}

/// The system's roots, else Mozilla's as bundled; and the given files.
fn roots(ca_files: &[PathBuf]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let reason = found.errors.first().map_or_else(|| "there are none".into(), ToString::to_string);
        tracing::debug!("the system's root certificates are not used ({reason}): the bundled ones are");
    }
    for path in ca_files {
        let wrong = |reason| Error::CaFile { path: path.clone(), reason };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
        let mut count = 0;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(wrong("there is no certificate in it (-----BEGIN CERTIFICATE-----)".into()));
        }
    }
    Ok(roots)
}
