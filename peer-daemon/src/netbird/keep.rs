//! The last map is kept, so that a restart need not wait for the server.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use peer_core::key::PublicKey;
use peer_identity::{KeptMap, StateDir};
use peer_netbird::management::SyncMessage;
use peer_netbird::proto::management::{LoginResponse, NetbirdConfig};
use tokio::task::JoinHandle;

/// Least time between two writes: the first is written at once, because a crash in the next moment must not lose it; of a
/// burst that follows only the last.
const SETTLE: Duration = Duration::from_secs(2);
/// While the server is there, what it said is still so: the time of the kept map is renewed this often.
const RENEW: Duration = Duration::from_secs(3600);

/// Keeps the state directory in step.
#[derive(Debug)]
pub(super) struct Keeper {
    dir: Arc<StateDir>,
    own: PublicKey,
    management_url: String,
    /// Servers as last told: maps come without them.
    servers: Option<NetbirdConfig>,
    last: Option<Arc<SyncMessage>>,
    due: Option<Instant>,
    written: Option<Instant>,
    /// A disk may be slow: the agent does not wait for it.
    writing: Option<JoinHandle<()>>,
}

/// A kept map that can be used.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) message: Arc<SyncMessage>,
    pub(super) age: Duration,
}

impl Keeper {
    pub(super) fn new(dir: Arc<StateDir>, own: PublicKey, management_url: String) -> Self {
        Self { dir, own, management_url, servers: None, last: None, due: None, written: None, writing: None }
    }

    /// The map of an earlier run, unless it is older than `limit` or from another server.
    pub(super) fn restore(&mut self, limit: Duration) -> Option<Kept> {
        let kept = match KeptMap::read(&self.dir, self.own) {
            Ok(kept) => kept?,
            Err(error) => {
                tracing::warn!(%error, "the kept network map is not used");
                return None;
            }
        };
        let age = kept.age(SystemTime::now());
        if kept.management_url != self.management_url {
            tracing::info!(of = kept.management_url, "the kept network map is of another server: not used");
            return None;
        }
        if age > limit {
            tracing::warn!(?age, ?limit, "the kept network map is too old (--max-stale-map): not used");
            return None;
        }
        match SyncMessage::new(kept.message).map(Arc::new) {
            Ok(message) => {
                self.servers.clone_from(&message.head().netbird_config);
                self.last = Some(Arc::clone(&message));
                Some(Kept { message, age })
            }
            Err(error) => {
                tracing::warn!(%error, "the kept network map cannot be read: not used");
                None
            }
        }
    }

    /// Hears of the servers.
    pub(super) fn logged_in(&mut self, response: &LoginResponse) {
        self.hear(response.netbird_config.as_ref());
    }

    /// Hears of the servers.
    pub(super) fn received(&mut self, message: &SyncMessage) {
        self.hear(message.head().netbird_config.as_ref());
    }

    /// This map is in force.
    pub(super) fn keep(&mut self, message: Arc<SyncMessage>, now: Instant) {
        self.last = Some(message);
        let settled = self.written.map_or(now, |written| (written + SETTLE).max(now));
        self.due = Some(self.due.unwrap_or(settled).min(settled));
    }

    /// When [`Self::write`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Writes the map in force as one that is so now. `connected`: the server is there to say so.
    pub(super) async fn write(&mut self, connected: bool, now: Instant) {
        self.flush().await;
        self.due = connected.then(|| now + RENEW);
        self.written = Some(now);
        let Some(message) = self.last.clone() else { return };
        let (dir, own) = (Arc::clone(&self.dir), self.own);
        let (management_url, servers) = (self.management_url.clone(), self.servers.clone());
        self.writing = Some(tokio::task::spawn_blocking(move || {
            // As it came, but with the servers: it is large, and to encode it anew would take time.
            let message = message.with_servers(servers.as_ref());
            let kept = KeptMap { received: SystemTime::now(), management_url, message };
            if let Err(error) = kept.write(&dir, own) {
                tracing::warn!(%error, "the network map is not kept: a restart needs the server");
            }
        }));
    }

    /// Waits until what was to be written is.
    pub(super) async fn flush(&mut self) {
        if let Some(writing) = self.writing.take() {
            // It does not panic, and nobody aborts it.
            _ = writing.await;
        }
    }

