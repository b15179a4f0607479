//! Connections to the servers.

use std::io;

use peer_connect::{Alpn, Config, Connector, Proxy, Stream, Target};
use peer_netbird::dial::Dial;
use peer_netbird::server::ServerUrl;

use super::settings::Settings;

/// The connector of all servers.
///
/// # Errors
/// When a proxy's variable or a file of authorities cannot be used.
pub(super) fn connector(settings: &Settings) -> anyhow::Result<Connector> {
    let config = Config { ca_files: settings.ca_files.clone(), proxy: Proxy::from_env()?, ..Config::default() };
    Ok(Connector::new(&config)?)
}

/// Makes the connections of management and signal.
#[derive(Clone, Debug)]
pub(super) struct Dialer(pub(super) Connector);

impl Dial for Dialer {
    type Stream = Stream;

    async fn dial(&self, server: ServerUrl) -> io::Result<Stream> {
        let ServerUrl { tls, host, port } = server;
        let target = Target { tls, host, port, fallback: None };
        self.0.connect(&target, Alpn::H2).await.map_err(io::Error::other)
    }
}
