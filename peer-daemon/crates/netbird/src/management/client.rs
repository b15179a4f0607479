//! Single calls to management.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peer_core::key::{PrivateKey, PublicKey};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use zeroize::Zeroize as _;

use super::error::{REGISTER, SYNC};
use super::{Error, SetupKey, SyncMessage, decode_login};
use crate::call::{self, CallError};
use crate::channel::Channels;
use crate::dial::Dial;
use crate::proto::management::management_service_client::ManagementServiceClient;
use crate::proto::management::{
    Empty, EncryptedMessage, LoginRequest, LoginResponse, PeerKeys, PeerSystemMeta, SyncMetaRequest, SyncRequest,
};
use crate::sealed::{DecodeError, Sealer};
use crate::server::ServerUrl;

/// Largest message taken unless told otherwise, bytes: what the official client takes.
pub const DEFAULT_MAX_MESSAGE: usize = 16 << 20;

/// The first call, which has to connect.
const KEY_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const LOGOUT_TIMEOUT: Duration = Duration::from_secs(15);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// Until the first message: the server computes the whole map for it.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);

/// Whom to talk to, as whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server.
    pub server: ServerUrl,
    /// Our WireGuard key: it is the identity here too.
    pub identity: PrivateKey,
    /// Our SSH host key as a line of `authorized_keys`; empty: none. The server stores what each login says.
    pub ssh_public_key: String,
    /// Additional DNS labels to register; the setup key must allow them.
    pub dns_labels: Vec<String>,
    /// Largest message taken, bytes.
    pub max_message: usize,
}

impl Options {
    /// Without SSH key and labels.
    #[must_use]
    pub const fn new(server: ServerUrl, identity: PrivateKey) -> Self {
        Self {
            server,
            identity,
            ssh_public_key: String::new(),
            dns_labels: Vec::new(),
            max_message: DEFAULT_MAX_MESSAGE,
        }
    }
}

