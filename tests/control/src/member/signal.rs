//! Signal, as a peer uses it.

use anyhow::{Context as _, Result, ensure};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use super::LIMIT;
use crate::keys::KeyPair;
use crate::proto::signal::signal_exchange_client::SignalExchangeClient;
use crate::proto::signal::{Body, EncryptedMessage};
use crate::sealed::{open, seal};
use crate::signal::{PEER_ID, REGISTERED};

/// The sending side.
#[derive(Clone)]
pub struct Signal {
    client: SignalExchangeClient<Channel>,
    keys: KeyPair,
}

/// The receiving side; the peer is reached no longer when this is dropped.
pub struct SignalReceiver {
    stream: Streaming<EncryptedMessage>,
    keys: KeyPair,
    /// Keeps our half of the stream open.
    _sender: tokio::sync::mpsc::Sender<EncryptedMessage>,
}

impl Signal {
    /// Connects and registers at a server without TLS.
    ///
    /// # Errors
    /// Nobody answers, or the peer is not registered.
    pub async fn connect(url: &str, keys: KeyPair) -> Result<(Self, SignalReceiver)> {
        let endpoint = Endpoint::from_shared(url.to_owned())?.connect_timeout(LIMIT);
        let channel = endpoint.connect().await.with_context(|| format!("connect to {url}"))?;
        let mut client = SignalExchangeClient::new(channel);
        let (sender, outgoing) = tokio::sync::mpsc::channel(1);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        request.metadata_mut().insert(PEER_ID, MetadataValue::try_from(keys.public())?);
        let response = client.connect_stream(request).await?;
        ensure!(response.metadata().contains_key(REGISTERED), "signal does not say that it registered us");
        let receiver = SignalReceiver { stream: response.into_inner(), keys: keys.clone(), _sender: sender };
        Ok((Self { client, keys }, receiver))
    }

    /// Sends to a peer. Whether it is there is not told.
    ///
    /// # Errors
    /// The call's; the peer's name is no key.
    pub async fn send(&mut self, to: &str, body: &Body) -> Result<(), Status> {
        let sealed = seal(&self.keys, to, body).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.send_raw(to, sealed).await
    }

    /// Sends bytes in place of a sealed body.
    ///
    /// # Errors
    /// The call's.
    pub async fn send_raw(&mut self, to: &str, body: Vec<u8>) -> Result<(), Status> {
        let key = self.keys.public().to_owned();
        self.client.send(EncryptedMessage { key, remote_key: to.to_owned(), body }).await.map(drop)
    }
}

impl SignalReceiver {
    /// The next message and who sent it; what cannot be opened is left out. `None`: the stream has ended.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn next(&mut self) -> Result<Option<(String, Body)>, Status> {
        while let Some(message) = self.stream.message().await? {
            if let Ok(body) = open(&self.keys, &message.key, &message.body) {
                return Ok(Some((message.key, body)));
            }
        }
        Ok(None)
    }
}
