//! The end, after the drain: peers first, then servers, then the node.

use std::time::{Duration, Instant};

use peer_identity::Registration;
use peer_mesh::State;
use peer_netbird::call::CallError;
use peer_netbird::management::{self, Class};
use peer_netbird::signal::Message;

use super::Agent;

/// For goodbyes to leave.
const GOODBYE: Duration = Duration::from_millis(300);
/// For the server to delete the peer: the whole end must fit into a pod's grace of 20 s.
const LOGOUT: Duration = Duration::from_secs(5);

impl Agent<'_> {
    /// Ends in good order.
    ///
    /// # Errors
    /// When device or programs cannot be removed.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        self.say_goodbye().await;
        self.leave_relays().await;
        if !self.deregister().await {
            let connected = self.view.board().management.connected;
            if connected {
                self.keeper.write(false, Instant::now()).await;
            }
            self.keeper.flush().await;
        }
        self.admin.shutdown().await;
        match (self.node, self.waiting) {
            (Some(node), _) => node.stop(self.args.keep_dataplane).await,
            (None, Some(waiting)) => waiting.abandon(),
            (None, None) => Ok(()),
        }
    }

    /// Tells the peers that are connected, so that they need not find out by themselves.
    async fn say_goodbye(&self) {
        let Some((_, signal)) = &self.signal else { return };
        let connected: Vec<_> = {
            let mesh = self.view.mesh();
            mesh.statuses().filter(|(_, status)| status.state == State::Connected).map(|(peer, _)| peer).collect()
        };
        let told = connected.iter().filter(|peer| signal.sender.send(**peer, Message::GoIdle).is_ok()).count();
        if told > 0 {
            tokio::time::sleep(GOODBYE).await;
        }
    }

    /// Deletes the peer from its network, if it is not to come back; whether it is gone.
    async fn deregister(&mut self) -> bool {
        let registration = Registration::read(&self.dir, self.own).unwrap_or_else(|error| {
            tracing::warn!(%error, "it is not known how this peer was registered");
            None
        });
        let farewell = self.settings.ephemeral.farewell(&self.dir, registration.as_ref());
        if !farewell.deregister {
            tracing::debug!(why = farewell.why, "the peer stays registered");
            return false;
        }
        let client = self.management.handle.client().clone();
        match tokio::time::timeout(LOGOUT, client.logout()).await {
            Ok(Ok(())) => tracing::info!(why = farewell.why, "deregistered"),
            // The server forgot it earlier.
            Ok(Err(error)) if error.class() == Class::Refused => tracing::info!(%error, "deregistered already"),
            Ok(Err(error)) => {
                let fix = match &error {
                    management::Error::Call(CallError::Status { message, .. })
                        if message.contains("linked to a network router") =>
                    {
                        ": name a group of peers as the network's router instead of this peer"
                    }
                    _ => "",
                };
                tracing::warn!(%error, "the server does not delete this peer, which stays registered{fix}");
                return false;
            }
            Err(_) => {
                tracing::warn!("the server does not answer: the peer stays registered");
                return false;
            }
        }
        self.keeper.forget().await;
        if let Err(error) = Registration::forget(&self.dir) {
            tracing::warn!(%error, "that this peer was registered could not be forgotten");
        }
        true
    }
}
