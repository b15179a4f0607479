//! Which relays to be connected to: the home relay, and those that peers choose. Without sockets: connections are asked
//! for by [`Action`]s and report by `handle_link`.

mod home;
mod links;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use peer_core::key::PublicKey;
use peer_core::path::Path;
use peer_core::reach::Outages;
use rand::rngs::StdRng;

use self::home::Home;
use self::links::Link;
use crate::connection::{LinkCommand, LinkEvent};
use crate::peer_id::PeerId;
use crate::session::WayEvent;
use crate::token::Token;
use crate::url::RelayUrl;

/// How long a way may wait for the connection that it goes by.
const LINK_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks for connections that nobody uses.
const SWEEP: Duration = Duration::from_secs(60);
/// Those must have been unused for longer than this.
const UNUSED: Duration = Duration::from_secs(5);

/// What users of relays are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The home relay is connected, or is not any more.
    Home(Option<HomeRelay>),
    /// The peer can be reached through its relay.
    Up {
        /// Who.
        peer: PublicKey,
        /// What the way was opened as.
        attempt: u32,
        /// The way.
        path: Path,
    },
    /// The way to the peer is over, or did not come about. It has to be opened anew.
    Down {
        /// Who.
        peer: PublicKey,
        /// What the way was opened as.
        attempt: u32,
        /// Why, for people.
        reason: String,
    },
}

/// What other peers are told of our home relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeRelay {
    /// Its own address.
    pub url: RelayUrl,
    /// Where we reached it, for those that cannot resolve its name. `None`: through a proxy.
    pub address: Option<IpAddr>,
}

/// How it stands with a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayStatus {
    /// Its own address if connected, else as configured or chosen by a peer.
    pub url: RelayUrl,
    /// Whether it is the home relay, or may become it.
    pub home: bool,
    /// Whether it is connected.
    pub connected: bool,
    /// Why the last attempt failed or the connection broke, if it is not connected.
    pub error: Option<String>,
    /// Ways to peers that go by it.
    pub ways: usize,
}

/// Number of a connection, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(crate) u32);

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Action {
    /// Make a connection.
    Dial { link: LinkId, url: RelayUrl, fallback: Option<IpAddr>, token: Token },
    /// Tell it something.
    Tell { link: LinkId, command: LinkCommand },
    /// Abandon an attempt.
    Cancel { link: LinkId },
    /// Tell the users.
    Emit(Event),
}

/// A way that was asked for.
#[derive(Debug)]
struct Way {
    attempt: u32,
    server: RelayUrl,
    address: Option<IpAddr>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Waits for the home relay or another one.
    Waiting { until: Instant },
    /// Goes by this connection.
    On { link: LinkId, number: u32 },
}

/// All connections and ways. Time and chance come in as arguments.
#[derive(Debug)]
pub(crate) struct Manager {
    token: Option<Token>,
    home: Home,
    links: HashMap<LinkId, Link>,
    next_link: u32,
    ways: HashMap<PublicKey, Way>,
    sweep_at: Option<Instant>,
    /// What the log has said of relays that are not reached.
    outages: Outages<RelayUrl>,
    actions: VecDeque<Action>,
    rng: StdRng,
}

impl Manager {
    pub(crate) fn new(rng: StdRng) -> Self {
        Self {
            token: None,
            home: Home::default(),
            links: HashMap::new(),
            next_link: 0,
            ways: HashMap::new(),
            sweep_at: None,
            outages: Outages::default(),
            actions: VecDeque::new(),
            rng,
        }
    }

    /// Takes over what management says: where the home relay may be, and the token for connections made from now on. What
    /// is connected stays connected. Returns whether the token is a new one.
    pub(crate) fn set_servers(&mut self, now: Instant, urls: Vec<RelayUrl>, token: Option<Token>) -> bool {
        let renewed = token.is_some() && token != self.token;
        if renewed {
            self.token = token;
        }
        self.home_urls_changed(now, urls);
        if renewed {
            // The old one may be why there is no home relay.
            self.hurry(now);
        }
        self.find_links(now);
        renewed
    }

