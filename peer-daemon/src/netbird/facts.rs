//! What management asks of this node.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use peer_netbird::management::{Node, SetupKey};
use peer_netbird::meta;
use peer_netbird::proto::management::PeerSystemMeta;

use super::settings::{Settings, SetupKeySource};

/// Facts about this system, and the setup key.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    options: meta::Options,
    setup_key: SetupKeySource,
    overlay: Arc<Mutex<BTreeSet<IpAddr>>>,
}

impl Facts {
    pub(super) fn new(settings: &Settings) -> Self {
        let options = meta::Options {
            hostname: settings.hostname.clone(),
            flags: settings.flags,
            ipv6: settings.ipv6,
            excluded_interfaces: [settings.interface_name.clone()].into(),
            ..meta::Options::default()
        };
        Self { options, setup_key: settings.setup_key.clone(), overlay: Arc::default() }
    }

    /// The own overlay addresses: the server must not hear of them as addresses of the network.
    pub(super) fn set_overlay(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        *self.overlay.lock().unwrap_or_else(PoisonError::into_inner) = addresses.into_iter().collect();
    }
}

impl Node for Facts {
    async fn meta(&self, checks: &[String]) -> PeerSystemMeta {
        let excluded_addresses = self.overlay.lock().unwrap_or_else(PoisonError::into_inner).clone();
        meta::gather(&meta::Options { excluded_addresses, ..self.options.clone() }, checks).await
    }

    fn setup_key(&self) -> Option<SetupKey> {
        self.setup_key.read().unwrap_or_else(|error| {
            tracing::error!(%error, "no setup key");
            None
        })
    }
}
