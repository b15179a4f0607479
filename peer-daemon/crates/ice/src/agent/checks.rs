//! Checks and consent: what is sent when, what counts as alive.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use is::stun::{StunMessage, StunPacket};
use is::{IceAgentEvent, Protocol};
use rand::RngExt as _;

use super::Agent;
use super::track::{Pair, Track};
use crate::limits::{DOUBT_INTERVAL, DOUBT_TIME};
use crate::shared::{CHECK_RTO, Shared};
use crate::stun::{self, Class};
use crate::transactions::Transaction;
use crate::types::{DownReason, Event, Transmit};

/// Without a token for a check, a session comes again after this time to twice of it.
const BLOCKED: Duration = Duration::from_millis(25);
/// The selected pair has left so many checks unanswered when another one, which answers, takes its place.
const SWITCH_AFTER: u32 = 4;
/// A session is not run more often by its timer.
const SHORTEST: Duration = Duration::from_millis(1);

impl Agent {
    /// A request for this session; whether it was authentic.
    pub(crate) fn handle_request(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        message: StunMessage<'_>,
        shared: &mut Shared,
        now: Instant,
    ) -> Result<bool, DownReason> {
        let use_candidate = message.use_candidate();
        // Bounded here: `is` keeps each new source for the agent's life.
        if !self.knows(source) {
            if !self.ice.accepts_message(&message) {
                return Ok(false);
            }
            self.see(source)?;
            self.check_for(shared.timers.settle, now);
        }
        let packet = StunPacket { proto: Protocol::Udp, source, destination, message };
        if !self.ice.handle_packet(now, packet) {
            return Ok(false);
        }
        if use_candidate && self.selected.is_some_and(|pair| pair.remote != source) {
            // The peer prefers another pair: it must be checked before it can be selected.
            self.check_for(shared.timers.settle, now);
        }
        shared.stats.checks_received.add(1);
        Ok(true)
    }

    /// A response to a request of this session, from where it went; whether it was authentic.
    pub(crate) fn handle_response(
        &mut self,
        transaction: &Transaction,
        mapped: Option<SocketAddr>,
        message: StunMessage<'_>,
        shared: &mut Shared,
        now: Instant,
    ) -> Result<bool, DownReason> {
        let pair = Pair { local: transaction.local, remote: transaction.remote };
        // Bounded here: `is` keeps each new mapping for the agent's life.
        if let Some(mapped) = mapped.filter(|mapped| !self.knows(*mapped)) {
            if !self.ice.accepts_message(&message) {
                return Ok(false);
            }
            self.see(mapped)?;
        }
        let success = message.is_successful_binding_response();
        let packet = StunPacket { proto: Protocol::Udp, source: pair.remote, destination: pair.local, message };
        if !self.ice.handle_packet(now, packet) {
            return Ok(false);
        }
        shared.stats.responses.add(1);
        if let Some(mapped) = mapped.filter(|_| success) {
            let first = self.tracks.answered(pair, mapped, now.saturating_duration_since(transaction.sent), now);
            if self.selected == Some(pair) {
                self.doubted = None;
                self.set_urgent(false, shared);
            } else if first && self.selected.is_some() {
                // Perhaps the peer has moved: ask at the old place at once rather than at the next keepalive.
                self.set_urgent(true, shared);
            }
        }
        Ok(true)
    }

    /// Runs what is due, sends, and says when to come again. To be called after every input.
    pub(crate) fn drive(&mut self, shared: &mut Shared, now: Instant) -> Result<Option<Instant>, DownReason> {
        self.judge(shared, now)?;
        self.blocked = None;
        if self.selected.is_some() || self.checks.wait(now).max(shared.checks.wait(now)).is_zero() {
            self.ice.handle_timeout(now);
        } else {
            // Not all at the same time, and in another order than the last time.
            self.blocked = Some(now + BLOCKED + shared.rng.random_range(Duration::ZERO..BLOCKED));
        }
        self.send(shared, now);
        while let Some(event) = self.ice.poll_event() {
            if let IceAgentEvent::NominatedSend { source, destination, .. } = event {
                self.nominated(Pair { local: source, remote: destination }, shared, now);
            }
        }
        Ok(self.next(shared, now))
    }

    /// Sends what `is` wants to send. Once a pair is selected, checks of others go nowhere after a while: `is` gives those pairs
    /// up, but still knows their candidates when the peer uses them again.
    fn send(&mut self, shared: &mut Shared, now: Instant) {
        while let Some(transmit) = self.ice.poll_transmit() {
            let pair = Pair { local: transmit.source, remote: transmit.destination };
            let Some((class, id)) = stun::own(&transmit.contents) else { continue };
            if class == Class::Request {
                // Checks of the selected pair are exempt from the rates.
                let exempt = self.selected == Some(pair);
                let settled = !exempt && self.is_settled(now);
                if settled || !(exempt || self.checks.take(now) && shared.checks.take(now)) {
                    continue;
                }
                self.tracks.sent(pair, now);
                let (peer, attempt) = (self.peer, self.attempt);
                let Pair { local, remote } = pair;
                shared.transactions.insert(id, Transaction { peer, attempt, local, remote, sent: now });
                shared.stats.checks_sent.add(1);
            }
            let bytes = transmit.contents.to_vec();
            shared.send(Transmit { remote: pair.remote, local: Some(pair.local.ip()), bytes });
        }
    }

