//! Keeps the endpoints of peers, so that the next start knows where they are.

use std::sync::Arc;
use std::time::Duration;

use peer_io::shard::Shard;
use peer_wireguard::Engine;
use tokio::sync::Notify;

use crate::admin::endpoint;
use crate::state::{EndpointFile, Endpoints};

/// A change is on disk after this time: roaming peers must not wear the disk out.
const SETTLE: Duration = Duration::from_secs(2);

/// Gives peers without an endpoint the one that they had.
pub(super) fn restore(engine: &mut Engine, endpoints: &Endpoints) {
    let now = std::time::Instant::now();
    for (peer, endpoint) in endpoints {
        engine.set_endpoint(now, peer, *endpoint);
    }
}

/// Writes the file whenever `changed` says so, until the task is aborted.
pub(super) async fn keep(mut file: EndpointFile, shard: Arc<Shard<Engine>>, changed: Arc<Notify>) {
    loop {
        changed.notified().await;
        tokio::time::sleep(SETTLE).await;
        let Ok(peers) = shard.with_engine(|engine, now| engine.peers(now)).await else { return };
        let known = peers.iter().filter_map(|peer| Some((peer.public_key, endpoint(peer.path?)?)));
        if let Err(error) = file.write(known.collect()) {
            tracing::warn!(error = format!("{error:#}"), "endpoints of peers are not kept: a restart takes longer");
        }
    }
}
