//! Keeps the endpoints of peers, so that the next start knows where they are.

use std::sync::Arc;
use std::time::Duration;

use peer_identity::{EndpointFile, Endpoints};
use peer_io::shard::Shard;
use peer_wireguard::Engine;
use tokio::sync::Notify;

use crate::admin::endpoint;

/// Least time between two writes: roaming peers must not wear the disk out.
const SETTLE: Duration = Duration::from_secs(2);

/// Gives peers without an endpoint the one that they had.
pub(super) fn restore(engine: &mut Engine, endpoints: &Endpoints) {
    let now = peer_io::clock::now();
    for (peer, endpoint) in endpoints {
        engine.set_endpoint(now, peer, *endpoint);
    }
}

/// Keeps the file in step with the engine.
pub(super) struct Keeper {
    file: EndpointFile,
    shard: Arc<Shard<Engine>>,
    changed: Arc<Notify>,
}

impl Keeper {
    pub(super) fn new(file: EndpointFile, shard: Arc<Shard<Engine>>, changed: Arc<Notify>) -> Self {
        Self { file, shard, changed }
    }

    /// Writes whenever an endpoint has changed, until `stop` is told: then once more, and ends.
    pub(super) async fn run(mut self, stop: Arc<Notify>) {
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = stop.notified() => break,
            }
            // At once: a crash in the next moment shall not lose it. The changes that follow wait.
            self.write().await;
            tokio::select! {
                () = tokio::time::sleep(SETTLE) => {}
                () = stop.notified() => break,
            }
        }
        self.write().await;
    }

    async fn write(&mut self) {
        let Ok(peers) = self.shard.with_engine(|engine, now| engine.peers(now)).await else { return };
        let known = peers.iter().filter_map(|peer| Some((peer.public_key, endpoint(peer.path?)?)));
        if let Err(error) = self.file.write(known.collect()) {
            tracing::warn!(%error, "endpoints of peers are not kept: a restart takes longer");
        }
    }
}
