//! Who is connected, and who wants to know.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::frame::{Frame, PeerId};

/// Frames that wait for a slow peer; then its senders wait.
const QUEUE: usize = 512;

/// All connections of a relay.
pub(crate) struct Registry {
    /// What the relay calls itself.
    pub(crate) url: String,
    /// Frames between peers are not delivered.
    pub(crate) loses: AtomicBool,
    /// No health checks.
    pub(crate) silent: AtomicBool,
    /// Frames between peers, taken.
    pub(crate) frames: AtomicU64,
    connections: AtomicU32,
    peers: Mutex<HashMap<PeerId, Connection>>,
    closed: watch::Sender<u64>,
}

struct Connection {
    number: u32,
    sender: mpsc::Sender<Bytes>,
    wants: HashSet<PeerId>,
}

/// A connection as its own task sees it. It leaves when dropped.
pub(crate) struct Entry<'a> {
    registry: &'a Registry,
    id: PeerId,
    number: u32,
    /// What others send it; ends when a newer connection of the same peer has taken its place.
    pub(crate) receiver: mpsc::Receiver<Bytes>,
    /// Changes when all connections are to be closed.
    pub(crate) closed: watch::Receiver<u64>,
}

impl Registry {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            loses: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            frames: AtomicU64::new(0),
            connections: AtomicU32::new(0),
            peers: Mutex::default(),
            closed: watch::Sender::new(0),
        }
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn is_connected(&self, id: &PeerId) -> bool {
        self.lock().contains_key(id)
    }

    /// Sends a peer bytes in place of a frame. `false`: it is not there, or does not read.
    pub(crate) fn send_raw(&self, id: &PeerId, bytes: Bytes) -> bool {
        self.lock().get(id).is_some_and(|peer| peer.sender.try_send(bytes).is_ok())
    }

    pub(crate) fn close_all(&self) {
        self.closed.send_modify(|count| *count += 1);
    }

    /// Forgets everybody; their tasks are gone already.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Lets a peer in, in place of an older connection of its own.
    pub(crate) fn enter(&self, id: PeerId) -> Entry<'_> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut peers = self.lock();
        peers.insert(id, Connection { number, sender, wants: HashSet::new() });
        tell(&peers, id, &Frame::Online(vec![id]));
        Entry { registry: self, id, number, receiver, closed: self.closed.subscribe() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Connection>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry<'_> {
    /// Takes note and says who is there already.
    pub(crate) fn subscribe(&self, ids: Vec<PeerId>) {
        let mut peers = self.registry.lock();
        let online: Vec<_> = ids.iter().copied().filter(|id| peers.contains_key(id)).collect();
        let Some(own) = peers.get_mut(&self.id).filter(|own| own.number == self.number) else { return };
        own.wants.extend(ids);
        if !online.is_empty() {
            // A peer that does not read what it has asked for misses it.
            let _ = own.sender.try_send(Frame::Online(online).encode());
        }
    }

    pub(crate) fn unsubscribe(&self, ids: &[PeerId]) {
        if let Some(own) = self.registry.lock().get_mut(&self.id).filter(|own| own.number == self.number) {
            own.wants.retain(|id| !ids.contains(id));
        }
    }

    /// Hands a frame to another peer, if it is there; waits while it is slow.
    pub(crate) async fn forward(&self, to: PeerId, payload: Bytes) {
        self.registry.frames.fetch_add(1, Ordering::Relaxed);
        let sender = self.registry.lock().get(&to).map(|peer| peer.sender.clone());
        if let Some(sender) = sender.filter(|_| !self.registry.loses.load(Ordering::Relaxed)) {
            // It may have left in between: then the frame is lost, as any frame may be.
            let _ = sender.send(Frame::Transport(self.id, payload).encode()).await;
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut peers = self.registry.lock();
        if peers.get(&self.id).is_some_and(|own| own.number == self.number) {
            peers.remove(&self.id);
            tell(&peers, self.id, &Frame::Offline(vec![self.id]));
        }
    }
}

fn tell(peers: &HashMap<PeerId, Connection>, about: PeerId, frame: &Frame) {
    for peer in peers.values().filter(|peer| peer.wants.contains(&about)) {
        let _ = peer.sender.try_send(frame.encode());
    }
}
