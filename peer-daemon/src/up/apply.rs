//! Another desired state while the daemon runs.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use peer_core::desired::Desired;
use peer_wireguard::PeersChanged;

use super::life::Node;
use super::translate;
use crate::admin::Known;

/// What changed with another desired state.
#[derive(Debug)]
pub(crate) struct Applied {
    /// Peers that came, went, or are configured differently.
    pub(crate) peers: PeersChanged,
}

/// A field that is fixed at the start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} cannot change while the daemon runs: {is} is in force, {wanted} is wanted; restart the daemon for it")]
pub(crate) struct Fixed {
    field: &'static str,
    is: String,
    wanted: String,
}

impl Node {
    /// Puts another desired state in force: peers, overlay addresses, routes, rules. What stays is not interrupted, and
    /// a peer that stays keeps its sessions.
    ///
    /// # Errors
    /// When something is wanted that is fixed at the start ([`Fixed`]), or that device or dataplane refuse. What was in force
    /// stays in force then, all of it.
    pub(crate) async fn apply(&mut self, desired: &Desired) -> anyhow::Result<Applied> {
        fixed(&self.desired, desired)?;
        let ids = self.ids.with(&desired.peers);
        let intent = translate::intent(desired, &ids, self.device.clone(), &self.limits);
        let networks = translate::device(desired);
        // Whoever can refuse comes first, and is set back when the next one does.
        let set = self.wt0.lock().await.set_networks(&networks.addresses, &networks.routes).await;
        if let Err(error) = set {
            self.restore_networks().await;
            return Err(error).context("set addresses and routes of the mesh device");
        }
        if let Err(error) = self.driver.apply(Arc::new(intent)).await {
            self.restore_networks().await;
            return Err(error.into());
        }
        let peers = Arc::clone(&desired.peers);
        let changed = self.shard.with_engine(move |engine, now| engine.set_peers(now, peers)).await?;
        for (peer, why) in &changed.refused {
            tracing::warn!(%peer, %why, "peer not taken");
        }
        self.known.send_replace(Arc::new(Known::of(desired, &ids)));
        self.ids = ids;
        self.desired = desired.clone();
        Ok(Applied { peers: changed })
    }

    /// Applies the file that the daemon was started with, as it is now. What is wrong with it is logged, and changes nothing.
    pub(super) async fn reload(&mut self, file: &Path) {
        let desired = match peer_static::load(file) {
            Ok(desired) => desired,
            Err(error) => {
                for problem in error.to_string().lines() {
                    tracing::error!("not reloaded: {problem}");
                }
                return;
            }
        };
        match self.apply(&desired).await {
            Ok(applied) => tracing::info!(%applied, "reloaded"),
            Err(error) => tracing::error!(error = format!("{error:#}"), "not reloaded"),
        }
    }

    async fn restore_networks(&mut self) {
        let networks = translate::device(&self.desired);
        if let Err(error) = self.wt0.lock().await.set_networks(&networks.addresses, &networks.routes).await {
            tracing::error!(%error, "addresses and routes of the mesh device could not be set back");
        }
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PeersChanged { added, removed, updated, .. } = &self.peers;
        write!(f, "peers: {} added, {} removed, {} changed", added.len(), removed.len(), updated.len())
    }
}

/// Whether nothing differs that is fixed at the start.
fn fixed(is: &Desired, wanted: &Desired) -> Result<(), Fixed> {
    let (is, wanted) = (&is.interface, &wanted.interface);
    // Of the private key its public one is shown.
    let fields = [
        ("interface.name", is.name.clone(), wanted.name.clone()),
        (
            "interface.private_key",
            format!("the one of {}", is.private_key.public_key()),
            format!("the one of {}", wanted.private_key.public_key()),
        ),
        ("interface.listen_port", is.listen_port.to_string(), wanted.listen_port.to_string()),
        ("interface.mtu", is.mtu.to_string(), wanted.mtu.to_string()),
    ];
    match fields.into_iter().find(|(_, is, wanted)| is != wanted) {
        Some((field, is, wanted)) => Err(Fixed { field, is, wanted }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use peer_core::desired::Interface;
    use peer_core::key::PrivateKey;

    use super::*;

    fn desired(change: impl FnOnce(&mut Interface)) -> Desired {
        let mut interface = Interface {
            name: "wt0".to_owned(),
            private_key: PrivateKey::from_bytes([1; 32]),
            listen_port: 51820,
            addresses: vec!["100.64.0.1/16".parse().expect("a prefix")],
            mtu: 1420,
        };
        change(&mut interface);
        Desired { interface, peers: Arc::default(), routes: Vec::new(), rules: Arc::default(), unsupported: Vec::new() }
    }

    #[test]
    fn what_is_fixed_is_named_with_both_values_and_no_secret() {
        let refused = |change: fn(&mut Interface)| fixed(&desired(|_| {}), &desired(change)).map_err(|e| e.to_string());
        assert_eq!(refused(|_| {}), Ok(()));
        assert_eq!(refused(|interface| interface.addresses.clear()), Ok(()), "addresses may change");
        for (change, parts) in [
            ((|interface| interface.mtu = 1280) as fn(&mut Interface), ["interface.mtu", "1420", "1280"]),
            (|interface| interface.listen_port = 0, ["interface.listen_port", "51820", "0"]),
            (|interface| interface.name = "wt1".to_owned(), ["interface.name", "wt0", "wt1"]),
        ] {
            let error = refused(change).expect_err("fixed");
            assert!(parts.iter().all(|part| error.contains(part)) && error.contains("restart"), "{error}");
        }
        let error = refused(|interface| interface.private_key = PrivateKey::from_bytes([2; 32])).expect_err("fixed");
        let secret = PrivateKey::from_bytes([2; 32]).expose_base64().to_string();
        assert!(error.contains("interface.private_key") && !error.contains(&secret), "{error}");
    }
}
