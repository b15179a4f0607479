//! One session: an agent of `is`, and around it what NetBird needs that `is` leaves open: bounds, consent by responses, checks
//! on the selected pair only, and a selected pair that follows the peer.

mod checks;
mod track;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use is::{IceAgent, IceCreds, Protocol};
use peer_core::key::PublicKey;
use rand::RngExt as _;

use crate::budget::Bucket;
use crate::candidate::{Candidate, Kind};
use crate::credentials::Credentials;
use crate::hmac::HMAC_SHA1;
use crate::limits::{
    ADDRESSES, DOUBT_PAUSE, PAIRS, REMOTE_CANDIDATES, SESSION_CHECKS_BURST, SESSION_CHECKS_PER_SECOND,
};
use crate::shared::{CHECK_RTO, Local, Shared};
use crate::types::{DownReason, PairStatus, Session};
use track::{Pair, Tracks};

/// Longest fragment that is accepted: `is` panics when both together exceed 127 bytes. The official client's has 16.
const UFRAG: usize = 48;

pub(crate) struct Agent {
    peer: PublicKey,
    attempt: u32,
    ufrag: String,
    remote_ufrag: String,
    ice: IceAgent,
    opened: Instant,
    /// Candidates that came by signalling.
    remotes: Vec<(SocketAddr, Kind)>,
    /// Addresses that authenticated messages came from, or had in them.
    seen: Vec<SocketAddr>,
    tracks: Tracks,
    selected: Option<Pair>,
    /// Until then pairs beside the selected one are checked.
    checking_until: Instant,
    /// Checks of the selected pair come at the interval `retry`: it owes a response, or another pair has just answered.
    urgent: bool,
    /// Since when there is doubt whether the selected pair carries data.
    doubted: Option<Instant>,
    checks: Bucket,
    /// There was no token for a check; the next comes at this time.
    blocked: Option<Instant>,
    /// As scheduled by [`crate::Ice`].
    pub(crate) deadline: Option<Instant>,
}