    /// Opens a way in the place of the one that the peer may have.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        peer: PublicKey,
        attempt: u32,
        server: RelayUrl,
        address: Option<IpAddr>,
    ) {
        self.remove_way(now, &peer);
        let place = Place::Waiting { until: now + LINK_TIMEOUT };
        self.ways.insert(peer, Way { attempt, server, address, place });
        self.find_link(now, &peer);
    }

    /// Closes the way that was opened as `attempt`.
    pub(crate) fn close(&mut self, now: Instant, peer: &PublicKey, attempt: u32) {
        if self.ways.get(peer).is_some_and(|way| way.attempt == attempt) {
            self.remove_way(now, peer);
        }
    }

    /// Takes what a connection says.
    pub(crate) fn handle_link(&mut self, now: Instant, id: LinkId, event: LinkEvent) {
        match event {
            LinkEvent::Up { instance, address } => self.link_up(now, id, instance, address),
            LinkEvent::WayUp { number, path } => {
                if let Some((peer, attempt)) = self.way_on(id, number) {
                    self.actions.push_back(Action::Emit(Event::Up { peer, attempt, path }));
                }
            }
            LinkEvent::WayDown { number, reason } => self.way_down(now, id, number, reason),
            LinkEvent::Down(error) => self.link_down(now, id, &error),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let late = |way: &Way| matches!(way.place, Place::Waiting { until } if until <= now);
        let peers: Vec<_> = self.ways.iter().filter(|(_, way)| late(way)).map(|(peer, _)| *peer).collect();
        for peer in peers {
            self.fail_way(now, &peer, "its relay is not connected".into());
        }
        self.home_timeout(now);
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep(now);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.ways.values().filter_map(|way| match way.place {
            Place::Waiting { until } => Some(until),
            Place::On { .. } => None,
        });
        waiting.chain(self.home.retry_at()).chain(self.sweep_at).min()
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// All relays that matter now: the home relay or its candidates first.
    pub(crate) fn status(&self) -> Vec<RelayStatus> {
        let mut status = self.home_status();
        let mut others: Vec<_> = self.links.values().filter(|link| !link.home).map(Link::status).collect();
        others.sort_by(|a, b| a.url.as_str().cmp(b.url.as_str()));
        status.extend(others);
        status
    }

    /// Says goodbye on all connections; nothing happens any more after that.
    pub(crate) fn leave(&mut self) {
        self.home = Home::default();
        self.ways.clear();
        for (id, link) in self.links.drain() {
            self.actions.push_back(link.end(id));
        }
    }

    fn emit_down(&mut self, peer: PublicKey, attempt: u32, reason: String) {
        self.actions.push_back(Action::Emit(Event::Down { peer, attempt, reason }));
    }

    /// Who has the way of that number.
    fn way_on(&self, id: LinkId, number: u32) -> Option<(PublicKey, u32)> {
        let peer = *self.links.get(&id)?.peers.get(&number)?;
        Some((peer, self.ways.get(&peer)?.attempt))
    }

    /// A connection says that a way is over; it has forgotten it already.
    fn way_down(&mut self, now: Instant, id: LinkId, number: u32, reason: WayEvent) {
        let Some((peer, attempt)) = self.way_on(id, number) else { return };
        self.ways.remove(&peer);
        if let Some(link) = self.links.get_mut(&id) {
            link.remove(number, now);
        }
        let reason = match reason {
            WayEvent::Absent => "the peer has not come to the relay",
            WayEvent::Offline | WayEvent::Online => "the peer has left the relay",
        };
        self.emit_down(peer, attempt, reason.into());
    }

    /// Ends a way with an event.
    fn fail_way(&mut self, now: Instant, peer: &PublicKey, reason: String) {
        if let Some(attempt) = self.remove_way(now, peer) {
            self.emit_down(*peer, attempt, reason);
        }
    }

    /// Ends a way silently.
    fn remove_way(&mut self, now: Instant, peer: &PublicKey) -> Option<u32> {
        let way = self.ways.remove(peer)?;
        if let Place::On { link: id, number } = way.place
            && let Some(link) = self.links.get_mut(&id)
        {
            link.remove(number, now);
            let command = LinkCommand::Close { peer: PeerId::from(peer), number };
            self.actions.push_back(Action::Tell { link: id, command });
        }
        Some(way.attempt)
    }

    /// Lets a way that waits go by a connection that leads to its relay; asks for one if there is none.
    fn find_link(&mut self, now: Instant, peer: &PublicKey) {
        let Some(way) = self.ways.get(peer) else { return };
        let (server, address) = (way.server.clone(), way.address);
        match self.link_to(&server) {
            Some(link) if self.is_up(link) => self.place(link, *peer),
            // It will be placed when the connection is up.
            Some(_) => {}
            None if self.home.is_sought_at(&server) => {}
            None => match self.token.clone() {
                Some(token) => _ = self.dial(now, server, address, token, false),
                None => self.fail_way(now, peer, "there is no token for relays yet".into()),
            },
        }
    }

    /// The same for all that wait: where they wait for may have turned out to be somewhere else.
    fn find_links(&mut self, now: Instant) {
        let waits = |way: &Way| matches!(way.place, Place::Waiting { .. });
        let peers: Vec<_> = self.ways.iter().filter(|(_, way)| waits(way)).map(|(peer, _)| *peer).collect();
        for peer in peers {
            self.find_link(now, &peer);
        }
    }

    /// Lets the peer's way go by a connection that is up.
    fn place(&mut self, id: LinkId, peer: PublicKey) {
        let (Some(link), Some(way)) = (self.links.get_mut(&id), self.ways.get_mut(&peer)) else { return };
        let number = link.add(peer);
        way.place = Place::On { link: id, number };
        let command = LinkCommand::Open { peer: PeerId::from(&peer), number };
        self.actions.push_back(Action::Tell { link: id, command });
    }
}
