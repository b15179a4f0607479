//! Connections to the servers.

use std::io;
use std::time::Duration;

use peer_connect::{Alpn, Config, Connector, Proxy, Stream, Target};
use peer_netbird::dial::{DIAL_TIMEOUT, Dial};
use peer_netbird::server::ServerUrl;

use super::settings::Settings;

/// For the error to be made and passed on.
const MARGIN: Duration = Duration::from_millis(500);

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
        // A little less than the caller waits, who would not learn how far it went.
        let timeout = DIAL_TIMEOUT.saturating_sub(MARGIN);
        Ok(self.0.connect_within(timeout, &target, Alpn::H2).await?)
    }
}
