//! The port: management and signal by gRPC, the relay by WebSocket, as the combined server has them.

mod connection;
mod tls;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::routing::{any, get};
use prost::Message as _;
use tokio::runtime::{Builder, Runtime};
use tonic::service::Routes;

pub use super::state::{Faults, Seen};
pub use tls::Certificates;
pub use tonic::Code;

use super::account::{Account, RemovalError};
use super::keys::KeyPair;
use super::management::Management;
use super::map::Shape;
use super::proto::management::SyncResponse;
use super::proto::management::management_service_server::ManagementServiceServer;
use super::proto::signal::signal_exchange_server::SignalExchangeServer;
use super::relay::{self, Registry};
use super::signal::Signal;
use super::state::{Extra, State};

/// What a server is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Host and port by which peers reach it.
    pub exposed: String,
    /// With TLS, if there are certificates.
    pub tls: Option<Certificates>,
    /// Of the tokens for relays; relays with the same secret take each other's.
    pub relay_secret: String,
    /// Validity of tokens; new ones are pushed after three quarters of it.
    pub token_ttl: Duration,
    /// Host and port of the signal server that peers are told; `None`: this one.
    pub signal: Option<String>,
    /// Relays that peers are told; `None`: this one.
    pub relays: Option<Vec<String>>,
    /// Files that peers are asked about, by posture checks.
    pub posture_files: Vec<String>,
    /// STUN servers that peers get, as `stun:host:port`.
    pub stuns: Vec<String>,
    /// TURN servers that peers get.
    pub turns: Turns,
    /// Time between pushes to one peer.
    pub push_interval: Duration,
    /// Time after which an ephemeral peer that is away is deleted.
    pub ephemeral_after: Duration,
    /// Time between health checks of the relay.
    pub relay_health: Duration,
    /// Version that it behaves like.
    pub shape: Shape,
}

/// TURN servers that peers get, with credentials for all of them.
#[derive(Clone, Debug)]
pub struct Turns {
    /// The servers, as `turn:host:port?transport=udp`.
    pub uris: Vec<String>,
    /// The secret that the servers share with management.
    pub secret: String,
    /// Validity of credentials; new ones are pushed after three quarters of it.
    pub ttl: Duration,
}

impl Default for Turns {
    /// No servers; credentials as real servers issue them by default.
    fn default() -> Self {
        Self { uris: Vec::new(), secret: "turn-secret".to_owned(), ttl: Duration::from_secs(12 * 3600) }
    }
}

/// A running server, or one that is down. It keeps its account over restarts, but not its key.
pub struct Server {
    state: Arc<State>,
    relay: Arc<Registry>,
    bind: Box<dyn Fn() -> io::Result<TcpListener> + Send + Sync>,
    runtime: Option<Runtime>,
    address: SocketAddr,
}

impl Options {
    /// As real servers have it by default, reached by `exposed`, a host and a port.
    #[must_use]
    pub fn new(exposed: &str) -> Self {
        Self {
            exposed: exposed.to_owned(),
            tls: None,
            relay_secret: "interop-secret".to_owned(),
            token_ttl: Duration::from_secs(12 * 3600),
            signal: None,
            relays: None,
            posture_files: Vec::new(),
            stuns: Vec::new(),
            turns: Turns::default(),
            push_interval: Duration::from_secs(1),
            ephemeral_after: Duration::from_secs(600),
            relay_health: Duration::from_secs(25),
            shape: Shape::default(),
        }
    }

    /// What peers are given as the address of management.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.exposed)
    }

    /// What the relay calls itself.
    #[must_use]
    pub fn relay_url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "rels" } else { "rel" }, self.exposed)
    }

    pub(crate) fn relay_urls(&self) -> Vec<String> {
        self.relays.clone().unwrap_or_else(|| vec![self.relay_url()])
    }
}

