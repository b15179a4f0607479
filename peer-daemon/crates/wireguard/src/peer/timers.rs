//! Timers of a peer. Idle peers have none.

use std::time::Instant;

use super::Peer;
use crate::context::Context;
use crate::limits::{STALE_TICK, TICK};
use crate::tunnel::Tick;

impl Peer {
    /// When [`Peer::handle_timeout`] wants to be called next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let held = self.held.as_ref().map(|held| held.due);
        [self.handshake_at, held, self.next_tick(), self.next_keepalive()].into_iter().flatten().min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context, now: Instant) {
        if let Some(held) = self.held.take_if(|held| held.due <= now) {
            self.answer_held(cx, now, &held);
        }
        if self.handshake_at.is_some_and(|at| at <= now) {
            self.handshake_at = None;
            self.initiate(cx, now, true);
        }
        if self.next_tick().is_some_and(|at| at <= now) {
            self.tick(cx, now);
        }
        if self.next_keepalive().is_some_and(|at| at <= now) {
            self.keepalive(cx, now);
        }
        self.report_path(cx, now);
    }

    /// Before a tunnel is used: its clock must not have stood still for long.
    pub(crate) fn refresh(&mut self, cx: &mut Context, now: Instant) {
        if self.tunnel.is_some() && now.saturating_duration_since(self.ticked_at) >= STALE_TICK {
            self.tick(cx, now);
        }
    }

    fn tick(&mut self, cx: &mut Context, now: Instant) {
        let Some((tunnel, _)) = &mut self.tunnel else { return };
        self.ticked_at = now;
        match tunnel.tick(&mut cx.clock, now, &mut cx.scratch) {
            Tick::Idle => {}
            Tick::Send(len) => self.send_core_message(cx, now, len),
            Tick::Expired => self.give_up(cx),
        }
        self.sync(cx, now);
    }

    /// Ticks stop when the core has nothing to do any more. A repetition that the core would send between two ticks
    /// is put off by the jitter.
    fn next_tick(&self) -> Option<Instant> {
        let (tunnel, _) = self.tunnel.as_ref()?;
        if tunnel.expired() {
            return None;
        }
        let next = self.ticked_at + TICK;
        match &self.retry {
            Some(retry) if self.ticked_at < retry.start && next >= retry.start => Some(retry.end),
            _ => Some(next),
        }
    }

    fn next_keepalive(&self) -> Option<Instant> {
        let interval = self.config.persistent_keepalive.filter(|_| self.path.is_some())?;
        Some(self.traffic_at + std::time::Duration::from_secs(interval.get().into()))
    }

    /// A persistent keepalive. Without a session it asks for one, and does so again after the core gave up.
    fn keepalive(&mut self, cx: &mut Context, now: Instant) {
        self.traffic_at = now;
        if !self.usable {
            return self.initiate(cx, now, false);
        }
        if let (Some((tunnel, _)), Some(path)) = (&mut self.tunnel, self.path)
            && let Some(len) = tunnel.seal(&[], &mut cx.scratch)
        {
            self.send(cx, now, path, len);
        }
    }
}
