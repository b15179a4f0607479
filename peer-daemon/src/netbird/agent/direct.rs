//! Direct paths: the mesh says to whom, ICE says how.

use std::future::pending;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use peer_core::key::PublicKey;
use peer_core::path::Path;
use peer_ice::{Event, Session};
use peer_mesh::message::{Credentials, Message};
use peer_mesh::{Input, PathKind};
use tokio::task::JoinHandle;

use super::super::direct::{interfaces, servers};
use super::Agent;

/// When names that could not be resolved are looked up again.
const AGAIN: Duration = Duration::from_secs(10);
/// When names that could be resolved are looked up again: addresses of servers change.
const REFRESH: Duration = Duration::from_secs(300);

/// STUN servers: their URIs, and the lookup of their names.
#[derive(Default)]
pub(super) struct StunServers {
    uris: Vec<String>,
    lookup: Option<JoinHandle<Resolved>>,
    due: Option<Instant>,
}

/// Addresses of STUN servers, and whether each name has one.
pub(super) type Resolved = (Vec<SocketAddr>, bool);

impl StunServers {
    /// Takes the servers of now on.
    fn set(&mut self, uris: &[String]) {
        if self.uris != uris {
            self.uris = uris.to_vec();
            self.look_up();
        }
    }

    /// Waits for a lookup.
    pub(super) async fn resolved(&mut self) -> Resolved {
        let Some(lookup) = &mut self.lookup else { return pending().await };
        // A lookup that panics or is replaced has found nothing.
        let resolved = lookup.await.unwrap_or_default();
        self.lookup = None;
        self.due = Some(Instant::now() + if resolved.1 { REFRESH } else { AGAIN });
        resolved
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.look_up();
        }
    }

    fn look_up(&mut self) {
        self.due = None;
        if let Some(former) = self.lookup.replace(tokio::spawn(servers::resolve(self.uris.clone()))) {
            former.abort();
        }
    }
}

impl Drop for StunServers {
    fn drop(&mut self) {
        if let Some(lookup) = &self.lookup {
            lookup.abort();
        }
    }
}

impl Agent<'_> {
    pub(super) fn on_ice(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Candidate { peer, attempt: _, text } => self.send(peer, Message::Candidate(text)),
            Event::Up { peer, attempt, remote, local } => {
                let path = Path::Udp { remote, local };
                self.view.mesh().handle(peer, Input::PathUp { kind: PathKind::Direct, attempt, path }, now);
            }
            Event::Down { peer, attempt, reason } => {
                tracing::debug!(%peer, ?reason, "no direct path");
                self.view.mesh().handle(peer, Input::PathDown { kind: PathKind::Direct, attempt }, now);
            }
            Event::LocalChanged => self.view.mesh().candidates_changed(now),
        }
    }

    pub(super) fn open_ice(
        &self,
        peer: PublicKey,
        attempt: u32,
        (local, remote): (Credentials, Credentials),
        controlling: bool,
    ) {
        let Some(direct) = &self.direct else { return };
        direct.handle().open(&Session { peer, attempt, local, remote, controlling });
    }

    pub(super) fn close_ice(&self, peer: PublicKey, attempt: u32) {
        if let Some(direct) = &self.direct {
            direct.handle().close(&peer, attempt);
        }
    }

    pub(super) fn remote_candidate(&self, peer: PublicKey, text: &str) {
        if let Some(direct) = &self.direct {
            direct.handle().add_remote_candidate(&peer, text);
        }
    }

    /// Tells where peers may reach us.
    pub(super) fn set_local_candidates(&self) {
        let Some(direct) = &self.direct else { return };
        let port = self.listen_port();
        let interfaces::Candidates { hosts, external } = &self.local.candidates;
        let addresses: Vec<_> = hosts.iter().map(|addr| SocketAddr::new(*addr, port)).collect();
        tracing::info!(?addresses, external = external.len(), "peers may connect to these addresses directly");
        direct.handle().set_local(addresses, external.clone());
    }

    /// Nobody has a candidate within the overlay: a direct path through it would carry itself.
    pub(super) fn forbid(&self, overlay: impl Iterator<Item = IpNet>) {
        if let Some(direct) = &self.direct {
            direct.handle().set_forbidden(overlay.map(|net| net.trunc()).collect());
        }
    }

    /// Goes by what the session says of STUN servers.
    pub(super) fn set_stun_servers(&mut self) {
        if self.direct.is_some() {
            self.stun.set(&self.session.servers().stuns);
        }
    }

    pub(super) fn stun_resolved(&mut self, (servers, complete): Resolved) {
        if servers.is_empty() && !complete {
            // Name servers are away: what was known of the STUN servers stays.
            return;
        }
        servers.iter().for_each(|server| self.local.add_server(server.ip()));
        if let Some(direct) = &self.direct {
            direct.handle().set_stun_servers(servers);
        }
    }
}
