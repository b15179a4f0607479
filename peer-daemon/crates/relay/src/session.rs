//! State of one authenticated connection to a relay.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::early::Early;
use crate::error::ConnectError;
use crate::message::{self, Message, Peers};
use crate::peer_id::PeerId;
use crate::stats::{RelayStats, Share};

/// The relay checks us every 25 s; without one check in this time it is gone.
const HEALTH_INTERVAL: Duration = Duration::from_secs(35);
/// How long a peer may take to connect to the relay after we asked for it.
const ONLINE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two removals of what came too early.
const EARLY_SWEEP: Duration = Duration::from_secs(5);

/// What happened to the way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WayEvent {
    /// The peer is connected to the relay.
    Online,
    /// It was, and is no more.
    Offline,
    /// It did not come.
    Absent,
}

/// Why the connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// The relay said so.
    Closed,
    /// It has not checked us in time.
    Silent,
}

impl From<SessionEnd> for ConnectError {
    fn from(end: SessionEnd) -> Self {
        match end {
            SessionEnd::Closed => Self::Closed,
            SessionEnd::Silent => Self::Silent,
        }
    }
}

/// Ways to peers through one relay, and whether it is alive. Time comes in as an argument.
#[derive(Debug)]
pub(crate) struct Session {
    ways: HashMap<PeerId, Way>,
    /// Peers that were asked for, in order of time.
    awaited: VecDeque<(Instant, PeerId, u32)>,
    /// Peer of the last datagram.
    last: Option<(PeerId, u32)>,
    early: Early,
    early_sweep: Option<Instant>,
    checked: bool,
    check_at: Instant,
    echo: bool,
    /// To be asked for (`true`) or not any more, in order.
    subscriptions: VecDeque<(bool, PeerId)>,
    events: VecDeque<(u32, WayEvent)>,
    open: Share,
    waiting: Share,
    stats: Arc<RelayStats>,
}

#[derive(Clone, Copy, Debug)]
struct Way {
    number: u32,
    online: bool,
}

impl Session {
    pub(crate) fn new(now: Instant, stats: Arc<RelayStats>) -> Self {
        Self {
            ways: HashMap::new(),
            awaited: VecDeque::new(),
            last: None,
            early: Early::default(),
            early_sweep: None,
            checked: false,
            check_at: now + HEALTH_INTERVAL,
            echo: false,
            subscriptions: VecDeque::new(),
            events: VecDeque::new(),
            open: Share::new(&stats, |stats| &stats.ways),
            waiting: Share::new(&stats, |stats| &stats.early),
            stats,
        }
    }

    /// Asks for a peer, which gets a number that no other has had. Returns what it has sent already.
    pub(crate) fn open(&mut self, now: Instant, peer: PeerId, number: u32) -> Option<Vec<u8>> {
        self.ways.insert(peer, Way { number, online: false });
        self.awaited.push_back((now + ONLINE_TIMEOUT, peer, number));
        self.subscriptions.push_back((true, peer));
        self.last = None;
        self.count_ways();
        let early = self.early.take(now, &peer);
        self.waiting.set(self.early.len());
        early
    }

    /// The way of this number is not needed any more.
    pub(crate) fn close(&mut self, peer: PeerId, number: u32) {
        if self.ways.get(&peer).is_some_and(|way| way.number == number) {
            self.forget(peer);
        }
    }

    /// Whose datagram it is, by the peer's number; `None`: nobody's that we have asked for, but it may be yet.
    pub(crate) fn source(&mut self, now: Instant, source: PeerId, payload: &[u8]) -> Option<u32> {
        if let Some((peer, number)) = self.last
            && peer == source
        {
            return Some(number);
        }
        let Some(way) = self.ways.get(&source) else {
            let kept = self.early.keep(now, source, payload);
            self.waiting.set(self.early.len());
            if kept {
                self.early_sweep.get_or_insert(now + EARLY_SWEEP);
            } else {
                self.stats.early_dropped.add(1);
            }
            return None;
        };
        let number = way.number;
        // Whoever sends is there.
        self.online(source);
        self.last = Some((source, number));
        Some(number)
    }

    /// Takes any other message than a peer's datagram.
    pub(crate) fn handle_message(&mut self, message: Message<'_>) -> Result<(), SessionEnd> {
        match message {
            Message::Close => return Err(SessionEnd::Closed),
            Message::HealthCheck => {
                (self.checked, self.echo) = (true, true);
                self.stats.health_checks.add(1);
            }
            Message::Online(peers) => peers.for_each(|peer| self.online(peer)),
            Message::Offline(peers) => self.offline(peers),
            // We have been let in already; datagrams go another way.
            Message::AuthResponse { .. } | Message::Transport { .. } => {}
        }
        Ok(())
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionEnd> {
        if self.check_at <= now {
            if !std::mem::take(&mut self.checked) {
                return Err(SessionEnd::Silent);
            }
            self.check_at = now + HEALTH_INTERVAL;
        }
        while let Some((_, peer, number)) = self.awaited.pop_front_if(|(at, ..)| *at <= now) {
            if self.ways.get(&peer).is_some_and(|way| way.number == number && !way.online) {
                self.forget(peer);
                self.events.push_back((number, WayEvent::Absent));
            }
        }
        if self.early_sweep.is_some_and(|at| at <= now) {
            self.early.expire(now);
            self.waiting.set(self.early.len());
            self.early_sweep = (self.early.len() > 0).then_some(now + EARLY_SWEEP);
        }
        Ok(())
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        let awaited = self.awaited.front().map(|(at, ..)| *at);
        [awaited, self.early_sweep].into_iter().flatten().fold(self.check_at, Instant::min)
    }

    /// Next message for the relay.
    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        if std::mem::take(&mut self.echo) {
            return Some(message::HEALTH_ECHO.to_vec());
        }
        let (subscribe, _) = *self.subscriptions.front()?;
        let mut peers = Vec::new();
        while peers.len() < message::MAX_PEERS
            && let Some((_, peer)) = self.subscriptions.pop_front_if(|(kind, _)| *kind == subscribe)
        {
            peers.push(peer);
        }
        if subscribe { message::subscribe(&peers).next() } else { message::unsubscribe(&peers).next() }
    }

    /// Next news of the way of that number. All but [`WayEvent::Online`] end it.
    pub(crate) fn poll_event(&mut self) -> Option<(u32, WayEvent)> {
        self.events.pop_front()
    }

    fn online(&mut self, peer: PeerId) {
        if let Some(way) = self.ways.get_mut(&peer)
            && !way.online
        {
            way.online = true;
            self.events.push_back((way.number, WayEvent::Online));
        }
    }

    fn offline(&mut self, peers: Peers<'_>) {
        for peer in peers {
            if let Some(way) = self.ways.get(&peer) {
                let number = way.number;
                self.forget(peer);
                self.events.push_back((number, WayEvent::Offline));
            }
        }
    }

    fn forget(&mut self, peer: PeerId) {
        self.ways.remove(&peer);
        self.subscriptions.push_back((false, peer));
        self.last = None;
        self.count_ways();
        // Entries of ways that are gone would only pile up while peers come and go within the timeout.
        if self.awaited.len() > 2 * self.ways.len() + 64 {
            let ways = &self.ways;
            self.awaited.retain(|(_, peer, number)| ways.get(peer).is_some_and(|way| way.number == *number));
        }
    }

    fn count_ways(&mut self) {
        self.open.set(self.ways.len());
    }
}

#[cfg(test)]
mod tests;
