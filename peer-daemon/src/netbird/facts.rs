//! What management asks of this node.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use peer_identity::{Identity, Origin, StateDir};
use peer_netbird::management::{Node, SetupKey};
use peer_netbird::meta;
use peer_netbird::proto::management::PeerSystemMeta;

use super::refused;
use super::settings::{Settings, SetupKeySource};

/// A new identity, until there is a setup key to register it with: a daemon that nobody has configured yet writes none.
#[derive(Clone, Debug)]
pub(super) struct Unkept(Arc<Mutex<Option<New>>>);

/// A new identity, where it is to be kept, and its management server.
#[derive(Debug)]
struct New {
    identity: Identity,
    dir: Arc<StateDir>,
    url: String,
}

impl Unkept {
    /// Keeps an identity that has a life already; a new one waits.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub(super) fn of(identity: Identity, dir: &Arc<StateDir>, settings: &Settings) -> anyhow::Result<Self> {
        let url = settings.management.to_string();
        if identity.origin == Origin::New {
            return Ok(Self(Arc::new(Mutex::new(Some(New { identity, dir: Arc::clone(dir), url })))));
        }
        identity.keep(dir, &url).map_err(|error| refused(error, dir.path()))?;
        Ok(Self(Arc::default()))
    }

    /// Keeps it now, unless it is kept already.
    fn keep(&self) -> anyhow::Result<()> {
        let mut unkept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(New { identity, dir, url }) = &*unkept {
            identity.keep(dir, url).map_err(|error| refused(error, dir.path()))?;
            tracing::info!(public_key = %identity.private_key.public_key(), "the new identity is kept");
        }
        *unkept = None;
        Ok(())
    }
}

/// Facts about this system, and the setup key.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    options: meta::Options,
    setup_key: SetupKeySource,
    overlay: Arc<Mutex<BTreeSet<IpAddr>>>,
    /// Why the setup key could not be read the last time; logged when it changes.
    unread: Arc<Mutex<Option<String>>>,
    unkept: Unkept,
}

impl Facts {
    pub(super) fn new(settings: &Settings, unkept: Unkept) -> Self {
        let options = meta::Options {
            hostname: settings.hostname.clone(),
            flags: settings.flags,
            ipv6: settings.ipv6,
            excluded_interfaces: [settings.interface_name.clone()].into(),
            ..meta::Options::default()
        };
        Self { options, setup_key: settings.setup_key.clone(), overlay: Arc::default(), unread: Arc::default(), unkept }
    }

    /// Keeps a new identity that a server knows.
    pub(super) fn keep_identity(&self) {
        if let Err(error) = self.unkept.keep() {
            tracing::warn!(error = format!("{error:#}"), "the identity is not kept: a restart is another peer");
        }
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
        // Kept first: a server must not know a peer that the next start has forgotten.
        let read = self.setup_key.read().map_err(anyhow::Error::from).and_then(|key| {
            if key.is_some() {
                self.unkept.keep()?;
            }
            Ok(key)
        });
        let why = read.as_ref().err().map(|error| format!("{error:#}"));
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = why.as_ref().filter(|_| *unread != why) {
            tracing::warn!(error, "this peer cannot be registered: that is tried again at each login");
        }
        *unread = why;
        read.unwrap_or_default()
    }
}
