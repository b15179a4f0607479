//! What two peers tell each other of ICE: credentials, which stay, and sessions, which change with the agents.

use rand::{CryptoRng, RngExt as _};

use crate::message::{Credentials, Offer, Session};

/// Our side of the exchange with one peer, and what the peer last said.
#[derive(Clone, Debug, Default)]
pub(super) struct Ice {
    /// Drawn at first need and kept: an official client takes other credentials for another peer's.
    local: Option<Credentials>,
    /// Ours; another one for each agent.
    session: Option<Session>,
    /// The peer said that it does without ICE.
    refused: bool,
    /// Attempts in a row that found no path.
    failures: u32,
}

/// What an offer or an answer says of ICE, beside what was known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing new.
    Same,
    /// The peer does without.
    Refused,
    /// The peer has begun a session that we do not know.
    Begun(Credentials, Option<Session>),
}

impl Ice {
    /// Reads an offer or an answer. `known`: the peer's session that our agent works with, where there is one.
    pub(super) fn read(&mut self, offer: &Offer, known: Option<Option<Session>>) -> Said {
        let Some(credentials) = &offer.credentials else {
            self.refused = true;
            return Said::Refused;
        };
        self.refused = false;
        // Clients before 0.55 have no sessions: theirs is the same as long as our agent lives.
        match known {
            Some(known) if offer.session.is_none() || offer.session == known => Said::Same,
            Some(_) | None => Said::Begun(credentials.clone(), offer.session),
        }
    }

    /// Credentials and session to send; none to a peer that does without.
    pub(super) fn own(&mut self, rng: &mut impl CryptoRng) -> (Option<Credentials>, Option<Session>) {
        if self.refused {
            return (None, None);
        }
        let local = self.credentials(rng);
        (Some(local), Some(*self.session.get_or_insert_with(|| rng.random())))
    }

    /// Our credentials.
    pub(super) fn credentials(&mut self, rng: &mut impl CryptoRng) -> Credentials {
        self.local.get_or_insert_with(|| Credentials::generate(rng)).clone()
    }

    /// Our agent is gone: the next one is another session.
    pub(super) fn ended(&mut self) {
        self.session = None;
    }

    /// Whether the peer does without.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// A path was found, or what stood in its way may be gone.
    pub(super) fn forgive(&mut self) {
        self.failures = 0;
    }

    /// Whether so many attempts failed that the next has time.
    pub(super) fn is_hopeless(&self) -> bool {
        self.failures >= MANY_FAILURES
    }
}

/// As many offers for a direct path as the official client makes while a relay works.
const MANY_FAILURES: u32 = 3;
