//! Signal: carries sealed messages between peers that are there, and drops the others without a word.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::proto::signal::EncryptedMessage;
use super::proto::signal::signal_exchange_server::SignalExchange;
use super::state::{SignalSession, State};

/// Names the peer, in what it asks with.
pub(crate) const PEER_ID: &str = "x-wiretrustee-peer-id";
/// Says that the peer can be reached now, in what it is answered with.
pub(crate) const REGISTERED: &str = "x-wiretrustee-peer-registered";

/// The service.
pub struct Signal {
    state: Arc<State>,
}

/// What a peer receives; it is reached no longer when this is dropped.
pub struct Received {
    state: Arc<State>,
    key: String,
    id: u64,
    receiver: mpsc::UnboundedReceiver<EncryptedMessage>,
    /// Ends when all streams are dropped.
    dropped: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Signal {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self { state }
    }
}

impl State {
    fn deliver(&self, message: EncryptedMessage) {
        let mut state = self.lock();
        state.seen.signal_messages += 1;
        if state.faults.signal_loses {
            return;
        }
        if let Some(session) = state.signal.get(&message.remote_key) {
            // Its stream may just be ending.
            let _ = session.sender.send(message);
        }
    }
}

#[tonic::async_trait]
impl SignalExchange for Signal {
    type ConnectStreamStream = Received;

    async fn send(&self, request: Request<EncryptedMessage>) -> Result<Response<EncryptedMessage>, Status> {
        self.state.deliver(request.into_inner());
        Ok(Response::new(EncryptedMessage::default()))
    }

    async fn connect_stream(
        &self,
        request: Request<Streaming<EncryptedMessage>>,
    ) -> Result<Response<Self::ConnectStreamStream>, Status> {
        let key = request.metadata().get(PEER_ID).and_then(|value| value.to_str().ok());
        let key = key.ok_or_else(|| Status::failed_precondition(format!("missing connection header: {PEER_ID}")))?;
        let key = key.to_owned();
        let (sender, receiver) = mpsc::unbounded_channel();
        let (id, with_header) = {
            let mut state = self.state.lock();
            state.seen.signal_streams += 1;
            let id = state.session_id();
            state.signal.insert(key.clone(), SignalSession { id, sender });
            (id, !state.faults.signal_without_header)
        };
        let dropped = Box::pin(next(self.state.dropped.subscribe()));
        let mut sent = request.into_inner();
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            while let Ok(Some(message)) = sent.message().await {
                state.deliver(message);
            }
        });
        let mut response = Response::new(Received { state: Arc::clone(&self.state), key, id, receiver, dropped });
        if with_header {
            response.metadata_mut().insert(REGISTERED, MetadataValue::from_static("1"));
        }
        Ok(response)
    }
}

impl Stream for Received {
    type Item = Result<EncryptedMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.dropped.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        self.receiver.poll_recv(context).map(|message| message.map(Ok))
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.signal.get(&self.key).is_some_and(|session| session.id == self.id) {
            state.signal.remove(&self.key);
        }
    }
}

async fn next(mut dropped: watch::Receiver<u64>) {
    let _ = dropped.changed().await;
}
