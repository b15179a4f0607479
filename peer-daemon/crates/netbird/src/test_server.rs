//! A server for this crate's tests, in memory: with the clock held, nothing in it takes time. It does as it is told, and
//! remembers what it was asked.

mod management;
mod signal;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use peer_core::key::{PrivateKey, PublicKey};
use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tonic::Status;
use tonic::transport::Server;

use crate::dial::Dial;
use crate::proto::management::management_service_server::ManagementServiceServer;
use crate::proto::management::{self as wire, LoginResponse, SyncResponse};
use crate::proto::signal as signal_wire;
use crate::proto::signal::signal_exchange_server::SignalExchangeServer;
use crate::sealed::Sealer;
use crate::server::ServerUrl;

/// What was asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Call {
    ServerKey,
    Login { setup_key: String, meta: wire::PeerSystemMeta, keys: wire::PeerKeys },
    Sync,
    SyncMeta(wire::PeerSystemMeta),
    Logout,
    Health,
}

/// How the server behaves.
pub(crate) struct Script {
    pub(crate) key: PrivateKey,
    pub(crate) calls: Vec<Call>,
    pub(crate) known: HashSet<PublicKey>,
    pub(crate) setup_keys: HashSet<String>,
    pub(crate) login: LoginResponse,
    pub(crate) refuse_sync: Option<Status>,
    /// Takes the stream, then fails.
    pub(crate) fail_sync: Option<Status>,
    pub(crate) refuse_logout: Option<Status>,
    pub(crate) refuse_meta: Option<Status>,
    /// Answers nothing to GetServerKey.
    pub(crate) silent: bool,
    stream: Option<(PublicKey, mpsc::Sender<Result<wire::EncryptedMessage, Status>>)>,
    /// The signal server's streams.
    peers: HashMap<String, mpsc::Sender<Result<signal_wire::EncryptedMessage, Status>>>,
    /// Signal does not say that it registered the peer.
    pub(crate) no_header: bool,
    /// Signal takes messages and delivers none.
    pub(crate) swallow: bool,
    /// How long each delivery of signal takes: one after the other.
    pub(crate) delays: Vec<Duration>,
    /// Messages that signal took.
    pub(crate) sends: usize,
}

#[derive(Clone)]
pub(crate) struct TestServer {
    script: Arc<Mutex<Script>>,
    incoming: mpsc::UnboundedSender<io::Result<DuplexStream>>,
    down: Arc<AtomicBool>,
    connections: Arc<Mutex<JoinSet<()>>>,
    changed: Arc<Notify>,
    _task: Arc<Aborted>,
}

struct Aborted(AbortHandle);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn private(byte: u8) -> PrivateKey {
    PrivateKey::from_bytes([byte; 32])
}

pub(crate) fn url() -> ServerUrl {
    ServerUrl { tls: false, host: "server.test".to_owned(), port: 80 }
}

impl TestServer {
    pub(crate) fn start() -> Self {
        let script = Script {
            key: private(200),
            calls: Vec::new(),
            known: HashSet::new(),
            setup_keys: HashSet::new(),
            login: LoginResponse::default(),
            refuse_sync: None,
            fail_sync: None,
            refuse_logout: None,
            refuse_meta: None,
            silent: false,
            stream: None,
            peers: HashMap::new(),
            no_header: false,
            swallow: false,
            delays: Vec::new(),
            sends: 0,
        };
        let (script, changed) = (Arc::new(Mutex::new(script)), Arc::<Notify>::default());
        let (incoming, connections) = mpsc::unbounded_channel();
        let management = management::Service { script: script.clone(), changed: changed.clone() };
        let signal = signal::Service { script: script.clone() };
        let connections = futures_util::stream::unfold(connections, async |mut connections| {
            Some((connections.recv().await?, connections))
        });
        let server = Server::builder()
            .add_service(ManagementServiceServer::new(management).max_decoding_message_size(64 << 20))
            .add_service(SignalExchangeServer::new(signal))
            .serve_with_incoming(connections);
        let task = tokio::spawn(async move { server.await.expect("the server runs") });
        Self {
            script,
            incoming,
            down: Arc::default(),
            connections: Arc::default(),
            changed,
            _task: Arc::new(Aborted(task.abort_handle())),
        }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no panic")
    }

    /// Connects to this server, or is refused while it is down.
    pub(crate) fn dial(&self) -> impl Dial + use<> {
        let server = self.clone();
        move |url: ServerUrl| {
            let server = server.clone();
            async move {
                assert_eq!(url, self::url());
                server.connect()
            }
        }
    }

    fn connect(&self) -> io::Result<DuplexStream> {
        if self.down.load(Relaxed) {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the test server is down"));
        }
        let (client, mut near) = duplex(1 << 16);
        let (mut far, server) = duplex(1 << 16);
        self.connections.lock().expect("no panic").spawn(async move {
            let _ = copy_bidirectional(&mut near, &mut far).await;
        });
        self.incoming.send(Ok(server)).map_err(|_| io::Error::other("the server is gone"))?;
        Ok(client)
    }

    /// Breaks all connections; new ones are refused until [`Self::come_back`].
    pub(crate) fn go_down(&self) {
        self.down.store(true, Relaxed);
        self.connections.lock().expect("no panic").abort_all();
    }

    /// As a new process: with a new key.
    pub(crate) fn come_back(&self) {
        let mut script = self.script();
        script.key = private(script.key.expose()[0].wrapping_add(1));
        self.down.store(false, Relaxed);
    }

    /// Sends a message by the stream of maps.
    pub(crate) async fn push(&self, message: &SyncResponse) {
        let (sealed, sender) = {
            let script = self.script();
            let (peer, sender) = script.stream.as_ref().expect("a stream");
            (Sealer::new(&script.key, peer).seal_message(message), sender.clone())
        };
        self.push_body(sealed, &sender).await;
    }

    /// Sends any body.
    pub(crate) async fn push_garbage(&self, body: &[u8]) {
        let sender = self.script().stream.as_ref().expect("a stream").1.clone();
        self.push_body(body.to_vec(), &sender).await;
    }

    async fn push_body(&self, body: Vec<u8>, sender: &mpsc::Sender<Result<wire::EncryptedMessage, Status>>) {
        let message = wire::EncryptedMessage { wg_pub_key: String::new(), body, version: 0 };
        sender.send(Ok(message)).await.expect("an open stream");
    }

    /// Ends the stream of maps: properly, or with an error.
    pub(crate) async fn end_stream(&self, status: Option<Status>) {
        let (_, sender) = self.script().stream.take().expect("a stream");
        if let Some(status) = status {
            sender.send(Err(status)).await.expect("an open stream");
        }
    }

    /// Until the client has left the stream of maps.
    pub(crate) async fn stream_left(&self) {
        let (_, sender) = self.script().stream.take().expect("a stream");
        sender.closed().await;
    }

    /// Until a call of this kind was made, counted from the last one taken; takes all calls up to it.
    pub(crate) async fn called(&self, kind: impl Fn(&Call) -> bool) -> Call {
        loop {
            let changed = self.changed.notified();
            {
                let calls = &mut self.script().calls;
                if let Some(at) = calls.iter().position(&kind) {
                    return calls.drain(..=at).next_back().expect("the call");
                }
            }
            changed.await;
        }
    }

    /// Sends any signal message to a connected peer.
    pub(crate) async fn signal(&self, to: &PublicKey, message: signal_wire::EncryptedMessage) {
        let sender = self.script().peers.get(&to.to_string()).expect("a peer").clone();
        sender.send(Ok(message)).await.expect("an open stream");
    }
}
