//! A Sync stream: the whole map at first, then whenever it changes.

use std::future::pending;
use std::sync::Arc;

use prost::Message as _;
use tokio::sync::mpsc::{self, Sender, UnboundedReceiver};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::checks;
use crate::map::{Shape, map_of_nobody, network_map};
use crate::proto::management::{EncryptedMessage, MetricsConfig, NetbirdConfig, NetworkMap, SyncResponse};
use crate::sealed::seal_bytes;
use crate::state::{Extra, Inner, Session, State};

/// Messages that wait for a slow peer.
const QUEUE: usize = 16;

type Out = Sender<Result<EncryptedMessage, Status>>;

/// Opens the stream of a peer; an older one of its ends.
pub(crate) fn begin(
    inner: &mut Inner,
    state: &Arc<State>,
    key: String,
) -> ReceiverStream<Result<EncryptedMessage, Status>> {
    let id = inner.session_id();
    let (extra, extras) = mpsc::unbounded_channel();
    inner.sessions.insert(key.clone(), Session { id, extra });
    if let Some(peer) = inner.account.peers.get_mut(&key) {
        (peer.connected, peer.away_since) = (true, None);
    }
    let (out, stream) = mpsc::channel(QUEUE);
    let (changed, dropped) = (state.changed.subscribe(), state.dropped.subscribe());
    let push = Push { state: Arc::clone(state), key, id, out, changed, dropped, last: None, servers: inner.servers };
    tokio::spawn(push.run(extras));
    ReceiverStream::new(stream)
}

struct Push {
    state: Arc<State>,
    key: String,
    id: u64,
    out: Out,
    changed: watch::Receiver<u64>,
    dropped: watch::Receiver<u64>,
    /// What the peer knows.
    last: Option<NetworkMap>,
    /// Changes of the STUN and TURN servers that the peer knows.
    servers: u64,
}

enum End {
    /// The peer went away, or the stream was dropped.
    Gone,
    /// A newer stream has taken its place.
    Superseded,
    /// The peer was deleted.
    Deleted,
}

impl Push {
    async fn run(mut self, mut extras: UnboundedReceiver<Extra>) {
        let end = self.until_end(&mut extras).await;
        if let End::Gone = end {
            leave(&self.state, &self.key, self.id).await;
        }
    }

    async fn until_end(&mut self, extras: &mut UnboundedReceiver<Extra>) -> End {
        if let Err(end) = self.send_map().await {
            return end;
        }
        let mut renewal = Instant::now() + self.token_life();
        let mut turn_renewal = Instant::now() + self.turn_life();
        let mut quiet_until = Instant::now();
        let mut waiting = false;
        loop {
            tokio::select! {
                biased;
                () = self.out.closed() => return End::Gone,
                _ = self.dropped.changed() => return End::Gone,
                extra = extras.recv() => {
                    let Some(extra) = extra else { return End::Superseded };
                    if self.send_extra(extra).await.is_err() {
                        return End::Gone;
                    }
                }
                _ = self.changed.changed() => {
                    if let Some(end) = self.standing() {
                        return self.say_goodbye(end).await;
                    }
                    waiting = true;
                    if let Some(config) = self.changed_servers() {
                        turn_renewal = Instant::now() + self.turn_life();
                        if self.send_config(config).await.is_err() {
                            return End::Gone;
                        }
                    }
                }
                () = async { if waiting { sleep_until(quiet_until).await } else { pending().await } } => {
                    waiting = false;
                    if let Err(end) = self.send_map().await {
                        return end;
                    }
                    quiet_until = Instant::now() + self.state.lock().options.push_interval;
                }
                () = sleep_until(renewal) => {
                    renewal = Instant::now() + self.token_life();
                    let relay = self.state.lock().relay_config(&self.key);
                    let config = NetbirdConfig { relay, ..NetbirdConfig::default() };
                    if self.send_config(config).await.is_err() {
                        return End::Gone;
                    }
                }
                () = sleep_until(turn_renewal) => {
                    turn_renewal = Instant::now() + self.turn_life();
                    if let Some(config) = self.renewed_turns()
                        && self.send_config(config).await.is_err()
                    {
                        return End::Gone;
                    }
                }
            }
        }
    }

    fn token_life(&self) -> std::time::Duration {
        self.state.lock().options.token_ttl * 3 / 4
    }

    fn turn_life(&self) -> std::time::Duration {
        self.state.lock().options.turns.ttl * 3 / 4
    }

    /// New credentials for TURN come with a token for the relay.
    fn renewed_turns(&self) -> Option<NetbirdConfig> {
        let state = self.state.lock();
        let turns = Some(state.turns()).filter(|turns| !turns.is_empty())?;
        Some(NetbirdConfig { turns, relay: state.relay_config(&self.key), ..NetbirdConfig::default() })
    }

