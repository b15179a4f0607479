//! Single calls to the signal server.

use std::sync::Arc;
use std::time::Duration;

use peer_core::key::PublicKey;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::keys::Keys;
use super::task::SignalError;
use super::{Message, Options, SignalStats};
use crate::channel::Channels;
use crate::dial::Dial;
use crate::proto::signal::EncryptedMessage;
use crate::proto::signal::signal_exchange_client::SignalExchangeClient;
use crate::sealed::{OpenError, Plaintext};

/// Whose stream it is.
const ID_HEADER: &str = "x-wiretrustee-peer-id";
/// The server's word that it will deliver to this stream.
const REGISTERED_HEADER: &str = "x-wiretrustee-peer-registered";
/// Largest message taken, bytes. A Rosenpass key, which we skip, has 512 KiB.
const MAX_MESSAGE: usize = 1 << 20;
/// The server sends its headers at once.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// Of each attempt to send.
const SEND_TIMEOUTS: [Duration; 4] =
    [Duration::from_secs(10), Duration::from_secs(10), Duration::from_secs(10), Duration::from_secs(15)];
const SEND_PAUSE: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub(super) struct Client {
    keys: Arc<Keys>,
    public_key: PublicKey,
    channels: Channels,
}

impl Client {
    pub(super) fn new(options: Options, dial: impl Dial, stats: Arc<SignalStats>) -> Self {
        let Options { server, identity } = options;
        let public_key = identity.public_key();
        Self { keys: Arc::new(Keys::new(identity, stats)), public_key, channels: Channels::new(&server, dial) }
    }

    pub(super) const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Opens the stream and waits until the server has registered it.
    pub(super) async fn connect(&self) -> Result<Streaming<EncryptedMessage>, SignalError> {
        let result = self.register().await;
        if result.is_err() {
            self.renew();
        }
        result
    }

    /// The next connection is a new one.
    pub(super) fn renew(&self) {
        self.channels.renew();
    }

    async fn register(&self) -> Result<Streaming<EncryptedMessage>, SignalError> {
        let call = "ConnectStream";
        // Nothing is sent by it, yet it stays open: its end is ours.
        let mut request = Request::new(futures_util::stream::pending());
        let id = self.public_key.to_string().parse().map_err(|_| SignalError::NotRegistered)?;
        request.metadata_mut().insert(ID_HEADER, id);
        let mut grpc = self.grpc();
        let answer = timeout(REGISTER_TIMEOUT, grpc.connect_stream(request))
            .await
            .map_err(|_| SignalError::Timeout { call, after: REGISTER_TIMEOUT })?
            .map_err(|status| SignalError::status(call, &status))?;
        if answer.metadata().get(REGISTERED_HEADER).is_none() {
            return Err(SignalError::NotRegistered);
        }
        Ok(answer.into_inner())
    }

    /// Hands one message to the server. Success does not mean that it arrived.
    pub(super) async fn send(&self, to: PublicKey, message: &Message) -> Result<(), SignalError> {
        let mut result = Ok(());
        for after in SEND_TIMEOUTS {
            // Sealed anew each time: a nonce serves once.
            let mut grpc = self.grpc();
            let envelope = self.envelope(to, message);
            result = match timeout(after, grpc.send(envelope)).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(status)) => Err(SignalError::status("Send", &status)),
                Err(_) => Err(SignalError::Timeout { call: "Send", after }),
            };
            sleep(SEND_PAUSE).await;
        }
        result
    }

    /// Opens what came from `from`, which proves that it did.
    pub(super) fn open(&self, from: &PublicKey, body: Vec<u8>) -> Result<Plaintext, OpenError> {
        self.keys.open(from, body)
    }

    fn envelope(&self, to: PublicKey, message: &Message) -> EncryptedMessage {
        EncryptedMessage {
            key: self.public_key.to_string(),
            remote_key: to.to_string(),
            body: self.keys.seal(&to, &message.encode()),
        }
    }

    fn grpc(&self) -> SignalExchangeClient<Channel> {
        SignalExchangeClient::new(self.channels.get()).max_decoding_message_size(MAX_MESSAGE)
    }
}

impl SignalError {
    pub(super) fn status(call: &'static str, status: &Status) -> Self {
        match crate::text::failure_of(status) {
            Some(failure) => Self::Unreached { call, failure },
            None => Self::Status { call, code: status.code(), message: crate::text::of_status(status) },
        }
    }
}
