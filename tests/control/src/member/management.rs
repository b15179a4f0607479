//! Management, as a peer calls it.

use anyhow::{Context as _, Result};
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use super::LIMIT;
use crate::keys::KeyPair;
use crate::proto::management::management_service_client::ManagementServiceClient;
use crate::proto::management::{
    Empty, EncryptedMessage, LoginRequest, LoginResponse, NetworkAddress, PeerCapability, PeerKeys, PeerSystemMeta,
    SyncMetaRequest, SyncRequest, SyncResponse,
};
use crate::sealed::{open, seal};

/// A connection, and who calls.
#[derive(Clone)]
pub struct Management {
    client: ManagementServiceClient<Channel>,
    keys: KeyPair,
}

/// What a Sync stream brings.
pub struct Syncs {
    stream: Streaming<EncryptedMessage>,
    keys: KeyPair,
    server: String,
}

/// What a peer of the newest version with this host name says of itself.
#[must_use]
pub fn meta(hostname: &str) -> PeerSystemMeta {
    let text = str::to_owned;
    PeerSystemMeta {
        hostname: text(hostname),
        go_os: text("linux"),
        kernel: text("Linux"),
        core: text("12"),
        platform: text("x86_64"),
        os: text("Debian GNU/Linux"),
        netbird_version: text("0.77.1"),
        kernel_version: text("6.18.0"),
        os_version: text("12"),
        network_addresses: vec![NetworkAddress { net_ip: text("192.0.2.2/24"), mac: String::new() }],
        capabilities: vec![PeerCapability::SourcePrefixes.into(), PeerCapability::IPv6Overlay.into()],
        ..PeerSystemMeta::default()
    }
}

impl Management {
    /// Connects to a server without TLS.
    ///
    /// # Errors
    /// Bad URL, or nobody answers.
    pub async fn connect(url: &str, keys: KeyPair) -> Result<Self> {
        let endpoint = Endpoint::from_shared(url.to_owned())?.connect_timeout(LIMIT);
        let channel = endpoint.connect().await.with_context(|| format!("connect to {url}"))?;
        let client = ManagementServiceClient::new(channel).max_decoding_message_size(64 << 20);
        Ok(Self { client, keys })
    }

    /// The server's key, which changes with each of its starts.
    ///
    /// # Errors
    /// The call's.
    pub async fn server_key(&mut self) -> Result<String, Status> {
        Ok(self.client.get_server_key(Empty {}).await?.into_inner().key)
    }

    /// Logs in, by setup key if there is one.
    ///
    /// # Errors
    /// The server's refusal; an answer that cannot be opened.
    pub async fn login(&mut self, meta: &PeerSystemMeta, setup_key: &str) -> Result<LoginResponse, Status> {
        let peer_keys = PeerKeys { ssh_pub_key: Vec::new(), wg_pub_key: self.keys.public().into() };
        let request = LoginRequest {
            setup_key: setup_key.to_owned(),
            meta: Some(meta.clone()),
            peer_keys: Some(peer_keys),
            ..LoginRequest::default()
        };
        let (server, request) = self.sealed(&request).await?;
        let answer = self.client.login(request).await?.into_inner();
        open(&self.keys, &server, &answer.body).map_err(|error| Status::data_loss(error.to_string()))
    }

    /// Sends a login with this name and these bytes in place of a sealed request.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn login_raw(&mut self, name: &str, body: Vec<u8>) -> Result<(), Status> {
        let request = EncryptedMessage { wg_pub_key: name.to_owned(), body, version: 0 };
        self.client.login(request).await.map(drop)
    }

    /// Opens the stream.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn sync(&mut self, meta: &PeerSystemMeta) -> Result<Syncs, Status> {
        let (server, request) = self.sealed(&SyncRequest { meta: Some(meta.clone()) }).await?;
        let stream = self.client.sync(request).await?.into_inner();
        Ok(Syncs { stream, keys: self.keys.clone(), server })
    }

    /// Says what the peer is now.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn sync_meta(&mut self, meta: &PeerSystemMeta) -> Result<(), Status> {
        let (_, request) = self.sealed(&SyncMetaRequest { meta: Some(meta.clone()) }).await?;
        self.client.sync_meta(request).await.map(drop)
    }

    /// Has the peer deleted.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn logout(&mut self) -> Result<(), Status> {
        let (_, request) = self.sealed(&Empty {}).await?;
        self.client.logout(request).await.map(drop)
    }

    async fn sealed(&mut self, message: &impl Message) -> Result<(String, EncryptedMessage), Status> {
        let server = self.server_key().await?;
        let body = seal(&self.keys, &server, message).map_err(|error| Status::data_loss(error.to_string()))?;
        let message = EncryptedMessage { wg_pub_key: self.keys.public().to_owned(), body, version: 0 };
        Ok((server, message))
    }
}

impl Syncs {
    /// The next message; `None`: the stream has ended.
    ///
    /// # Errors
    /// The stream broke; a message cannot be opened.
    pub async fn next(&mut self) -> Result<Option<SyncResponse>, Status> {
        let Some(message) = self.stream.message().await? else { return Ok(None) };
        let opened = open(&self.keys, &self.server, &message.body);
        opened.map(Some).map_err(|error| Status::data_loss(error.to_string()))
    }
}
