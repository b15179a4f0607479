//! The relays: management says which, the mesh when.

use std::sync::Arc;
use std::time::Instant;

use peer_core::key::PublicKey;
use peer_mesh::message::RelayServer;
use peer_mesh::{Input, PathKind};
use peer_netmap::model;
use peer_relay::{Config, Event, RelayUrl, Relays, Token};

use super::Agent;

impl Agent<'_> {
    /// Begins to use relays: the node is there to send through them.
    pub(super) fn start_relays(&mut self) {
        let Some(node) = &self.node else { return };
        let config = Config {
            connector: self.connector.clone(),
            port: node.shard.relay_port(),
            own: self.own,
            stats: Arc::clone(&self.view.relay),
        };
        let (relays, events) = Relays::start(config);
        self.view.set_relays(relays.clone());
        self.relays = Some((relays, events));
        self.told_relays = None;
        self.set_relays();
    }

    /// Tells what the session says of relays.
    pub(super) fn set_relays(&mut self) {
        let (Some((relays, _)), wanted) = (&self.relays, &self.session.servers().relay) else { return };
        if *wanted == self.told_relays {
            return;
        }
        let (urls, token) = wanted.as_ref().map_or((Vec::new(), None), |relay| (urls(relay), token(relay)));
        relays.set_servers(urls, token);
        self.told_relays.clone_from(wanted);
    }

    pub(super) fn on_relay(&mut self, event: Event) {
        let now = Instant::now();
        if let Event::Home(Some(home)) = &event
            && let Some(address) = home.address
        {
            self.local.add_server(address);
        }
        let mut mesh = self.view.mesh();
        match event {
            Event::Home(Some(home)) => {
                let server = RelayServer { url: home.url.to_string(), address: home.address };
                mesh.set_home_relay(Some(server), now);
            }
            Event::Home(None) => mesh.set_home_relay(None, now),
            Event::Up { peer, attempt, path } => {
                mesh.handle(peer, Input::PathUp { kind: PathKind::Relay, attempt, path }, now);
            }
            Event::Down { peer, attempt, reason } => {
                tracing::debug!(%peer, reason, "the way through the relay is over");
                mesh.handle(peer, Input::PathDown { kind: PathKind::Relay, attempt }, now);
            }
        }
    }

    pub(super) fn open_relay(&self, peer: PublicKey, attempt: u32, server: &RelayServer) {
        let url: Result<RelayUrl, _> = server.url.parse();
        match (&self.relays, url) {
            (Some((relays, _)), Ok(url)) => relays.open(peer, attempt, url, server.address),
            (_, url) => {
                if let Err(error) = url {
                    tracing::debug!(%peer, %error, "the peer names no usable relay");
                }
                self.view.mesh().handle(peer, Input::PathDown { kind: PathKind::Relay, attempt }, Instant::now());
            }
        }
    }

    pub(super) fn close_relay(&self, peer: PublicKey, attempt: u32) {
        if let Some((relays, _)) = &self.relays {
            relays.close(peer, attempt);
        }
    }

    /// Leaves them all.
    pub(super) async fn leave_relays(&self) {
        if let Some((relays, _)) = &self.relays {
            relays.leave().await;
        }
    }
}

fn urls(relay: &model::Relay) -> Vec<RelayUrl> {
    let usable = |text: &String| match text.parse() {
        Ok(url) => Some(url),
        Err(error) => {
            tracing::warn!(%error, "management names a relay that cannot be used");
            None
        }
    };
    relay.urls.iter().filter_map(usable).collect()
}

fn token(relay: &model::Relay) -> Option<Token> {
    match Token::new(&relay.token_payload, &relay.token_signature) {
        Ok(token) => Some(token),
        Err(error) => {
            tracing::warn!(%error, "management gives no usable token for relays");
            None
        }
    }
}