    /// `is` nominated a pair. It may be one that answered long ago, while the selected one is alive.
    fn nominated(&mut self, pair: Pair, shared: &mut Shared, now: Instant) {
        let Some(track) = self.tracks.get(pair).copied() else { return };
        let stale = now.saturating_duration_since(track.response) > shared.timers.retry * 4;
        let alive = self.selected_track().is_some_and(|track| track.unanswered.is_none());
        if self.selected != Some(pair) && !(stale && alive) {
            self.select(pair, shared, now);
        }
    }

    fn select(&mut self, pair: Pair, shared: &mut Shared, now: Instant) {
        self.selected = Some(pair);
        self.doubted = None;
        self.set_urgent(false, shared);
        self.check_for(shared.timers.settle, now);
        shared.stats.selected.add(1);
        let (peer, attempt) = (self.peer, self.attempt);
        shared.event(Event::Up { peer, attempt, remote: pair.remote, local: Some(pair.local.ip()) });
    }

    /// Consent (RFC 7675): only responses count. A peer whose requests arrive while ours are lost cannot be sent to.
    fn judge(&mut self, shared: &mut Shared, now: Instant) -> Result<(), DownReason> {
        let Some(selected) = self.selected_track().copied() else {
            let end = self.opened + shared.timers.unreachable;
            return if now < end { Ok(()) } else { Err(DownReason::Unreachable) };
        };
        let silent = now.saturating_duration_since(selected.response);
        if let Some(since) = self.doubted.filter(|since| now >= *since + doubt_time(&selected)) {
            // Data and checks have had no answer since.
            let other = self.tracks.latest_but(selected.pair).filter(|other| other.response > since);
            let pair = other.ok_or(DownReason::Lost)?.pair;
            self.select(pair, shared, now);
            return Ok(());
        }
        let Some(since) = selected.unanswered.filter(|since| now >= *since + patience(&selected, shared)) else {
            // Without a check on its way, `is` has given the pair up.
            let lost = silent >= shared.timers.disconnected + shared.timers.keepalive;
            return if lost { Err(DownReason::Lost) } else { Ok(()) };
        };
        // Not for one lost datagram: equal pairs would take turns.
        let silent_checks = now >= since + shared.timers.retry * SWITCH_AFTER;
        let other = self.tracks.latest_but(selected.pair).filter(|other| silent_checks && other.response > since);
        if let Some(pair) = other.map(|other| other.pair) {
            self.select(pair, shared, now);
        } else if silent >= shared.timers.disconnected {
            return Err(DownReason::Lost);
        } else {
            self.set_urgent(true, shared);
        }
        Ok(())
    }

    /// When [`Self::drive`] has something to do.
    fn next(&mut self, shared: &Shared, now: Instant) -> Option<Instant> {
        let judge = match self.selected_track() {
            None => self.opened + shared.timers.unreachable,
            Some(track) => match track.unanswered.map(|since| since + patience(track, shared)) {
                Some(at) if at > now => at,
                Some(_) => track.response + shared.timers.disconnected,
                None => track.response + shared.timers.disconnected + shared.timers.keepalive,
            },
        };
        let doubt = self.doubted.zip(self.selected_track()).map(|(since, track)| since + doubt_time(track));
        let judge = doubt.map_or(judge, |doubt| doubt.min(judge));
        let check = self.blocked.or_else(|| self.ice.poll_timeout());
        Some(check.map_or(judge, |check| check.min(judge)).max(now + SHORTEST))
    }

    fn selected_track(&self) -> Option<&Track> {
        self.tracks.get(self.selected?)
    }

    /// Whether only the selected pair is checked.
    fn is_settled(&self, now: Instant) -> bool {
        self.selected.is_some() && now >= self.checking_until && !self.urgent
    }

    pub(super) fn set_urgent(&mut self, urgent: bool, shared: &Shared) {
        self.urgent = urgent;
        let interval = match self.selected {
            None => CHECK_RTO,
            Some(_) if self.doubted.is_some() => DOUBT_INTERVAL,
            Some(_) if urgent => shared.timers.retry,
            Some(_) => shared.timers.keepalive,
        };
        self.ice.set_max_stun_rto(interval);
    }
}

/// How long a pair in doubt has to answer.
fn doubt_time(track: &Track) -> Duration {
    (track.round_trip * 6).clamp(DOUBT_TIME, DOUBT_TIME * 4)
}

/// How long a check of the selected pair may take until the pair is in doubt.
fn patience(track: &Track, shared: &Shared) -> Duration {
    (track.round_trip * 2).clamp(shared.timers.retry, shared.timers.retry * 4)
}
