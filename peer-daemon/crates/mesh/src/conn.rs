//! The connection to one peer.
//!
//! Both sides send offers and answer them; one of either kind is enough for both to know where to meet. The *controller*,
//! whose key is greater as text, chooses the relay, nominates among direct paths, and begins the WireGuard handshake; the
//! other side waits a while for it. The relay carries packets until ICE has found a direct path, and again when that ends.

use std::time::{Duration, Instant};

use peer_core::key::PublicKey;
use peer_core::path::Path;

use crate::guard::Ramp;
use crate::mesh::Shared;
use crate::message::{Message, RelayServer, Session};
use crate::types::{Action, Input, PathKind, State, Status};

mod choice;
mod exchange;
mod ice;
mod slot;
mod watch;

use ice::Ice;
use slot::Slot;
use watch::Watch;

/// The connection to one peer.
#[derive(Debug)]
pub(crate) struct Conn {
    key: PublicKey,
    controller: bool,
    can_be_lazy: bool,
    wanted: Wanted,
    /// When to offer next, while there is no path.
    ramp: Option<Ramp>,
    /// The peer's home relay, as it last said; `None`: it has said nothing, or that it has none.
    remote: Option<RelayServer>,
    relay: Slot<RelayServer>,
    ice: Ice,
    /// By ICE, directly or through a TURN server; towards the peer's session.
    direct: Slot<Option<Session>>,
    /// The home relay in our last offer or answer.
    told: Option<RelayServer>,
    /// The path that the engine was told.
    path: Option<(PathKind, Path)>,
    /// Until when the peer's handshake is waited for before the engine is told.
    hold: Option<Instant>,
    watch: Option<Watch>,
    last_handshake: Option<Instant>,
    /// When the engine was last asked for a handshake.
    handshake_begun: Option<Instant>,
    /// When to ask for it again, as often as the list is long still: the first may reach a peer that does not know us yet.
    again: Option<(Instant, &'static [Duration])>,
    shown: (State, Option<PathKind>),
    since: Instant,
}

/// Whether a connection is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Nobody wants it.
    No,
    /// It was greeted, and has this long to answer.
    Greeted(Instant),
    /// It was last needed at this time.
    Active(Instant),
    /// It must not be idle.
    Always,
}

impl Conn {
    /// A peer that is new in the map.
    pub(crate) fn new(own: PublicKey, key: PublicKey, now: Instant) -> Self {
        Self {
            key,
            // Keys are compared as text, which orders them otherwise than their bytes.
            controller: own.to_string() > key.to_string(),
            can_be_lazy: true,
            wanted: Wanted::No,
            ramp: None,
            remote: None,
            relay: Slot::default(),
            ice: Ice::default(),
            direct: Slot::default(),
            told: None,
            path: None,
            hold: None,
            watch: None,
            last_handshake: None,
            handshake_begun: None,
            again: None,
            shown: (State::Idle, None),
            since: now,
        }
    }

    /// Offers to a lazy peer, which wakes it.
    pub(crate) fn greet(&mut self, shared: &mut Shared, first: Instant, now: Instant) {
        if self.wanted == Wanted::No {
            self.wanted = Wanted::Greeted(first + GREETING);
            self.ramp = Some(Ramp::new(first, FIRST_INTERVAL, &mut shared.rng));
            self.settle(shared, now);
        }
    }

    /// What the map said last.
    pub(crate) fn can_be_lazy(&self) -> bool {
        self.can_be_lazy
    }

    /// Takes what the map says of it. Offers begin at `first` if it is no longer to be idle.
    pub(crate) fn configure(&mut self, shared: &mut Shared, can_be_lazy: bool, first: Instant, now: Instant) {
        self.can_be_lazy = can_be_lazy;
        let always = !(shared.lazy && can_be_lazy);
        if always && self.wanted != Wanted::Always {
            if self.wanted == Wanted::No {
                self.ramp = Some(Ramp::new(first, FIRST_INTERVAL, &mut shared.rng));
            }
            self.wanted = Wanted::Always;
        } else if !always && self.wanted == Wanted::Always {
            self.wanted = Wanted::Active(now);
        }
        self.settle(shared, now);
    }

    /// It is no longer in the map.
    pub(crate) fn close(&mut self, shared: &mut Shared) {
        self.close_relay(shared);
        self.close_ice(shared);
    }

    /// The signal server or the home relay is another one, or gone.
    pub(crate) fn servers_changed(&mut self, shared: &mut Shared, first: Instant, now: Instant) {
        if self.wanted == Wanted::No {
            return;
        }
        let moved = self.controller
            && self.relay.target().zip(shared.home.as_ref()).is_some_and(|(used, home)| used.url != home.url);
        if moved {
            self.meet(shared);
            self.choose(shared, now);
        }
        self.ice.forgive();
        if moved || self.untold(shared) || !self.is_complete(shared) {
            self.ramp = Some(Ramp::new(first, AGAIN_INTERVAL, &mut shared.rng));
        }
        self.settle(shared, now);
    }

    /// Our own addresses changed: what could not be reached directly perhaps can be now.
    pub(crate) fn candidates_changed(&mut self, shared: &mut Shared, first: Instant, now: Instant) {
        self.ice.forgive();
        let wants = self.wanted != Wanted::No && !self.ice.is_refused();
        if wants && shared.settings.ice && self.direct.path().is_none() {
            self.ramp = Some(Ramp::new(first, AGAIN_INTERVAL, &mut shared.rng));
        }
        self.settle(shared, now);
    }

