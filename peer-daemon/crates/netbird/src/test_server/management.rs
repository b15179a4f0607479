//! Management.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::Stream;
use peer_core::key::{PrivateKey, PublicKey};
use prost::Message;
use tokio::sync::{Notify, mpsc};
use tonic::{Request, Response, Status};

use super::{Call, Script};
use crate::proto::management::management_service_server::ManagementService;
use crate::proto::management::{
    Empty, EncryptedMessage, LoginRequest, ServerKeyResponse, SyncMetaRequest, SyncRequest, SyncResponse,
};
use crate::sealed::Sealer;

pub(super) struct Service {
    pub(super) script: Arc<Mutex<Script>>,
    pub(super) changed: Arc<Notify>,
}

impl Service {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no panic")
    }

    fn note(&self, call: Call) {
        self.script().calls.push(call);
        self.changed.notify_waiters();
    }

    fn open<M: Message + Default>(
        &self,
        request: Request<EncryptedMessage>,
    ) -> Result<(PublicKey, PrivateKey, M), Status> {
        let request = request.into_inner();
        let key = self.script().key.clone();
        let peer: PublicKey = request.wg_pub_key.parse().map_err(|_| Status::invalid_argument("no key"))?;
        let sealer = Sealer::new(&key, &peer);
        let message = sealer.open_message(request.body).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok((peer, key, message))
    }
}

fn seal(key: &PrivateKey, peer: &PublicKey, message: &impl Message) -> EncryptedMessage {
    let body = Sealer::new(key, peer).seal_message(message);
    EncryptedMessage { wg_pub_key: key.public_key().to_string(), body, version: 0 }
}

fn take<T>(status: &Option<Status>, value: T) -> Result<T, Status> {
    status.clone().map_or(Ok(value), Err)
}

#[tonic::async_trait]
impl ManagementService for Service {
    async fn login(&self, request: Request<EncryptedMessage>) -> Result<Response<EncryptedMessage>, Status> {
        let (peer, key, LoginRequest { setup_key, meta, peer_keys, .. }) = self.open(request)?;
        let (meta, keys) = (meta.expect("a meta"), peer_keys.expect("keys"));
        self.note(Call::Login { setup_key: setup_key.clone(), meta, keys });
        let mut script = self.script();
        if !script.known.contains(&peer) {
            if setup_key.is_empty() {
                return Err(Status::permission_denied("no peer auth method provided"));
            }
            if !script.setup_keys.contains(&setup_key) {
                return Err(Status::not_found("couldn't add peer: setup key is invalid"));
            }
            script.known.insert(peer);
        }
        Ok(Response::new(seal(&key, &peer, &script.login)))
    }

    type SyncStream = Pin<Box<dyn Stream<Item = Result<EncryptedMessage, Status>> + Send>>;

    async fn sync(&self, request: Request<EncryptedMessage>) -> Result<Response<Self::SyncStream>, Status> {
        let (peer, key, SyncRequest { meta }) = self.open(request)?;
        meta.ok_or_else(|| Status::failed_precondition("no meta"))?;
        self.note(Call::Sync);
        let mut script = self.script();
        take(&script.refuse_sync, ())?;
        if !script.known.contains(&peer) {
            return Err(Status::permission_denied("peer is not registered"));
        }
        let (sender, receiver) = mpsc::channel(16);
        let first = take(&script.fail_sync, seal(&key, &peer, &SyncResponse::default()));
        sender.try_send(first).expect("room");
        script.stream = Some((peer, sender));
        let stream =
            futures_util::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_server_key(&self, _: Request<Empty>) -> Result<Response<ServerKeyResponse>, Status> {
        self.note(Call::ServerKey);
        if self.script().silent {
            std::future::pending::<()>().await;
        }
        let key = self.script().key.public_key().to_string();
        Ok(Response::new(ServerKeyResponse { key }))
    }

    async fn is_healthy(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        self.note(Call::Health);
        Ok(Response::new(Empty {}))
    }

    async fn sync_meta(&self, request: Request<EncryptedMessage>) -> Result<Response<Empty>, Status> {
        let (_, _, SyncMetaRequest { meta }) = self.open(request)?;
        self.note(Call::SyncMeta(meta.expect("a meta")));
        let refusal = self.script().refuse_meta.take();
        take(&refusal, Response::new(Empty {}))
    }

    async fn logout(&self, request: Request<EncryptedMessage>) -> Result<Response<Empty>, Status> {
        let (peer, _, Empty {}) = self.open(request)?;
        self.note(Call::Logout);
        let mut script = self.script();
        take(&script.refuse_logout, ())?;
        script.known.remove(&peer);
        Ok(Response::new(Empty {}))
    }
}
