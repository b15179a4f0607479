//! Signal.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::Stream;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::Script;
use crate::proto::signal::EncryptedMessage;
use crate::proto::signal::signal_exchange_server::SignalExchange;

pub(super) struct Service {
    pub(super) script: Arc<Mutex<Script>>,
}

#[tonic::async_trait]
impl SignalExchange for Service {
    async fn send(&self, request: Request<EncryptedMessage>) -> Result<Response<EncryptedMessage>, Status> {
        let message = request.into_inner();
        let (to, delay) = {
            let mut script = self.script.lock().expect("no panic");
            script.sends += 1;
            let to = script.peers.get(&message.remote_key).cloned().filter(|_| !script.swallow);
            (to, script.delays.pop())
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        // A receiver that is not there is no error.
        if let Some(to) = to {
            let _ = to.send(Ok(message)).await;
        }
        Ok(Response::new(EncryptedMessage::default()))
    }

    type ConnectStreamStream = Pin<Box<dyn Stream<Item = Result<EncryptedMessage, Status>> + Send>>;

    async fn connect_stream(
        &self,
        request: Request<Streaming<EncryptedMessage>>,
    ) -> Result<Response<Self::ConnectStreamStream>, Status> {
        let id = request.metadata().get("x-wiretrustee-peer-id").ok_or_else(|| Status::failed_precondition("no id"))?;
        let id = id.to_str().expect("text").to_owned();
        let (sender, receiver) = mpsc::channel(16);
        let mut script = self.script.lock().expect("no panic");
        script.peers.insert(id, sender);
        let stream =
            futures_util::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
        let mut response: Response<Self::ConnectStreamStream> = Response::new(Box::pin(stream));
        if !script.no_header {
            response.metadata_mut().insert("x-wiretrustee-peer-registered", "1".parse().expect("text"));
        }
        Ok(response)
    }
}