    /// All servers, if those for STUN or TURN have changed since the peer got them.
    fn changed_servers(&mut self) -> Option<NetbirdConfig> {
        let state = self.state.lock();
        let known = std::mem::replace(&mut self.servers, state.servers);
        (known != state.servers).then(|| state.netbird_config(&self.key))
    }

    /// Why the stream must end, if it must.
    fn standing(&self) -> Option<End> {
        let state = self.state.lock();
        if state.sessions.get(&self.key).is_none_or(|session| session.id != self.id) {
            return Some(End::Superseded);
        }
        (!state.account.peers.contains_key(&self.key)).then_some(End::Deleted)
    }

    async fn say_goodbye(&self, end: End) -> End {
        if let End::Deleted = end {
            let network_map = {
                let mut state = self.state.lock();
                state.sessions.remove(&self.key);
                Some(map_of_nobody(state.account.serial))
            };
            // It may be gone already.
            let _ = self.send(SyncResponse { network_map, ..SyncResponse::default() }.encode_to_vec()).await;
        }
        end
    }

    /// Sends the map, unless the peer knows all of it but the serial.
    async fn send_map(&mut self) -> Result<(), End> {
        let message = {
            let state = self.state.lock();
            let map = network_map(&state.account, &self.key, state.shape()).ok_or(End::Deleted)?;
            let known = self.last.as_ref().is_some_and(|last| same(last, &map));
            (!known).then(|| sync_response(&state, &self.key, map, self.last.is_none()))
        };
        let Some(message) = message else { return Ok(()) };
        let sent = self.send(message.encode_to_vec()).await;
        self.last = message.network_map;
        sent
    }

    async fn send_extra(&self, extra: Extra) -> Result<(), End> {
        match extra {
            Extra::Plaintext(plaintext) => self.send(plaintext).await,
            Extra::Body(body) => self.send_body(body).await,
        }
    }

    async fn send_config(&self, config: NetbirdConfig) -> Result<(), End> {
        let message = SyncResponse { netbird_config: Some(config), ..SyncResponse::default() };
        self.send(message.encode_to_vec()).await
    }

    async fn send(&self, plaintext: Vec<u8>) -> Result<(), End> {
        let keys = self.state.lock().keys.clone();
        let body = seal_bytes(&keys, &self.key, &plaintext).map_err(|_| End::Gone)?;
        self.send_body(body).await
    }

    async fn send_body(&self, body: Vec<u8>) -> Result<(), End> {
        let wg_pub_key = self.state.lock().keys.public().to_owned();
        let message = EncryptedMessage { wg_pub_key, body, version: 0 };
        self.out.send(Ok(message)).await.map_err(|_| End::Gone)
    }
}

/// Marks the peer as away; an ephemeral one goes, unless it comes back in time.
async fn leave(state: &Arc<State>, key: &str, id: u64) {
    let wait = {
        let mut inner = state.lock();
        if inner.sessions.get(key).is_none_or(|session| session.id != id) {
            return;
        }
        inner.sessions.remove(key);
        let Some(peer) = inner.account.peers.get_mut(key) else { return };
        (peer.connected, peer.away_since) = (false, Some(id));
        if !peer.ephemeral {
            return;
        }
        inner.options.ephemeral_after
    };
    sleep(wait).await;
    let deleted = {
        let mut inner = state.lock();
        let away = inner.account.peers.get(key).is_some_and(|peer| peer.away_since == Some(id));
        // A router that a network names cannot be deleted: it stays.
        away && inner.account.remove_peer(key).is_ok()
    };
    if deleted {
        state.notify();
    }
}

fn same(last: &NetworkMap, map: &NetworkMap) -> bool {
    *last == NetworkMap { serial: last.serial, ..map.clone() }
}

fn sync_response(state: &Inner, key: &str, map: NetworkMap, first: bool) -> SyncResponse {
    let shape = state.shape();
    let metrics = NetbirdConfig { metrics: Some(MetricsConfig::default()), ..NetbirdConfig::default() };
    let netbird_config =
        if first { Some(state.netbird_config(key)) } else { (shape == Shape::V0_74_0).then_some(metrics) };
    let (remote_peers, remote_peers_is_empty) = if shape.has_peers_beside_map() {
        (map.remote_peers.clone(), map.remote_peers_is_empty)
    } else {
        Default::default()
    };
    SyncResponse {
        netbird_config,
        peer_config: map.peer_config.clone(),
        remote_peers,
        remote_peers_is_empty,
        network_map: Some(map),
        checks: checks(state),
        session_expires_at: None,
    }
}
