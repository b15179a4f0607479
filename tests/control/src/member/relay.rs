//! The relay, as a peer uses it.

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::LIMIT;
use crate::relay::token::{Token, to_bytes};
use crate::relay::{Frame, PeerId};

type Socket = WebSocketStream<TcpStream>;

/// A relay that has let us in.
pub struct Relay {
    /// What it calls itself.
    pub url: String,
    /// To it.
    pub sender: RelaySender,
    /// From it.
    pub receiver: RelayReceiver,
}

/// The sending side.
pub struct RelaySender(SplitSink<Socket, Message>);

/// The receiving side.
pub struct RelayReceiver(SplitStream<Socket>);

impl Relay {
    /// Connects to a `rel://` URL.
    ///
    /// # Errors
    /// Another URL; nobody answers; we are not let in.
    pub async fn connect(url: &str, own_key: &str, token: &Token) -> Result<Self> {
        let host = url.strip_prefix("rel://").with_context(|| format!("{url}: a member speaks rel:// only"))?;
        let token = to_bytes(token).context("a token whose signature is no base64")?;
        timeout(LIMIT, Self::open(host, PeerId::of(own_key), token.into())).await.context("no answer")?
    }

    async fn open(host: &str, id: PeerId, token: Bytes) -> Result<Self> {
        let stream = TcpStream::connect(host).await.with_context(|| format!("connect to {host}"))?;
        stream.set_nodelay(true)?;
        let (socket, _) = client_async(format!("ws://{host}/relay"), stream).await.context("WebSocket")?;
        let (sink, stream) = socket.split();
        let (mut sender, mut receiver) = (RelaySender(sink), RelayReceiver(stream));
        sender.send(&Frame::Auth(id, token)).await?;
        match receiver.next().await {
            Some(Frame::AuthResponse(url)) => Ok(Self { url, sender, receiver }),
            other => bail!("the relay does not let us in: {other:?}"),
        }
    }
}

impl RelaySender {
    /// Sends a frame.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send(&mut self, frame: &Frame) -> Result<()> {
        self.send_raw(frame.encode()).await
    }

    /// Sends bytes in place of a frame.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send_raw(&mut self, bytes: Bytes) -> Result<()> {
        Ok(self.0.send(Message::Binary(bytes)).await?)
    }

    /// Takes a frame that [`Self::flush`] sends.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn feed(&mut self, frame: &Frame) -> Result<()> {
        Ok(self.0.feed(Message::Binary(frame.encode())).await?)
    }

    /// Sends what was fed.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn flush(&mut self) -> Result<()> {
        Ok(self.0.flush().await?)
    }
}

impl RelayReceiver {
    /// The next frame; what is none is left out. `None`: the connection has ended.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let message = self.0.next().await?.ok()?;
            if let Message::Binary(bytes) = message
                && let Some(frame) = Frame::decode(&bytes)
            {
                return Some(frame);
            }
        }
    }
}