    /// The peer is no longer in this network.
    pub(super) async fn forget(&mut self) {
        self.flush().await;
        self.last = None;
        self.due = None;
        if let Err(error) = KeptMap::forget(&self.dir) {
            tracing::warn!(%error, "the kept network map could not be deleted");
        }
    }

    /// As the session takes it: what a message leaves out is as before.
    fn hear(&mut self, config: Option<&NetbirdConfig>) {
        let Some(config) = config else { return };
        let known = self.servers.get_or_insert_default();
        if config.signal.is_some() {
            known.signal.clone_from(&config.signal);
        }
        if !config.stuns.is_empty() {
            known.stuns.clone_from(&config.stuns);
        }
        if !config.turns.is_empty() {
            known.turns.clone_from(&config.turns);
        }
        if config.relay.is_some() || config.signal.is_some() {
            known.relay.clone_from(&config.relay);
        }
    }
}

#[cfg(test)]
mod tests {
    use peer_netbird::proto::management::{HostConfig, NetworkMap, RelayConfig, SyncResponse};
    use prost::Message as _;
    use zeroize::Zeroizing;

    use super::*;

    fn message(message: &SyncResponse) -> SyncMessage {
        SyncMessage::new(Zeroizing::new(message.encode_to_vec())).expect("a message")
    }

    fn keeper(dir: &Arc<StateDir>, url: &str) -> Keeper {
        Keeper::new(Arc::clone(dir), PublicKey([7; 32]), url.to_owned())
    }

    fn servers(token: &str) -> NetbirdConfig {
        NetbirdConfig {
            signal: Some(HostConfig { uri: "10.99.0.1:80".to_owned(), ..HostConfig::default() }),
            relay: Some(RelayConfig { token_payload: token.to_owned(), ..RelayConfig::default() }),
            ..NetbirdConfig::default()
        }
    }

    #[tokio::test]
    async fn a_map_comes_back_with_the_servers_of_the_last_message_that_named_them() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = Arc::new(StateDir::open(temp.path()).expect("opened"));
        let url = "http://10.99.0.1:80";
        let mut first = keeper(&dir, url);
        first.logged_in(&LoginResponse { netbird_config: Some(servers("old")), ..LoginResponse::default() });
        let refresh = NetbirdConfig { signal: None, ..servers("new") };
        first.received(&message(&SyncResponse { netbird_config: Some(refresh), ..SyncResponse::default() }));
        let map = NetworkMap { serial: 42, ..NetworkMap::default() };
        let with_map = message(&SyncResponse { network_map: Some(map.clone()), ..SyncResponse::default() });
        first.received(&with_map);
        let now = Instant::now();
        first.keep(Arc::new(with_map), now);
        assert_eq!(first.poll_timeout(), Some(now), "at once");
        first.write(true, now).await;
        first.flush().await;
        assert_eq!(first.poll_timeout(), Some(now + RENEW));
        let kept = keeper(&dir, url).restore(Duration::from_secs(60)).expect("kept");
        let kept = kept.message.decode().expect("a message");
        assert_eq!((kept.network_map, kept.netbird_config), (Some(map), Some(servers("new"))));
        assert!(keeper(&dir, "http://10.99.0.2:80").restore(Duration::from_secs(60)).is_none(), "another server's");
        first.keep(Arc::default(), now);
        assert_eq!(first.poll_timeout(), Some(now + SETTLE), "not at once again");
        first.forget().await;
        assert!(keeper(&dir, url).restore(Duration::from_secs(60)).is_none(), "forgotten");
    }

    #[tokio::test]
    async fn an_old_map_is_left_alone() {
        let temp = tempfile::tempdir().expect("a directory");
        let dir = Arc::new(StateDir::open(temp.path()).expect("opened"));
        let kept = KeptMap {
            received: SystemTime::now() - Duration::from_secs(90),
            management_url: "u".to_owned(),
            message: Zeroizing::default(),
        };
        kept.write(&dir, PublicKey([7; 32])).expect("written");
        assert!(keeper(&dir, "u").restore(Duration::from_secs(60)).is_none());
        let age = keeper(&dir, "u").restore(Duration::from_secs(3600)).expect("young enough").age;
        assert!((90..100).contains(&age.as_secs()), "{age:?}");
    }
}