impl Agent {
    /// Announces our candidates.
    pub(crate) fn open(session: &Session, shared: &mut Shared, now: Instant) -> Result<Self, DownReason> {
        if !is_usable(&session.local) || !is_usable(&session.remote) {
            return Err(DownReason::Credentials);
        }
        let mut ice = IceAgent::with_hmac(creds(&session.local), &HMAC_SHA1);
        ice.set_remote_credentials(creds(&session.remote));
        ice.set_controlling(session.controlling);
        ice.set_control_tie_breaker(shared.rng.random());
        ice.set_max_candidate_pairs(PAIRS);
        ice.set_max_stun_rto(CHECK_RTO);
        ice.set_max_stun_retransmits(shared.timers.retransmits);
        // As the official client, which gives the first address of each family and kind the highest preference.
        ice.set_local_preference(|_: &is::Candidate, same_kind: usize| {
            65_535_u32.saturating_sub(u32::try_from(same_kind).unwrap_or(u32::MAX))
        });
        let mut agent = Self {
            peer: session.peer,
            attempt: session.attempt,
            ufrag: session.local.ufrag.clone(),
            remote_ufrag: session.remote.ufrag.clone(),
            ice,
            opened: now,
            remotes: Vec::new(),
            seen: Vec::new(),
            tracks: Tracks::default(),
            selected: None,
            checking_until: now,
            urgent: false,
            doubted: None,
            checks: Bucket::new(SESSION_CHECKS_PER_SECOND, SESSION_CHECKS_BURST),
            blocked: None,
            deadline: None,
        };
        for local in shared.locals.candidates() {
            agent.add_local(local, shared, now);
        }
        Ok(agent)
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(crate) fn ufrag(&self) -> &str {
        &self.ufrag
    }

    pub(crate) fn remote_ufrag(&self) -> &str {
        &self.remote_ufrag
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.selected.is_some()
    }

    /// Whether this address has sent authenticated messages.
    pub(crate) fn knows(&self, source: SocketAddr) -> bool {
        self.seen.contains(&source)
    }

    /// Pairs our new candidate and announces it.
    pub(crate) fn add_local(&mut self, local: Local, shared: &mut Shared, now: Instant) {
        let Some(candidate) = local.candidate() else { return };
        if self.ice.add_local_candidate(candidate).is_some() {
            self.check_for(shared.timers.settle, now);
            shared.announce(self.peer, self.attempt, &self.ufrag, local);
        }
    }

    /// Drops our candidate and its pairs.
    pub(crate) fn remove_local(&mut self, local: Local) -> Result<(), DownReason> {
        if let Some(candidate) = local.candidate() {
            self.ice.invalidate_candidate(&candidate);
        }
        self.tracks.remove_local(local.address);
        match self.selected {
            Some(pair) if pair.local == local.address => Err(DownReason::AddressGone),
            _ => Ok(()),
        }
    }

    /// A candidate of the peer.
    pub(crate) fn add_remote(&mut self, candidate: &Candidate, shared: &mut Shared, now: Instant) {
        let address = candidate.address;
        if !shared.is_remote(address) {
            return shared.stats.refused.address.add(1);
        }
        if self.remotes.iter().any(|(known, _)| *known == address) {
            return;
        }
        if self.remotes.len() >= REMOTE_CANDIDATES {
            return shared.stats.refused.limit.add(1);
        }
        self.remotes.push((address, candidate.kind));
        let kind = match candidate.kind {
            Kind::Host => is::CandidateKind::Host,
            Kind::ServerReflexive => is::CandidateKind::ServerReflexive,
            Kind::PeerReflexive => is::CandidateKind::PeerReflexive,
            Kind::Relayed => is::CandidateKind::Relayed,
        };
        let (foundation, priority) = (candidate.foundation.clone(), candidate.priority);
        self.ice.add_remote_candidate(is::Candidate::from_parts(
            foundation,
            1,
            Protocol::Udp,
            priority,
            address,
            kind,
            None,
            None,
            None,
        ));
        self.check_for(shared.timers.settle, now);
    }

    /// Data had no answer: the selected pair is checked at once, and has little time to answer.
    pub(crate) fn doubt(&mut self, shared: &Shared, now: Instant) {
        let answered = self.selected.and_then(|pair| self.tracks.get(pair)).map(|track| track.response);
        let recently = answered.is_none_or(|at| now.saturating_duration_since(at) < DOUBT_PAUSE);
        if self.doubted.is_none() && !recently {
            self.doubted = Some(now);
            self.set_urgent(true, shared);
        }
    }

    pub(crate) fn pair(&self, shared: &Shared) -> Option<PairStatus> {
        let pair = self.selected?;
        let track = self.tracks.get(pair)?;
        let remote = self.remotes.iter().find(|(address, _)| *address == pair.remote);
        Some(PairStatus {
            local_kind: shared.locals.kind(track.mapped),
            local: track.mapped,
            remote_kind: remote.map_or(Kind::PeerReflexive, |(_, kind)| *kind),
            remote: pair.remote,
            round_trip: track.round_trip,
        })
    }

    /// Pairs beside the selected one are checked at least for this time.
    fn check_for(&mut self, time: Duration, now: Instant) {
        self.checking_until = self.checking_until.max(now + time);
    }

    /// Notes an address that an authenticated message came from or had in it; whether it is new.
    fn see(&mut self, address: SocketAddr) -> Result<bool, DownReason> {
        if self.seen.contains(&address) {
            return Ok(false);
        }
        if self.seen.len() >= ADDRESSES {
            return Err(DownReason::Exhausted);
        }
        self.seen.push(address);
        Ok(true)
    }
}

impl std::fmt::Debug for Agent {
    /// Without `is`' agent, which would show passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { peer, attempt, remotes, selected, .. } = self;
        f.debug_struct("Agent")
            .field("peer", peer)
            .field("attempt", attempt)
            .field("remotes", remotes)
            .field("selected", selected)
            .finish_non_exhaustive()
    }
}

fn is_usable(credentials: &Credentials) -> bool {
    let Credentials { ufrag, pwd } = credentials;
    !ufrag.is_empty() && ufrag.len() <= UFRAG && !ufrag.contains(':') && !pwd.is_empty()
}

fn creds(credentials: &Credentials) -> IceCreds {
    IceCreds { ufrag: credentials.ufrag.clone(), pass: credentials.pwd.to_string() }
}
