//! What this machine has to give, opened before anybody is told of this peer.

use peer_connect::Connector;
use peer_core::key::PublicKey;
use peer_dataplane::Configuration;
use peer_io::udp::Sockets;

use super::super::dial::connector;
use super::super::direct::Ports;
use super::super::settings::{ListenPort, Settings};
use super::local::Local;
use crate::admin::Admin;
use crate::cli::UpArgs;
use crate::up::{Opened, Signals, reserve, sockets};

/// What of this machine is needed whatever the network says.
pub(super) struct Parts {
    pub(super) signals: Signals,
    pub(super) connector: Connector,
    pub(super) local: Local,
    pub(super) admin: Admin,
    /// Where direct paths are sought.
    pub(super) ports: Option<Ports>,
}

impl Parts {
    /// Opens all of it, the mesh device included. `adopt`: one that is there may be taken over as it is.
    ///
    /// # Errors
    /// When something is unavailable; nothing is left behind then.
    pub(super) async fn open(
        args: &UpArgs,
        settings: &Settings,
        own: PublicKey,
        adopt: bool,
    ) -> anyhow::Result<(Self, Opened)> {
        let mut sockets = bind(settings.listen_port)?;
        let ports = match settings.ice {
            Some(_) => Some(Ports { stun: sockets.tap_stun(), transmitter: sockets.transmitter()? }),
            None => None,
        };
        let parts = Self {
            signals: Signals::listen()?,
            connector: connector(settings)?,
            local: Local::open(settings.ice.as_ref().map(|ice| ice.interfaces.clone()))?,
            admin: Admin::bind(args)?,
            ports,
        };
        let opened = Opened::with(sockets, args, own, Configuration::NetBird)?;
        // Last: a device that comes and goes is seen by others.
        let device = reserve(&settings.interface_name, adopt, Configuration::NetBird).await?;
        Ok((parts, opened.on(device)))
    }
}

fn bind(port: ListenPort) -> anyhow::Result<Sockets> {
    match port {
        ListenPort::Exactly(port) => sockets(port, Configuration::NetBird),
        ListenPort::Preferably(port) => match Sockets::bind(port) {
            Ok(sockets) => Ok(sockets),
            Err(error) => {
                tracing::warn!(%error, port, "WireGuard's usual port is taken: any other is used");
                sockets(0, Configuration::NetBird)
            }
        },
    }
}
