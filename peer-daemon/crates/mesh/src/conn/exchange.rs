//! Offers and answers: what both sides tell each other, and what follows from it.

use std::time::{Duration, Instant};

use super::ice::Said;
use super::{AGAIN_INTERVAL, Conn, HANDSHAKE_AGAIN, Wanted};
use crate::guard::{PAUSE_WITH_PATH, Ramp};
use crate::mesh::Shared;
use crate::message::{Credentials, Message, Offer, Session};
use crate::types::Action;

impl Conn {
    pub(super) fn handle_message(&mut self, shared: &mut Shared, message: Message, now: Instant) {
        match message {
            Message::Offer(offer) => {
                self.wake(shared, now);
                let begun = self.read_ice(shared, &offer);
                self.remote = offer.relay;
                // Before our first candidates: those that come before it are lost on official clients. Where only a relay
                // serves, an answer without one would say that there is none: an offer follows when there is.
                if shared.can_offer() {
                    let own = self.own_offer(shared);
                    shared.send(self.key, Message::Answer(own));
                }
                self.open_paths(shared, begun, now);
                // The peer may have lost its session, and waits for the controller to make a new one.
                let recent = [self.handshake_begun, self.last_handshake].into_iter().flatten().max();
                if self.controller
                    && self.path.is_some()
                    && recent.is_none_or(|at| now.saturating_duration_since(at) >= HANDSHAKE_AGAIN)
                {
                    self.begin_handshake(shared, now);
                }
            }
            Message::Answer(offer) => {
                self.wake(shared, now);
                let begun = self.read_ice(shared, &offer);
                self.remote = offer.relay;
                self.open_paths(shared, begun, now);
            }
            Message::Candidate(candidate) => {
                self.wake(shared, now);
                if shared.settings.ice {
                    shared.act(self.key, Action::RemoteCandidate(candidate));
                }
            }
            // One that must not be idle is offered to again as soon as the way breaks.
            Message::GoIdle if self.wanted == Wanted::Always => {}
            Message::GoIdle => self.go_idle(shared, false),
        }
    }

    pub(super) fn offer_at(&self, shared: &Shared) -> Option<Instant> {
        let ramp = self.ramp.as_ref().filter(|_| shared.can_offer());
        ramp.map(Ramp::next)
    }

    pub(super) fn offer(&mut self, shared: &mut Shared, now: Instant) {
        let own = self.own_offer(shared);
        shared.send(self.key, Message::Offer(own));
        let has_path = self.best().is_some();
        if let Some(ramp) = &mut self.ramp {
            ramp.advance(now, has_path, &mut shared.rng);
        }
    }

    /// A path was lost, or not found: offer again soon; for a direct one that was not found again and again, later.
    pub(super) fn retry(&mut self, shared: &mut Shared, now: Instant) {
        let has_time = self.ice.is_hopeless() && self.best().is_some();
        let pause = if has_time { PAUSE_WITH_PATH } else { AGAIN_INTERVAL };
        self.retry_after(shared, pause, now);
    }

    /// As [`Self::retry`], after this time.
    pub(super) fn retry_after(&mut self, shared: &mut Shared, pause: Duration, now: Instant) {
        if self.wanted != Wanted::No && !self.is_complete(shared) {
            self.ramp = Some(Ramp::new(now + pause, AGAIN_INTERVAL * 2, &mut shared.rng));
        }
    }

    /// Whether our last offer or answer named no relay, or an earlier one: the peer cannot meet us at ours.
    pub(super) fn untold(&self, shared: &Shared) -> bool {
        shared.settings.ice && shared.home.is_some() && self.told != shared.home
    }

    fn own_offer(&mut self, shared: &mut Shared) -> Offer {
        let (credentials, session) = if shared.settings.ice { self.ice.own(&mut shared.rng) } else { (None, None) };
        self.told.clone_from(&shared.home);
        Offer {
            credentials,
            session,
            wireguard_port: shared.settings.wireguard_port,
            version: shared.settings.version.clone(),
            relay: shared.home.clone(),
        }
    }

    /// Ends our agent if the peer's is another one now, and returns what the next one needs.
    fn read_ice(&mut self, shared: &mut Shared, offer: &Offer) -> Option<(Credentials, Option<Session>)> {
        if !shared.settings.ice {
            return None;
        }
        match self.ice.read(offer, self.direct.target().copied()) {
            Said::Same => None,
            Said::Refused => {
                self.close_ice(shared);
                None
            }
            Said::Begun(remote, session) => {
                self.close_ice(shared);
                Some((remote, session))
            }
        }
    }

    fn open_paths(&mut self, shared: &mut Shared, begun: Option<(Credentials, Option<Session>)>, now: Instant) {
        if let Some((remote, session)) = begun {
            let attempt = self.direct.open(session);
            let local = self.ice.credentials(&mut shared.rng);
            let controlling = self.controller;
            shared.act(self.key, Action::OpenIce { attempt, local, remote, controlling });
        }
        self.meet(shared);
        self.choose(shared, now);
    }
}
