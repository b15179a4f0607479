//! Handshakes of a peer, and the life of its tunnel.

use std::time::Instant;

use peer_core::path::Path;
use rand::RngExt as _;

use super::{Arrival, Held, Peer};
use crate::context::Context;
use crate::error::{DatagramError, PacketError};
use crate::event::Event;
use crate::limits::{
    CLOCK_MARGIN, CROSSING_HOLD, CROSSING_PAUSE, FORCED_INITIATION_PAUSE, REKEY_TIMEOUT, RETRY_JITTER,
};
use crate::message;
use crate::stats::Handshake;
use crate::tunnel::Tunnel;

impl Peer {
    /// Sends an initiation if there is somewhere to send it; unless `force`, not while another is under way. Shortly after
    /// an answer to the peer's it waits: the peer may be about to use that session.
    pub(crate) fn initiate(&mut self, cx: &mut Context, now: Instant, force: bool) {
        if self.path.is_none() {
            return;
        }
        let due = self.answered_at.map(|at| at + CROSSING_HOLD).filter(|due| *due > now);
        if let Some(due) = due.filter(|_| self.unconfirmed[0].is_some()) {
            if self.handshake_at.replace(due).is_none() {
                cx.stats.handshake(Handshake::Crossed);
            }
            return;
        }
        self.refresh(cx, now);
        if let Some(len) = self.tunnel(cx, now).initiate(&mut cx.clock, now, force, &mut cx.scratch) {
            self.send_core_message(cx, now, len);
        }
    }

    /// Takes an initiation that deciphers as this peer's, by `path`.
    ///
    /// If it crosses one of ours it is answered later, unless ours is answered first. All that is known of it is whose key it
    /// names, which a replayed one does too: it does not take the place of one that waits and came by another path.
    pub(crate) fn handle_initiation(&mut self, cx: &mut Context, arrival: &Arrival<'_>) -> Result<(), DatagramError> {
        let Arrival { now, path, message } = *arrival;
        let due = self.begun_at().map(|begun| begun + CROSSING_HOLD).filter(|due| *due > now);
        let apart = self.held.as_ref().is_some_and(|held| held.path != path);
        if let (Some(due), Ok(message), false) = (due, message.try_into(), apart) {
            cx.stats.handshake(Handshake::Crossed);
            // The newest is the one that the peer still knows of.
            self.held = Some(Box::new(Held { due, path, message }));
            return Ok(());
        }
        if !apart {
            self.held = None;
        }
        self.answer(cx, arrival)
    }

    /// Takes an initiation that had to wait.
    pub(super) fn answer_held(&mut self, cx: &mut Context, now: Instant, held: &Held) {
        if let Err(reason) = self.answer(cx, &Arrival { now, path: held.path, message: &held.message }) {
            cx.stats.drop_datagram(reason);
        }
    }