/// Makes calls. Clones share the connection, which comes and goes by itself.
#[derive(Clone)]
pub struct Client {
    options: Options,
    public_key: String,
    channels: Channels,
    /// Whether the peer has left its account.
    left: Arc<watch::Sender<bool>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Client {
    /// Nothing is dialled before the first call. Within a tokio runtime only.
    #[must_use]
    pub fn new(options: Options, dial: impl Dial) -> Self {
        let channels = Channels::new(&options.server, dial);
        let left = Arc::new(watch::Sender::new(false));
        Self { public_key: options.identity.public_key().to_string(), options, channels, left }
    }

    /// Logs in, or registers if there is a setup key. A peer that is known already is logged in either way.
    ///
    /// # Errors
    ///
    /// [`Error::class`] tells what it means.
    pub async fn login(&self, meta: PeerSystemMeta, setup_key: Option<&SetupKey>) -> Result<LoginResponse, Error> {
        let call = if setup_key.is_some() { REGISTER } else { "Login" };
        let sealer = self.sealer().await?;
        let mut request = LoginRequest {
            setup_key: setup_key.map(|key| key.expose().to_owned()).unwrap_or_default(),
            meta: Some(meta),
            peer_keys: Some(PeerKeys {
                ssh_pub_key: self.options.ssh_public_key.clone().into_bytes(),
                wg_pub_key: self.public_key.clone().into_bytes(),
            }),
            dns_labels: self.options.dns_labels.clone(),
        };
        let body = sealer.seal_message(&request);
        request.setup_key.zeroize();
        let mut grpc = self.grpc();
        let answer = self.within(call, CALL_TIMEOUT, grpc.login(self.envelope(body))).await?;
        open(&sealer, answer.body, decode_login).map_err(|source| Error::Answer { call, source })
    }

    /// Opens the stream of maps, up to its first message; the server ends any older stream of this peer. A stream without a
    /// message is none: a server that fails while it makes the map accepts it first.
    ///
    /// # Errors
    ///
    /// `Refused` when the peer is not registered: log in again.
    pub async fn sync(&self, meta: PeerSystemMeta) -> Result<(MapStream, SyncMessage), Error> {
        let sealer = self.sealer().await?;
        let body = sealer.seal_message(&SyncRequest { meta: Some(meta) });
        let mut grpc = self.grpc();
        let stream = async {
            let answer = grpc.sync(self.envelope(body)).await.map_err(|status| CallError::status(SYNC, &status))?;
            let mut stream = MapStream { sealer, stream: answer.into_inner(), bytes: 0 };
            let first = stream.next().await?;
            Ok((stream, first))
        };
        let late = Error::from(CallError::Timeout { call: SYNC, after: SYNC_TIMEOUT });
        let result = timeout(SYNC_TIMEOUT, stream).await.unwrap_or(Err(late));
        result.inspect_err(|error| self.doubt(error))
    }

    /// Tells the server about a changed system.
    ///
    /// # Errors
    ///
    /// Those of a call.
    pub async fn sync_meta(&self, meta: PeerSystemMeta) -> Result<(), Error> {
        let body = self.sealer().await?.seal_message(&SyncMetaRequest { meta: Some(meta) });
        let mut grpc = self.grpc();
        self.within("SyncMeta", CALL_TIMEOUT, grpc.sync_meta(self.envelope(body))).await.map(|_| ())
    }

    /// Deletes this peer from its account. The task of the same client ends first: it would register the peer again.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` while the peer is named as a Network's router.
    pub async fn logout(&self) -> Result<(), Error> {
        self.left.send_replace(true);
        let body = self.sealer().await?.seal_message(&Empty {});
        let mut grpc = self.grpc();
        self.within("Logout", LOGOUT_TIMEOUT, grpc.logout(self.envelope(body))).await.map(|_| ())
    }

    /// Whether the server answers.
    ///
    /// # Errors
    ///
    /// Those of a call.
    pub async fn healthy(&self) -> Result<(), Error> {
        let mut grpc = self.grpc();
        self.within("isHealthy", HEALTH_TIMEOUT, grpc.is_healthy(Empty {})).await.map(|_| ())
    }

    /// The server's key lives as long as its process, so it is asked for before each call.
    async fn sealer(&self) -> Result<Sealer, Error> {
        let mut grpc = self.grpc();
        let answer = self.within("GetServerKey", KEY_TIMEOUT, grpc.get_server_key(Empty {})).await?;
        let key: PublicKey = answer.key.parse().map_err(Error::ServerKey)?;
        Ok(Sealer::new(&self.options.identity, &key))
    }

    fn grpc(&self) -> ManagementServiceClient<Channel> {
        ManagementServiceClient::new(self.channels.get()).max_decoding_message_size(self.options.max_message)
    }

    fn envelope(&self, body: Vec<u8>) -> EncryptedMessage {
        EncryptedMessage { wg_pub_key: self.public_key.clone(), body, version: 0 }
    }

    async fn within<T>(
        &self,
        call: &'static str,
        after: Duration,
        answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Error> {
        let answer = call::within(call, after, answer).await.map_err(Error::from);
        Ok(answer.inspect_err(|error| self.doubt(error))?.into_inner())
    }

    /// Until [`Self::logout`] is called.
    pub(super) async fn left(&self) {
        // An error would mean that the sender is gone, which we hold.
        let _ = self.left.subscribe().wait_for(|left| *left).await;
    }

    /// Leaves the connection if it may be dead after `error`.
    pub(super) fn doubt(&self, error: &Error) {
        if error.doubts_connection() {
            self.channels.renew();
        }
    }
}

/// The stream of maps.
pub struct MapStream {
    sealer: Sealer,
    stream: Streaming<EncryptedMessage>,
    bytes: usize,
}

impl MapStream {
    /// The next message. May be dropped while it waits.
    ///
    /// # Errors
    ///
    /// The stream is over with any of them.
    pub async fn next(&mut self) -> Result<SyncMessage, Error> {
        let message = self.stream.message().await.map_err(|status| CallError::status(SYNC, &status))?;
        let received = Some(Instant::now());
        let body = message.ok_or(CallError::Ended { call: SYNC })?.body;
        self.bytes = body.len();
        let opened = self.sealer.open(body).map_err(DecodeError::from).and_then(SyncMessage::new);
        let mut message = opened.map_err(|source| Error::Answer { call: SYNC, source })?;
        message.received = received;
        Ok(message)
    }

    /// Bytes of the last message, sealed.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

fn open<M>(sealer: &Sealer, body: Vec<u8>, decode: fn(&[u8]) -> Result<M, DecodeError>) -> Result<M, DecodeError> {
    decode(&sealer.open(body)?)
}