    pub(crate) fn handle(&mut self, shared: &mut Shared, input: Input, now: Instant) {
        match input {
            Input::Message(message) => self.handle_message(shared, message, now),
            Input::PathUp { kind, attempt, path } => self.path_up(shared, (kind, path), attempt, now),
            Input::PathDown { kind, attempt } => self.path_down(shared, kind, attempt, now),
            Input::Handshake(at) => {
                self.last_handshake = self.last_handshake.max(Some(at));
                self.again = None;
                if self.hold.take().is_some() {
                    self.use_best(shared);
                }
            }
            Input::Traffic(at) => self.needed(at),
            Input::Wanted => self.wake(shared, now),
        }
        self.settle(shared, now);
    }

    pub(crate) fn handle_timeout(&mut self, shared: &mut Shared, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.idle_at(shared)) {
            self.go_idle(shared, true);
        }
        if due(self.hold) {
            self.hold = None;
            self.use_best(shared);
            self.begin_handshake(shared, now);
        }
        if let Some((_, rest)) = self.again.filter(|(at, _)| *at <= now) {
            shared.act(self.key, Action::Handshake);
            self.again = rest.split_first().map(|(pause, rest)| (now + *pause, rest));
        }
        if due(self.watch.as_ref().map(Watch::due)) {
            let good = self.watch.as_mut().is_some_and(|watch| watch.check(self.last_handshake, now));
            if !good {
                self.give_up_path(shared, now);
            }
        }
        if due(self.offer_at(shared)) {
            self.offer(shared, now);
        }
        self.settle(shared, now);
    }

    pub(crate) fn poll_timeout(&self, shared: &Shared) -> Option<Instant> {
        let watch = self.watch.as_ref().map(Watch::due);
        let again = self.again.map(|(at, _)| at);
        [self.idle_at(shared), self.hold, again, watch, self.offer_at(shared)].into_iter().flatten().min()
    }

    pub(crate) fn status(&self) -> Status {
        Status {
            state: self.shown.0,
            kind: self.shown.1,
            relay: self.relay.target().cloned(),
            since: self.since,
            last_handshake: self.last_handshake,
        }
    }

    fn wake(&mut self, shared: &mut Shared, now: Instant) {
        if self.wanted == Wanted::No {
            self.ramp = Some(Ramp::new(now, FIRST_INTERVAL, &mut shared.rng));
        }
        if self.wanted != Wanted::Always {
            self.wanted = Wanted::Active(now);
        }
    }

    /// Data flowed. Only one that is not idle can have any.
    fn needed(&mut self, at: Instant) {
        match self.wanted {
            Wanted::Active(last) => self.wanted = Wanted::Active(last.max(at)),
            Wanted::Greeted(_) => self.wanted = Wanted::Active(at),
            Wanted::No | Wanted::Always => {}
        }
    }

    fn go_idle(&mut self, shared: &mut Shared, tell: bool) {
        if tell && shared.signal && (self.relay.is_open() || self.direct.is_open()) {
            shared.send(self.key, Message::GoIdle);
        }
        self.wanted = Wanted::No;
        self.ramp = None;
        self.remote = None;
        self.told = None;
        self.close_relay(shared);
        self.close_ice(shared);
        self.leave(shared);
    }

    fn idle_at(&self, shared: &Shared) -> Option<Instant> {
        match self.wanted {
            Wanted::Greeted(until) => Some(until),
            Wanted::Active(last) => Some(last + shared.settings.inactivity),
            Wanted::No | Wanted::Always => None,
        }
    }

    fn settle(&mut self, shared: &Shared, now: Instant) {
        if self.is_complete(shared) && !self.untold(shared) {
            self.ramp = None;
        }
        let best = self.best().map(|(kind, _)| kind);
        let state = match (self.wanted, best) {
            (_, Some(_)) => State::Connected,
            (Wanted::No, None) => State::Idle,
            (_, None) => State::Connecting,
        };
        if self.shown != (state, best) {
            if self.shown.0 == State::Connecting && state == State::Connected {
                shared.stats.on_connected(now.saturating_duration_since(self.since));
            }
            self.shown = (state, best);
            self.since = now;
        }
    }
}

impl Shared {
    /// Offers with neither a relay nor ICE say nothing.
    fn can_offer(&self) -> bool {
        self.signal && (self.home.is_some() || self.settings.ice)
    }

    fn send(&mut self, key: PublicKey, message: Message) {
        self.act(key, Action::Send(message));
    }

    fn act(&mut self, key: PublicKey, action: Action) {
        self.actions.push_back((key, action));
    }
}

/// Between the first offer and the second.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// The same after a loss; the first waits as long.
const AGAIN_INTERVAL: Duration = Duration::from_millis(800);
/// How long a greeted peer has to answer.
const GREETING: Duration = Duration::from_secs(60);
/// How long the controller has to begin the handshake.
const CONTROLLER_HEADSTART: Duration = Duration::from_secs(5);
/// After which pauses a handshake that is not answered is begun again, before it is left to WireGuard, which waits for 5 s
/// (paper §6.1): peers set WireGuard up for us only when they have found the path, too, and until then drop what comes. Longer than
/// most round trips, and than the 20 ms that implementations want between two initiations.
const HANDSHAKE_PAUSES: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(1100)];
/// Offers may come often; a handshake for each would not help.
const HANDSHAKE_AGAIN: Duration = Duration::from_secs(3);