    fn answer(&mut self, cx: &mut Context, arrival: &Arrival<'_>) -> Result<(), DatagramError> {
        let Arrival { now, path, message } = *arrival;
        self.refresh(cx, now);
        match self.tunnel(cx, now).handshake(&mut cx.clock, now, message, &mut cx.scratch) {
            Ok(Some(len)) => {
                self.rx.0 += message.len() as u64;
                self.unconfirmed = [message::sender_index(&cx.scratch[..len]), self.unconfirmed[0]];
                self.answered_at = Some(now);
                self.accepted = Some((now, path));
                cx.stats.handshake(Handshake::Responded);
                self.roam(cx, now, path);
                self.send(cx, now, path, len);
                self.sync(cx, now);
                Ok(())
            }
            Ok(None) => Err(DatagramError::Internal),
            Err(DatagramError::StaleInitiation) => {
                self.answer_stale(cx, now, path);
                Err(DatagramError::StaleInitiation)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a response to an initiation of ours, by `path`.
    pub(crate) fn handle_response(&mut self, cx: &mut Context, arrival: &Arrival<'_>) -> Result<(), DatagramError> {
        let Arrival { now, path, message } = *arrival;
        self.refresh(cx, now);
        let Some((tunnel, _)) = &mut self.tunnel else { return Err(DatagramError::NoSession) };
        let Some(len) = tunnel.handshake(&mut cx.clock, now, message, &mut cx.scratch)? else {
            return Err(DatagramError::Internal);
        };
        self.rx.0 += message.len() as u64;
        self.roam(cx, now, path);
        // The keepalive that confirms the session to the peer.
        self.send(cx, now, path, len);
        self.unconfirmed = [None; 2];
        self.completed(cx, now, Handshake::CompletedAsInitiator);
        self.sync(cx, now);
        Ok(())
    }

    /// Takes a cookie for the next initiation. It proves nothing about the path.
    pub(crate) fn handle_cookie(&mut self, cx: &mut Context, arrival: &Arrival<'_>) -> Result<(), DatagramError> {
        let Arrival { now, message, .. } = *arrival;
        self.refresh(cx, now);
        let Some((tunnel, _)) = &mut self.tunnel else { return Err(DatagramError::BadCookie) };
        match tunnel.handshake(&mut cx.clock, now, message, &mut cx.scratch) {
            Ok(_) => {
                self.rx.0 += message.len() as u64;
                cx.stats.handshake(Handshake::CookieReceived);
                Ok(())
            }
            Err(_) => Err(DatagramError::BadCookie),
        }
    }

    /// The peer has used the session that it initiated.
    pub(super) fn confirmed(&mut self, cx: &mut Context, now: Instant) {
        self.unconfirmed = [None; 2];
        self.completed(cx, now, Handshake::CompletedAsResponder);
    }

    /// Sends what the core made of its own accord.
    pub(super) fn send_core_message(&mut self, cx: &mut Context, now: Instant, len: usize) {
        let Some(path) = self.path else { return };
        if message::is_initiation(&cx.scratch[..len]) {
            let due = now + REKEY_TIMEOUT;
            let jitter = cx.rng.random_range(CLOCK_MARGIN..=RETRY_JITTER);
            self.retry = Some(due..due + jitter);
            cx.stats.handshake(Handshake::Initiated);
        }
        self.send(cx, now, path, len);
    }

    /// Brings our view of the tunnel up to date: after ticks and handshake messages.
    pub(super) fn sync(&mut self, cx: &mut Context, now: Instant) {
        let usable = self.tunnel.as_ref().is_some_and(|(tunnel, _)| tunnel.usable(&mut cx.clock, now));
        match (self.usable, usable) {
            (false, true) => {
                self.usable = true;
                cx.stats.connected.add(1);
                self.flush(cx, now);
            }
            (true, false) => self.expired(cx),
            _ => {}
        }
    }

    pub(super) fn drop_tunnel(&mut self, cx: &mut Context) {
        if let Some((_, index)) = self.tunnel.take() {
            cx.indexes.remove(index);
            cx.stats.tunnels.set(cx.indexes.len());
        }
        self.unconfirmed = [None; 2];
        self.retry = None;
        self.held = None;
        if self.usable {
            self.expired(cx);
        }
    }

    /// The core has given up: nothing runs until the next initiation.
    pub(super) fn give_up(&mut self, cx: &mut Context) {
        self.unconfirmed = [None; 2];
        if self.retry.take().is_some() {
            cx.stats.handshake(Handshake::TimedOut);
            cx.report(Event::HandshakeTimedOut { peer: self.config.public_key });
        }
        self.drop_staged(cx, PacketError::HandshakeTimeout);
    }

    fn expired(&mut self, cx: &mut Context) {
        self.usable = false;
        cx.stats.connected.sub(1);
        cx.report(Event::SessionExpired { peer: self.config.public_key });
    }

    fn completed(&mut self, cx: &mut Context, now: Instant, how: Handshake) {
        self.retry = None;
        // Whatever one was ordered for, there is one now.
        self.handshake_at = None;
        self.held = None;
        self.last_handshake = Some(now);
        self.traffic_at = now;
        cx.stats.handshake(how);
        if let Some(path) = self.path {
            cx.known.note(now, path);
            cx.stats.known_addresses.set(cx.known.len());
            cx.report(Event::HandshakeCompleted { peer: self.config.public_key, path });
        }
    }

    /// Official clients send two initiations with one timestamp, 1–2 ms apart, and discard our answer to the first:
    /// then only an initiation of ours helps before theirs is repeated 5 s later. It goes to the path that was
    /// authenticated last.
    ///
    /// Anybody can replay an initiation. One is not answered that came neither by the peer's path nor as the last one that was
    /// accepted, nor one of a peer that has a session and has not begun a handshake just now.
    ///
    /// While one of ours is on its way it has to wait: the core remembers one before the last, which its answer may still belong to,
    /// and the peer takes a second one so soon for a flood.
    fn answer_stale(&mut self, cx: &mut Context, now: Instant, path: Path) {
        let begins = self.accepted.is_some_and(|(at, _)| now.saturating_duration_since(at) < REKEY_TIMEOUT);
        let mut known = self.path.into_iter().chain(self.accepted.map(|(_, path)| path));
        if !known.any(|known| leads_to_same(known, path)) || (self.usable && !begins) {
            return;
        }
        if self.begun_at().is_some_and(|begun| now.saturating_duration_since(begun) < CROSSING_PAUSE) {
            self.handshake_at = self.handshake_at.or(Some(now + CROSSING_PAUSE));
            return;
        }
        let soon = self.forced_at.is_some_and(|at| now.saturating_duration_since(at) < FORCED_INITIATION_PAUSE);
        if !soon && self.path.is_some() {
            self.forced_at = Some(now);
            cx.stats.handshake(Handshake::Forced);
            // The peer has no use for our answer, so that nothing crosses.
            self.answered_at = None;
            self.initiate(cx, now, true);
        }
    }

    /// When the initiation was sent that is not answered yet.
    fn begun_at(&self) -> Option<Instant> {
        self.retry.as_ref()?.start.checked_sub(REKEY_TIMEOUT)
    }

    /// The tunnel; made if there is none.
    fn tunnel(&mut self, cx: &mut Context, now: Instant) -> &mut Tunnel {
        let (tunnel, _) = self.tunnel.get_or_insert_with(|| {
            let index = cx.indexes.insert(self.id, &mut cx.rng);
            cx.stats.tunnels.set(cx.indexes.len());
            self.ticked_at = now;
            let psk = self.config.preshared_key.as_ref();
            let time = (&mut cx.clock, now);
            (Box::new(Tunnel::new(&cx.identity, self.config.public_key, psk, index, time)), index)
        });
        tunnel
    }
}

/// Whether both paths end at one place, by whatever address of ours.
fn leads_to_same(one: Path, other: Path) -> bool {
    match (one, other) {
        (Path::Udp { remote: one, .. }, Path::Udp { remote: other, .. }) => one == other,
        (Path::Relay(one), Path::Relay(other)) => one == other,
        (Path::Udp { .. }, Path::Relay(_)) | (Path::Relay(_), Path::Udp { .. }) => false,
    }
}
