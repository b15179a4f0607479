//! Direct paths: the task that drives ICE over the WireGuard port.
//!
//! [`Ice`] is sans-IO. The task feeds it STUN datagrams and time, sends what it wants sent, and hands its events to the agent.

pub(super) mod interfaces;
pub(super) mod servers;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use peer_core::key::PublicKey;
use peer_ice::stats::IceStats;
use peer_ice::{Event, ExternalIp, Ice, PairStatus, Session};
use peer_io::shard::Shard;
use peer_io::stun::{KnownSources, StunDatagram, StunReceiver};
use peer_io::udp::DatagramTx;
use peer_wireguard::Engine;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// Datagrams handled before timers and commands get their turn.
const DATAGRAMS: usize = 256;
/// How often it is looked whether packets have answers.
const LOOK: Duration = Duration::from_millis(50);
/// For how long packets have no answer until their path is doubted: several round trips within a continent.
const SILENCE: Duration = Duration::from_millis(150);
/// How long the task sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// What the sockets give to direct paths.
pub(super) struct Ports {
    pub(super) stun: StunReceiver,
    pub(super) transmitter: DatagramTx,
}

/// Direct paths of all peers. Dropping it ends its task.
pub(super) struct Direct {
    handle: DirectHandle,
    events: mpsc::UnboundedReceiver<Event>,
    task: JoinHandle<()>,
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct DirectHandle(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    ice: Ice,
    /// Remote addresses of nominated pairs, whose datagrams go before those of strangers.
    nominated: HashMap<PublicKey, SocketAddr>,
    known: KnownSources,
}

impl Direct {
    /// Starts the task.
    pub(super) fn start(ice: Ice, ports: Ports) -> Self {
        let Ports { stun, transmitter } = ports;
        let state = State { ice, nominated: HashMap::new(), known: stun.known_sources() };
        let handle = DirectHandle(Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() }));
        let (sender, events) = mpsc::unbounded_channel();
        let task = tokio::spawn(drive(handle.clone(), stun, transmitter, sender));
        Self { handle, events, task }
    }

    pub(super) fn handle(&self) -> DirectHandle {
        self.handle.clone()
    }

    /// The next event; `None`: the task has ended, which it does with the packet thread only.
    pub(super) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl DirectHandle {
    pub(super) fn open(&self, session: &Session) {
        self.change(|state, now| state.ice.open(session, now));
    }

    pub(super) fn close(&self, peer: &PublicKey, attempt: u32) {
        self.change(|state, now| {
            state.ice.close(peer, attempt, now);
            state.forget(peer);
        });
    }

    pub(super) fn add_remote_candidate(&self, peer: &PublicKey, text: &str) {
        self.change(|state, now| state.ice.add_remote_candidate(peer, text, now));
    }

    /// Our addresses, with the WireGuard port, and public ones that lead to them.
    pub(super) fn set_local(&self, addresses: Vec<SocketAddr>, external: Vec<ExternalIp>) {
        self.change(|state, now| {
            state.ice.set_external_ips(external, now);
            state.ice.set_local(addresses, now);
        });
    }

    pub(super) fn set_stun_servers(&self, servers: Vec<SocketAddr>) {
        self.change(|state, now| state.ice.set_stun_servers(servers, now));
    }

    /// Networks in which no peer can have a candidate: the overlay's.
    pub(super) fn set_forbidden(&self, networks: Vec<IpNet>) {
        self.change(|state, _| state.ice.set_forbidden(networks));
    }

    /// Looks, for as long as the shard runs, whether packets by direct paths have answers, and doubts paths where they have not.
    pub(super) async fn watch(self, shard: Arc<Shard<Engine>>) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if self.lock().nominated.is_empty() {
                continue;
            }
            let Ok(silent) = shard.with_engine(|engine, now| engine.silent_peers(SILENCE, now)).await else { return };
            if !silent.is_empty() {
                self.change(|state, now| {
                    for peer in silent.iter().filter(|peer| state.nominated.contains_key(*peer)) {
                        state.ice.doubt(peer, now);
                    }
                });
            }
        }
    }

    /// The nominated pair with a peer.
    pub(super) fn pair(&self, peer: &PublicKey) -> Option<PairStatus> {
        self.lock().ice.pair(peer)
    }

    pub(super) fn stats(&self) -> Arc<IceStats> {
        self.lock().ice.stats()
    }

    fn change(&self, change: impl FnOnce(&mut State, Instant)) {
        change(&mut self.lock(), Instant::now());
        self.0.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn handle(&mut self, datagram: &StunDatagram, now: Instant) {
        self.ice.handle_datagram(now, datagram.remote, datagram.local, &datagram.bytes);
    }

    /// Sends and tells all that is to be sent and told.
    fn drain(&mut self, transmitter: &DatagramTx, events: &mpsc::UnboundedSender<Event>) {
        while let Some(transmit) = self.ice.poll_transmit() {
            // Checks are repeated; a full socket, or a path that is no more, is what they find out.
            if let Err(error) = transmitter.send(transmit.remote, transmit.local, &transmit.bytes) {
                tracing::trace!(remote = %transmit.remote, %error, "a check was not sent");
            }
        }
        while let Some(event) = self.ice.poll_event() {
            match &event {
                Event::Up { peer, remote, .. } => {
                    if let Some(before) = self.nominated.insert(*peer, *remote) {
                        self.known.remove(&before);
                    }
                    self.known.insert(*remote);
                }
                Event::Down { peer, .. } => self.forget(peer),
                Event::Candidate { .. } | Event::LocalChanged => {}
            }
            // Nobody listens any more: the agent ends.
            _ = events.send(event);
        }
    }

    fn forget(&mut self, peer: &PublicKey) {
        if let Some(remote) = self.nominated.remove(peer) {
            self.known.remove(&remote);
        }
    }
}

async fn drive(
    handle: DirectHandle,
    mut stun: StunReceiver,
    transmitter: DatagramTx,
    events: mpsc::UnboundedSender<Event>,
) {
    loop {
        let due = {
            let mut state = handle.lock();
            state.drain(&transmitter, &events);
            state.ice.poll_timeout()
        };
        let due = due.unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            datagram = stun.recv() => {
                let Some(datagram) = datagram else { return };
                let mut state = handle.lock();
                let now = Instant::now();
                state.handle(&datagram, now);
                for _ in 1..DATAGRAMS {
                    let Some(datagram) = stun.try_recv() else { break };
                    state.handle(&datagram, now);
                }
            }
            () = handle.0.wake.notified() => {}
            () = tokio::time::sleep_until(due.into()) => handle.lock().ice.handle_timeout(Instant::now()),
        }
    }
}
