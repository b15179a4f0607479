//! What the servers share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};

use super::account::Account;
use super::keys::KeyPair;
use super::map::Shape;
use super::proto::management::{HostConfig, NetbirdConfig, ProtectedHostConfig, host_config};
use super::relay::token;
use super::server::Options;
use super::turn::Credentials;

/// Account, streams and faults behind one lock, which is never held over an await.
pub(crate) struct State {
    inner: Mutex<Inner>,
    /// Counts what streams must look at.
    pub(crate) changed: watch::Sender<u64>,
    /// Counts what ends all streams.
    pub(crate) dropped: watch::Sender<u64>,
}

pub(crate) struct Inner {
    pub(crate) account: Account,
    pub(crate) options: Options,
    /// Counts changes of the STUN and TURN servers.
    pub(crate) servers: u64,
    pub(crate) faults: Faults,
    /// Of this start: not kept over a restart, as with real servers.
    pub(crate) keys: KeyPair,
    /// Streams of Sync by peer.
    pub(crate) sessions: BTreeMap<String, Session>,
    /// Receiving ends of signal by peer.
    pub(crate) signal: BTreeMap<String, SignalSession>,
    /// Numbers all sessions.
    pub(crate) next_session: u64,
    pub(crate) seen: Seen,
}

/// A Sync stream.
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) extra: mpsc::UnboundedSender<Extra>,
}

/// What a test puts into a Sync stream.
#[derive(Clone, Debug)]
pub(crate) enum Extra {
    /// Plaintext, to be sealed.
    Plaintext(Vec<u8>),
    /// A body as it is.
    Body(Vec<u8>),
}

pub(crate) struct SignalSession {
    pub(crate) id: u64,
    pub(crate) sender: mpsc::UnboundedSender<crate::proto::signal::EncryptedMessage>,
}

/// What goes wrong, on demand.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Time before each answer of management.
    pub slow: Duration,
    /// Logins are refused with this code and text.
    pub refuse_login: Option<(tonic::Code, String)>,
    /// Syncs are refused with this code and text.
    pub refuse_sync: Option<(tonic::Code, String)>,
    /// Messages are taken and not delivered.
    pub signal_loses: bool,
    /// The stream of signal opens without saying that the peer is registered.
    pub signal_without_header: bool,
    /// Frames between peers are taken by the relay and not delivered.
    pub relay_loses: bool,
    /// Tokens are refused.
    pub relay_refuses: bool,
    /// No health checks are sent.
    pub relay_is_silent: bool,
}

/// What has been asked of the servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Logins, refused ones included.
    pub logins: u32,
    /// Logins that carried a setup key.
    pub setup_keys: u32,
    /// Sync streams.
    pub syncs: u32,
    /// Calls of `SyncMeta`.
    pub meta_updates: u32,
    /// Calls of `Logout`.
    pub logouts: u32,
    /// Streams of signal.
    pub signal_streams: u32,
    /// Messages taken by signal.
    pub signal_messages: u64,
    /// Connections that the relay has let in.
    pub relay_connections: u32,
}

impl State {
    pub(crate) fn new(options: Options, account: Account) -> Arc<Self> {
        let inner = Inner {
            account,
            options,
            servers: 0,
            faults: Faults::default(),
            keys: KeyPair::generate(),
            sessions: BTreeMap::new(),
            signal: BTreeMap::new(),
            next_session: 1,
            seen: Seen::default(),
        };
        Arc::new(Self { inner: Mutex::new(inner), changed: watch::Sender::new(0), dropped: watch::Sender::new(0) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets all streams look at the account.
    pub(crate) fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Ends all streams; connections stay.
    pub(crate) fn drop_streams(&self) {
        self.dropped.send_modify(|count| *count += 1);
    }
}

impl Inner {
    pub(crate) fn shape(&self) -> Shape {
        self.options.shape
    }

    pub(crate) fn session_id(&mut self) -> u64 {
        self.next_session += 1;
        self.next_session
    }

    /// Addresses of the other servers, with a fresh token.
    pub(crate) fn netbird_config(&self, key: &str) -> NetbirdConfig {
        use crate::proto::management::MetricsConfig;
        let protocol =
            if self.options.tls.is_some() { host_config::Protocol::Https } else { host_config::Protocol::Http };
        let signal = self.options.signal.as_ref().unwrap_or(&self.options.exposed);
        NetbirdConfig {
            stuns: self.options.stuns.iter().map(|uri| over_udp(uri)).collect(),
            turns: self.turns(),
            signal: Some(HostConfig { uri: signal.clone(), protocol: protocol.into() }),
            relay: self.relay_config(key),
            metrics: self.shape().has_ipv6().then(MetricsConfig::default),
            ..NetbirdConfig::default()
        }
    }

    /// The TURN servers, with fresh credentials.
    pub(crate) fn turns(&self) -> Vec<ProtectedHostConfig> {
        let turns = &self.options.turns;
        let Credentials { user, password } = Credentials::issue(&turns.secret, SystemTime::now() + turns.ttl);
        let host = |uri: &String| ProtectedHostConfig {
            host_config: Some(over_udp(uri)),
            user: user.clone(),
            password: password.clone(),
        };
        turns.uris.iter().map(host).collect()
    }

    pub(crate) fn relay_config(&self, key: &str) -> Option<crate::proto::management::RelayConfig> {
        let own = self.account.peers.get(key).and_then(|peer| peer.relays.clone());
        let urls = own.unwrap_or_else(|| self.options.relay_urls());
        if urls.is_empty() {
            return None;
        }
        let expires = SystemTime::now() + self.options.token_ttl;
        let token::Token { payload, signature } = token::issue(&self.options.relay_secret, expires);
        Some(crate::proto::management::RelayConfig { urls, token_payload: payload, token_signature: signature })
    }
}

fn over_udp(uri: &str) -> HostConfig {
    HostConfig { uri: uri.to_owned(), protocol: host_config::Protocol::Udp.into() }
}
