//! The connections to peers: what happens is told to the mesh, and what it wants is carried out.

use std::time::Instant;

use peer_core::key::PublicKey;
use peer_core::path::Path;
use peer_mesh::{Action, Input};
use peer_netbird::signal::NotSent;
use peer_wireguard::Event;

use super::super::messages;
use super::Agent;

/// What the engine is told.
enum Order {
    Path(PublicKey, Option<Path>),
    Handshake(PublicKey),
}

impl Agent<'_> {
    pub(super) fn on_engine(&self, event: Event) {
        let now = Instant::now();
        let mut mesh = self.view.mesh();
        match event {
            Event::HandshakeCompleted { peer, .. } => mesh.handle(peer, Input::Handshake(now), now),
            Event::PathWanted { peer } => mesh.handle(peer, Input::Wanted, now),
            Event::PathChanged { .. } | Event::SessionExpired { .. } | Event::HandshakeTimedOut { .. } => {}
        }
    }

    /// Carries out what the mesh wants, all of it.
    pub(super) async fn carry_out(&mut self) -> anyhow::Result<()> {
        let mut orders = Vec::new();
        loop {
            let action = self.view.mesh().poll_action();
            let Some((peer, action)) = action else { break };
            match action {
                Action::Send(message) => self.send(peer, message),
                Action::OpenRelay { attempt, server } => self.open_relay(peer, attempt, &server),
                Action::CloseRelay { attempt } => self.close_relay(peer, attempt),
                Action::OpenIce { attempt, local, remote, controlling } => {
                    self.open_ice(peer, attempt, (local, remote), controlling);
                }
                Action::CloseIce { attempt } => self.close_ice(peer, attempt),
                Action::RemoteCandidate(text) => self.remote_candidate(peer, &text),
                Action::SetPath(path) => orders.push(Order::Path(peer, Some(path))),
                Action::ClearPath => orders.push(Order::Path(peer, None)),
                Action::Handshake => orders.push(Order::Handshake(peer)),
            }
        }
        let Some(node) = self.node.as_ref().filter(|_| !orders.is_empty()) else { return Ok(()) };
        let given = node.shard.with_engine(move |engine, now| {
            for order in orders {
                match order {
                    Order::Path(peer, path) => engine.set_path(now, &peer, path),
                    Order::Handshake(peer) => engine.start_handshake(now, &peer),
                }
            }
        });
        Ok(given.await?)
    }

    /// Tells the mesh which peers have traffic.
    pub(super) async fn look_for_traffic(&self) -> anyhow::Result<()> {
        let lazy = self.view.board().lazy;
        let Some(node) = self.node.as_ref().filter(|_| lazy) else { return Ok(()) };
        let peers = node.shard.with_engine(|engine, now| engine.peers(now)).await?;
        let now = Instant::now();
        let mut mesh = self.view.mesh();
        for peer in peers {
            // Older traffic was told before.
            if let Some(ago) = peer.last_data.filter(|ago| *ago < super::LOOK * 2)
                && let Some(at) = now.checked_sub(ago)
            {
                mesh.handle(peer.public_key, Input::Traffic(at), now);
            }
        }
        Ok(())
    }

    pub(super) fn send(&self, peer: PublicKey, message: peer_mesh::message::Message) {
        let Some((_, signal)) = &self.signal else { return };
        match signal.sender.send(peer, messages::to_send(message)) {
            // Offers are repeated; the loss is counted.
            Ok(()) | Err(NotSent::Offline) => {}
            Err(error) => tracing::debug!(%peer, %error, "a message for a peer is lost"),
        }
    }
}
