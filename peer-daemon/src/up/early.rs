//! What can be had before it is known what the node shall be.

use peer_dataplane::Configuration;
use peer_io::udp::Sockets;
use peer_io::wt0::Reserved;

use super::translate;

/// The mesh device, before it is known what it shall be. `adopt`: one that is there may be taken over as it is.
///
/// # Errors
/// When the name cannot be had, with the way to another.
pub(crate) async fn reserve(name: &str, adopt: bool, configuration: Configuration) -> anyhow::Result<Reserved> {
    Reserved::open(name, translate::QUEUES, adopt).await.map_err(|error| explained(error, configuration))
}

/// WireGuard's sockets.
///
/// # Errors
/// When the port is another's, with the way to another port.
pub(crate) fn sockets(port: u16, configuration: Configuration) -> anyhow::Result<Sockets> {
    let remedy = configuration
        .choose("choose another `listen_port`, or 0 for any", "choose another NB_WIREGUARD_PORT, or 0 for any");
    Sockets::bind(port).map_err(|error| match error {
        peer_io::Error::PortInUse { .. } | peer_io::Error::NoCommonPort { .. } => {
            anyhow::Error::new(error).context(remedy)
        }
        error => error.into(),
    })
}

/// An error of the mesh device, with the way to another name where that helps.
pub(super) fn explained(error: peer_io::Error, configuration: Configuration) -> anyhow::Error {
    let remedy = configuration.choose("choose another `name`", "choose another NB_INTERFACE_NAME");
    match error {
        peer_io::Error::Busy { .. } | peer_io::Error::NotTun { .. } | peer_io::Error::ForeignTun { .. } => {
            anyhow::Error::new(error).context(remedy)
        }
        error => error.into(),
    }
}
