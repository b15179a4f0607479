//! From what management says to what the node does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use peer_core::desired::{Desired, Interface};
use peer_mesh::{Remote, version};
use peer_netbird::management::SyncMessage;
use peer_netbird::proto::management::LoginResponse;
use peer_netmap::compile::{Compiled, Options};
use peer_netmap::model::{Login, OwnAddresses, OwnConfig};
use peer_netmap::session::{MapVerdict, Session};

use super::super::metrics::MapResult;
use super::super::view::InForce;
use super::Agent;
use crate::up::Node;
use crate::up::translate::Limits;

/// When a map that could not be put in force is tried again.
const RETRY: Duration = Duration::from_secs(10);

impl Agent<'_> {
    /// Looks around, and puts the map of an earlier run in force, if there is one that may be used.
    pub(super) async fn restore(&mut self) -> anyhow::Result<()> {
        self.local.look(Instant::now(), &self.settings.interface_name).await;
        self.set_local_candidates();
        let Some(kept) = self.keeper.restore(self.settings.max_stale_map) else { return Ok(()) };
        let update = match self.reader.read(&kept.message) {
            Ok(update) => update,
            Err(error) => {
                tracing::warn!(%error, "the kept network map cannot be read: not used");
                return Ok(());
            }
        };
        let applied = self.session.update(update);
        if matches!(applied.map, MapVerdict::Accepted { .. }) {
            tracing::info!(age = ?kept.age, "the network map of an earlier run is in force until the server speaks");
            self.put_in_force(Some(kept.age), Instant::now()).await?;
        }
        self.connect_servers();
        Ok(())
    }

    /// Takes the answer to a login.
    pub(super) fn logged_in(&mut self, response: LoginResponse, by_setup_key: bool) {
        self.keeper.logged_in(&response);
        // Serials of another life, or of another account, say nothing about those to come.
        if !self.heard || by_setup_key {
            self.session = Session::new(self.own);
        }
        self.heard = true;
        self.session.login(Login::from(response));
        self.connect_servers();
    }

    /// Takes a message of the sync stream.
    pub(super) async fn updated(&mut self, message: Arc<SyncMessage>) -> anyhow::Result<()> {
        let begun = message.received.unwrap_or_else(Instant::now);
        self.keeper.received(&message);
        let update = match self.reader.read(&message) {
            Ok(update) => update,
            Err(error) => {
                let error = anyhow::Error::from(error).context("read the server's message");
                self.refused(None, &error);
                return Ok(());
            }
        };
        self.view.maps.read(self.reader.work());
        if update.component_map {
            tracing::warn!("the server sent a map of a kind that was not asked for: it is left out");
        }
        let applied = self.session.update(update);
        self.connect_servers();
        match applied.map {
            MapVerdict::Absent => Ok(()),
            MapVerdict::Stale { serial, last } => {
                tracing::debug!(serial, last, "a network map is older than the one in force");
                self.view.maps.count(MapResult::Stale);
                Ok(())
            }
            MapVerdict::Accepted { .. } => {
                // One that is refused is not what the next start should begin with.
                self.unkept = Some(message);
                self.put_in_force(None, begun).await
            }
        }
    }

    /// Puts the session's map in force; `kept`: it is of an earlier run, and so old.
    pub(super) async fn put_in_force(&mut self, kept: Option<Duration>, begun: Instant) -> anyhow::Result<()> {
        let (Some(map), Some(own)) = (self.session.map(), self.session.own()) else { return Ok(()) };
        let (serial, skipped) = (map.serial, map.skipped.total());
        let (peers, offline) = (map.peers.len(), map.offline.len());
        let addresses = OwnAddresses { v6: own.addresses.v6.filter(|_| self.settings.ipv6), ..own.addresses };
        if addresses.is_empty() {
            self.latch.not_ready("the server has not given this peer an address");
            return Ok(());
        }
        let options = Options {
            own_key: self.own,
            addresses,
            local: self.local.addresses.clone(),
            keepalive: Some(self.settings.keepalive),
            preshared_key: self.settings.preshared_key.clone(),
            uplinks: self.settings.uplinks.clone(),
            server_routes: self.settings.server_routes,
            block_inbound: self.settings.block_inbound,
        };
        let compiled = self.compiler.compile(map, &options, &mut self.ids);
        let desired = self.desired(addresses, own, &compiled);
        self.facts.set_overlay(addresses.iter().map(|net| net.addr()));
        self.forbid(addresses.iter());
        let result = match &mut self.node {
            None => match self.start(desired).await? {
                None => MapResult::Applied,
                Some(error) => {
                    self.not_in_force(serial, &error.into());
                    return Ok(());
                }
            },
            Some(node) if same(&node.desired, &desired) => MapResult::Unchanged,
            Some(node) => match node.apply(&desired).await {
                Ok(applied) => {
                    tracing::info!(serial, %applied, routes = desired.routes.len(), rules = desired.rules.len(), "network map");
                    MapResult::Applied
                }
                Err(error) => {
                    self.not_in_force(serial, &error);
                    return Ok(());
                }
            },
        };
        if result == MapResult::Applied {
            self.view.maps.took(begun.elapsed());
        }
        self.retry = None;
        self.tell_mesh();
        self.view.maps.count(result);
        self.view.maps.in_force(serial, skipped, compiled.unsupported.len(), kept.unwrap_or_default());
        self.view.maps.has([peers, offline, compiled.routes.len(), compiled.rules.len()]);
        self.show(&compiled, kept);
        if let Some(message) = self.unkept.take() {
            self.keeper.keep(message, begun);
        }
        self.latch.ready();
        Ok(())
    }

    /// The map is refused, for now: it is tried again, as the node may have changed.
    fn not_in_force(&mut self, serial: u64, error: &anyhow::Error) {
        self.refused(Some(serial), error);
        self.retry = Some(Instant::now() + RETRY);
    }

    /// `serial`: that of the map, as far as it could be read.
    fn refused(&self, serial: Option<u64>, error: &anyhow::Error) {
        let error = format!("{error:#}");
        self.view.maps.count(MapResult::Refused);
        let mut board = self.view.board();
        if board.map.is_some() {
            tracing::error!(serial, error, "the network map could not be put in force: the one before it stays");
        } else {
            tracing::error!(serial, error, "the network map could not be put in force: nothing is served");
            self.latch.not_ready(format!("nothing is served: the network map is refused: {error}"));
        }
        let name = serial.map(|serial| format!(" {serial}")).unwrap_or_default();
        let number = serial.map(|serial| serial.to_string()).unwrap_or_default();
        let metadata = [("serial", number.as_str()), ("error", error.as_str())];
        board.event("ERROR", "SYSTEM", format!("Network map{name} refused: {error}"), &metadata);
        board.refused = Some(error);
    }

    /// Starts the node. Returns why it does not serve what is desired, if so.
    async fn start(&mut self, desired: Desired) -> anyhow::Result<Option<peer_dataplane::Error>> {
        let Some(waiting) = self.waiting.take() else { return Ok(None) };
        self.mtu = Some(desired.interface.mtu);
        let limits = Limits::of(self.args, &desired.interface.name, waiting.port, self.health_port);
        let events = waiting.events;
        let keep = self.args.keep_dataplane;
        // The packet thread must not wait: what does not fit is lost, and the machines' timers make up for it.
        let on_event = move |event: &peer_wireguard::Event| _ = events.try_send(*event);
        let started =
            Node::start(waiting.opened, desired, limits, waiting.dataplane, keep, &self.readiness, on_event).await;
        let mut node = started?;
        let refused = node.take_refused();
        self.stopped = Some(Box::pin(node.shard.stopped()));
        self.publish.send_replace(Some(node.running()));
        if let Some(direct) = &self.direct {
            tokio::spawn(direct.handle().watch(Arc::clone(&node.shard)));
        }
        self.node = Some(node);
        self.start_relays();
        Ok(refused)
    }

    fn desired(&self, addresses: OwnAddresses, own: &OwnConfig, compiled: &Compiled) -> Desired {
        let said = self.settings.mtu(own.mtu);
        let mtu = self.mtu.unwrap_or(said);
        if mtu != said {
            tracing::warn!(said, mtu, "the MTU cannot change while the daemon runs: restart it for that");
        }
        Desired {
            interface: Interface {
                name: self.settings.interface_name.clone(),
                private_key: self.settings.private_key.clone(),
                listen_port: self.listen_port(),
                addresses: addresses.iter().collect(),
                mtu,
            },
            peers: Arc::clone(&compiled.peers),
            routes: compiled.routes.clone(),
            rules: Arc::clone(&compiled.rules),
            unsupported: compiled.unsupported.clone(),
        }
    }

    /// WireGuard's UDP port.
    pub(super) fn listen_port(&self) -> u16 {
        match (&self.waiting, &self.node) {
            (Some(waiting), _) => waiting.port,
            (None, Some(node)) => node.desired.interface.listen_port,
            (None, None) => 0,
        }
    }

    fn tell_mesh(&self) {
        let (Some(map), Some(own)) = (self.session.map(), self.session.own()) else { return };
        let lazy = self.settings.lazy.unwrap_or(own.lazy);
        let remotes = map
            .peers
            .iter()
            .map(|peer| Remote { key: peer.key, can_be_lazy: version::can_be_lazy(&peer.agent_version) });
        self.view.mesh().set_peers(remotes, lazy, Instant::now());
        self.view.board().lazy = lazy;
    }

    fn show(&self, compiled: &Compiled, kept: Option<Duration>) {
        let (Some(map), Some(own)) = (self.session.map(), self.session.own()) else { return };
        let mut board = self.view.board();
        board.set_map(map, own, self.own, compiled);
        let new = board.map.is_none_or(|in_force| in_force.serial != map.serial);
        board.map = Some(InForce { serial: map.serial, received: Instant::now(), kept });
        board.refused = None;
        if new {
            board.event("INFO", "SYSTEM", "Network map updated", &[]);
        }
    }
}

/// Whether there is nothing to do.
fn same(is: &Desired, wanted: &Desired) -> bool {
    is.interface.addresses == wanted.interface.addresses
        && is.peers == wanted.peers
        && is.routes == wanted.routes
        && is.rules == wanted.rules
        && is.unsupported == wanted.unsupported
}
