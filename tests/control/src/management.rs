//! Management: who may come in, and what each is told.

mod errors;
mod stream;

use std::sync::Arc;

use prost::Message;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::account::RegistrationError;
use super::keys::KeyPair;
use super::map::peer_config;
use super::proto::management::management_service_server::ManagementService;
use super::proto::management::{
    Checks, Empty, EncryptedMessage, LoginRequest, LoginResponse, PeerSystemMeta, ServerKeyResponse, SyncMetaRequest,
    SyncRequest,
};
use super::sealed::{open, seal};
use super::state::{Inner, State};
use errors::{invalid, registration, removal};

/// The service.
pub struct Management {
    state: Arc<State>,
}

impl Management {
    pub(crate) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// Opens a request and waits as long as a slow server does.
    async fn open<M: Message + Default>(&self, request: Request<EncryptedMessage>) -> Result<(String, M), Status> {
        let slow = self.state.lock().faults.slow;
        sleep(slow).await;
        let EncryptedMessage { wg_pub_key, body, .. } = request.into_inner();
        let keys = self.state.lock().keys.clone();
        let message = open(&keys, &wg_pub_key, &body).map_err(|error| invalid(&error))?;
        Ok((wg_pub_key, message))
    }
}

#[tonic::async_trait]
impl ManagementService for Management {
    type SyncStream = ReceiverStream<Result<EncryptedMessage, Status>>;

    async fn get_server_key(&self, _: Request<Empty>) -> Result<Response<ServerKeyResponse>, Status> {
        let key = self.state.lock().keys.public().to_owned();
        Ok(Response::new(ServerKeyResponse { key, ..ServerKeyResponse::default() }))
    }

    async fn is_healthy(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn login(&self, request: Request<EncryptedMessage>) -> Result<Response<EncryptedMessage>, Status> {
        let (key, login) = self.open::<LoginRequest>(request).await?;
        let (answer, changed) = {
            let mut state = self.state.lock();
            let serial = state.account.serial;
            let answer = login_peer(&mut state, &key, login)?;
            (sealed(&state.keys, &key, &answer)?, state.account.serial != serial)
        };
        if changed {
            self.state.notify();
        }
        Ok(Response::new(answer))
    }

    async fn sync(&self, request: Request<EncryptedMessage>) -> Result<Response<Self::SyncStream>, Status> {
        let (key, sync) = self.open::<SyncRequest>(request).await?;
        let stream = {
            let mut state = self.state.lock();
            state.seen.syncs += 1;
            refuse(state.faults.refuse_sync.as_ref())?;
            admitted(&state, &key)?;
            update_meta(&mut state, &key, sync.meta.as_ref());
            stream::begin(&mut state, &self.state, key)
        };
        self.state.notify();
        Ok(Response::new(stream))
    }

    async fn sync_meta(&self, request: Request<EncryptedMessage>) -> Result<Response<Empty>, Status> {
        let (key, update) = self.open::<SyncMetaRequest>(request).await?;
        let changed = {
            let mut state = self.state.lock();
            state.seen.meta_updates += 1;
            admitted(&state, &key)?;
            update_meta(&mut state, &key, update.meta.as_ref())
        };
        if changed {
            self.state.notify();
        }
        Ok(Response::new(Empty {}))
    }

    async fn logout(&self, request: Request<EncryptedMessage>) -> Result<Response<Empty>, Status> {
        let (key, Empty {}) = self.open(request).await?;
        {
            let mut state = self.state.lock();
            state.seen.logouts += 1;
            state.account.remove_peer(&key).map_err(removal)?;
        }
        self.state.notify();
        Ok(Response::new(Empty {}))
    }
}

fn login_peer(state: &mut Inner, key: &str, login: LoginRequest) -> Result<LoginResponse, Status> {
    state.seen.logins += 1;
    state.seen.setup_keys += u32::from(!login.setup_key.is_empty());
    refuse(state.faults.refuse_login.as_ref())?;
    let meta =
        login.meta.ok_or_else(|| Status::failed_precondition("peer system meta has to be provided to log in"))?;
    if !state.account.peers.contains_key(key) {
        if login.setup_key.is_empty() {
            return Err(Status::permission_denied(
                "no peer auth method provided, please use a setup key or interactive SSO login",
            ));
        }
        state.account.register(key, &login.setup_key, &meta, &login.dns_labels).map_err(registration)?;
    } else if !login.dns_labels.is_empty() && !allows_labels(state, key) {
        return Err(registration(RegistrationError::DnsLabels));
    } else {
        state.account.update_meta(key, &meta);
    }
    let peer = state.account.peers.get_mut(key).ok_or_else(|| Status::internal("failed handling request"))?;
    if peer.login_expired {
        return Err(Status::permission_denied("peer login has expired, please log in once more"));
    }
    peer.logins += 1;
    if let Some(keys) = login.peer_keys {
        peer.ssh_key = keys.ssh_pub_key;
    }
    let peer = peer.clone();
    Ok(LoginResponse {
        netbird_config: Some(state.netbird_config(key)),
        peer_config: Some(peer_config(&state.account, &peer, state.shape())),
        checks: checks(state),
        session_expires_at: None,
    })
}

/// Known, and its login is valid.
fn admitted(state: &Inner, key: &str) -> Result<(), Status> {
    match state.account.peers.get(key) {
        None => Err(Status::permission_denied("peer is not registered")),
        Some(peer) if peer.login_expired => {
            Err(Status::permission_denied("peer login has expired, please log in once more"))
        }
        Some(_) => Ok(()),
    }
}

fn update_meta(state: &mut Inner, key: &str, meta: Option<&PeerSystemMeta>) -> bool {
    meta.is_some_and(|meta| state.account.update_meta(key, meta))
}

fn allows_labels(state: &Inner, key: &str) -> bool {
    let lookup = state.account.peers.get(key).and_then(|peer| peer.setup_key.as_ref());
    lookup.and_then(|lookup| state.account.setup_keys.get(lookup)).is_some_and(|key| key.extra_dns_labels)
}

fn refuse(fault: Option<&(tonic::Code, String)>) -> Result<(), Status> {
    fault.map_or(Ok(()), |(code, text)| Err(Status::new(*code, text.clone())))
}

fn checks(state: &Inner) -> Vec<Checks> {
    let files = &state.options.posture_files;
    if files.is_empty() { Vec::new() } else { vec![Checks { files: files.clone() }] }
}

fn sealed(keys: &KeyPair, key: &str, message: &impl Message) -> Result<EncryptedMessage, Status> {
    let body = seal(keys, key, message).map_err(|error| invalid(&error.into()))?;
    Ok(EncryptedMessage { wg_pub_key: keys.public().to_owned(), body, version: 0 })
}