impl Server {
    /// Starts one. `bind` opens the listening socket, also after a restart: it decides in which namespace.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn start(
        options: Options,
        account: Account,
        bind: impl Fn() -> io::Result<TcpListener> + Send + Sync + 'static,
    ) -> Result<Self> {
        let mut this = Self {
            relay: Arc::new(Registry::new(options.relay_url())),
            state: State::new(options, account),
            bind: Box::new(bind),
            runtime: None,
            address: SocketAddr::from(([0; 4], 0)),
        };
        this.resume()?;
        Ok(this)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What peers are given as the address of management.
    #[must_use]
    pub fn url(&self) -> String {
        self.state.lock().options.url()
    }

    /// Ends at once, as if killed: all connections close, streams end without a word.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        let mut state = self.state.lock();
        state.sessions.clear();
        state.signal.clear();
        for peer in state.account.peers.values_mut() {
            peer.connected = false;
        }
        drop(state);
        self.relay.clear();
    }

    /// Starts again after [`Self::kill`], with a new key.
    ///
    /// # Errors
    /// The socket cannot be opened; it runs already.
    pub fn resume(&mut self) -> Result<()> {
        ensure!(self.runtime.is_none(), "it runs already");
        let listener = (self.bind)().context("open the listening socket")?;
        listener.set_nonblocking(true)?;
        self.address = listener.local_addr()?;
        let tls = self.state.lock().options.tls.as_ref().map(Certificates::acceptor).transpose()?;
        self.state.lock().keys = KeyPair::generate();
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build()?;
        let router = self.router();
        {
            let _entered = runtime.enter();
            let listener = tokio::net::TcpListener::from_std(listener)?;
            runtime.spawn(connection::accept(listener, tls, router));
        }
        self.runtime = Some(runtime);
        Ok(())
    }

    /// Looks at the account.
    pub fn look<T>(&self, at: impl FnOnce(&Account) -> T) -> T {
        at(&self.state.lock().account)
    }

    /// Changes the account, then tells everybody whom it concerns.
    pub fn edit<T>(&self, change: impl FnOnce(&mut Account) -> T) -> T {
        let value = {
            let mut state = self.state.lock();
            let value = change(&mut state.account);
            state.account.serial += 1;
            value
        };
        self.state.notify();
        value
    }

    /// Deletes a peer, as by the API.
    ///
    /// # Errors
    /// See [`RemovalError`].
    pub fn delete_peer(&self, key: &str) -> Result<(), RemovalError> {
        let outcome = self.state.lock().account.remove_peer(key);
        self.state.notify();
        outcome
    }

    /// Lets things go wrong from now on; the default: nothing.
    pub fn set_faults(&self, faults: Faults) {
        self.relay.loses.store(faults.relay_loses, Ordering::Relaxed);
        self.relay.silent.store(faults.relay_is_silent, Ordering::Relaxed);
        self.state.lock().faults = faults;
    }

    /// Behaves like another version from now on.
    pub fn set_shape(&self, shape: Shape) {
        self.state.lock().options.shape = shape;
        self.state.notify();
    }

    /// Gives all peers these STUN servers from now on. A peer keeps those it has when the list is empty and others are
    /// not, as with real servers.
    pub fn set_stuns(&self, stuns: Vec<String>) {
        self.set_servers(|options| options.stuns = stuns);
    }

    /// Gives all peers these TURN servers from now on, with new credentials. Empty: as in [`Self::set_stuns`].
    pub fn set_turns(&self, turns: Turns) {
        self.set_servers(|options| options.turns = turns);
    }

    /// Ends all streams of Sync and signal and all connections of the relay.
    pub fn drop_streams(&self) {
        self.state.drop_streams();
        self.relay.close_all();
    }

    /// Sends a peer this, whatever its map says. `false`: it has no stream.
    pub fn push(&self, key: &str, message: &SyncResponse) -> bool {
        self.push_plaintext(key, message.encode_to_vec())
    }

    /// Sends a peer these bytes, sealed, in place of a message. `false`: it has no stream.
    pub fn push_plaintext(&self, key: &str, plaintext: Vec<u8>) -> bool {
        self.extra(key, Extra::Plaintext(plaintext))
    }

    /// Sends a peer these bytes in place of a sealed body. `false`: it has no stream.
    pub fn push_body(&self, key: &str, body: Vec<u8>) -> bool {
        self.extra(key, Extra::Body(body))
    }

    /// What has been asked of it since its first start.
    #[must_use]
    pub fn seen(&self) -> Seen {
        Seen { relay_connections: self.relay.connections(), ..self.state.lock().seen }
    }

    /// Frames between peers that the relay has taken.
    #[must_use]
    pub fn relay_frames(&self) -> u64 {
        self.relay.frames.load(Ordering::Relaxed)
    }

    /// Whether a peer has its stream of signal.
    #[must_use]
    pub fn has_signal(&self, key: &str) -> bool {
        self.state.lock().signal.contains_key(key)
    }

    /// Whether a peer is connected to the relay.
    #[must_use]
    pub fn has_relay(&self, key: &str) -> bool {
        self.relay.is_connected(&relay::PeerId::of(key))
    }

    /// Sends a peer a message of signal in the name of another, as it is. `false`: it has no stream.
    pub fn signal_raw(&self, from: &str, to: &str, body: Vec<u8>) -> bool {
        let message = super::proto::signal::EncryptedMessage { key: from.to_owned(), remote_key: to.to_owned(), body };
        let state = self.state.lock();
        state.signal.get(to).is_some_and(|session| session.sender.send(message).is_ok())
    }

    /// Sends a peer these bytes in place of a frame of the relay. `false`: it is not connected, or does not read.
    pub fn relay_raw(&self, key: &str, bytes: Vec<u8>) -> bool {
        self.relay.send_raw(&relay::PeerId::of(key), bytes.into())
    }

    fn set_servers(&self, change: impl FnOnce(&mut Options)) {
        {
            let mut state = self.state.lock();
            change(&mut state.options);
            state.servers += 1;
        }
        self.state.notify();
    }

    fn extra(&self, key: &str, extra: Extra) -> bool {
        let state = self.state.lock();
        state.sessions.get(key).is_some_and(|session| session.extra.send(extra).is_ok())
    }

    fn router(&self) -> Router {
        // Larger than any map that a test makes.
        const LIMIT: usize = 64 << 20;
        let management = ManagementServiceServer::new(Management::new(Arc::clone(&self.state)));
        let signal = SignalExchangeServer::new(Signal::new(Arc::clone(&self.state)));
        let grpc = Routes::new(management.max_decoding_message_size(LIMIT).max_encoding_message_size(LIMIT));
        let (relay, state) = (Arc::clone(&self.relay), Arc::clone(&self.state));
        grpc.add_service(signal)
            .into_axum_router()
            .route("/relay", any(move |upgrade| relay::upgrade(upgrade, relay, state)))
            .route("/api/instance", get(|| async { "{}" }))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
