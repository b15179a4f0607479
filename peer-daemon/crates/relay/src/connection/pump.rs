//! Both directions of a connection, in one task.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use peer_connect::Stream;
use peer_io::RelayConnection;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::inbound::Inbound;
use super::outbound::Outbound;
use super::{LinkCommand, LinkEvent};
use crate::error::ConnectError;
use crate::framer::RelayFramer;
use crate::message;
use crate::session::{Session, WayEvent};
use crate::stats::RelayStats;
use crate::websocket::{Opcode, write_frame};

/// Turns without a break for other tasks.
const TURNS: usize = 16;
/// For the last words.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// Normal closure (RFC 6455 §7.4.1).
const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();

pub(super) struct Pump {
    stream: Stream,
    relay: RelayConnection<RelayFramer>,
    session: Session,
    inbound: Inbound,
    outbound: Outbound,
    commands: mpsc::UnboundedReceiver<LinkCommand>,
    timer: Pin<Box<Sleep>>,
    /// The timer is set to no later than this.
    timer_at: Instant,
    rng: StdRng,
    stats: Arc<RelayStats>,
    leaving: bool,
}

impl Pump {
    pub(super) fn new(
        stream: Stream,
        early: Vec<u8>,
        relay: RelayConnection<RelayFramer>,
        session: Session,
        commands: mpsc::UnboundedReceiver<LinkCommand>,
        rng: StdRng,
        stats: Arc<RelayStats>,
    ) -> Self {
        let timer_at = session.poll_timeout();
        Self {
            stream,
            relay,
            session,
            inbound: Inbound::new(early),
            outbound: Outbound::new(),
            commands,
            timer: Box::pin(tokio::time::sleep_until(timer_at.into())),
            timer_at,
            rng,
            stats,
            leaving: false,
        }
    }

    /// Until the connection ends: `Ok` if we were told to leave.
    pub(super) async fn run(mut self, report: &impl Fn(LinkEvent)) -> Result<(), ConnectError> {
        let result = poll_fn(|cx| self.poll(cx, report)).await;
        // The close of TLS, and of TCP: whoever is at the other end knows at once.
        _ = tokio::time::timeout(GOODBYE_TIMEOUT, self.stream.shutdown()).await;
        result
    }

    fn poll(&mut self, cx: &mut Context<'_>, report: &impl Fn(LinkEvent)) -> Poll<Result<(), ConnectError>> {
        for _ in 0..TURNS {
            let more = self.turn(cx, report)?;
            if self.leaving && self.outbound.is_done() {
                return Poll::Ready(if self.inbound.closed { Err(ConnectError::Closed) } else { Ok(()) });
            }
            if !more {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Does what can be done at once. Returns whether there may be more of it.
    fn turn(&mut self, cx: &mut Context<'_>, report: &impl Fn(LinkEvent)) -> Result<bool, ConnectError> {
        let now = Instant::now();
        let mut more = self.take_commands(cx, now);
        let Self { inbound, stream, relay, session, stats, .. } = self;
        more |= inbound.poll(cx, now, stream, relay, session, stats)?;
        if self.inbound.closed {
            self.leave();
        }
        self.keep_time(cx)?;
        self.answer(report);
        more |= self.outbound.poll(cx, now, &mut self.stream, &self.relay)?;
        Ok(more)
    }

    fn take_commands(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut any = false;
        while let Poll::Ready(command) = self.commands.poll_recv(cx) {
            any = true;
            match command {
                Some(LinkCommand::Open { peer, number }) => {
                    self.relay.with_framer(|framer| framer.insert(number, peer));
                    if let Some(datagram) = self.session.open(now, peer, number) {
                        self.inbound.add(number, datagram);
                    }
                }
                Some(LinkCommand::Close { peer, number }) => {
                    self.relay.with_framer(|framer| framer.remove(number));
                    self.session.close(peer, number);
                }
                Some(LinkCommand::Goodbye) | None => {
                    self.leave();
                    break;
                }
            }
        }
        any
    }

    /// Frames what the session has to say, and reports.
    fn answer(&mut self, report: &impl Fn(LinkEvent)) {
        for ping in self.inbound.pings.drain(..) {
            write_frame(&mut self.outbound.control, Opcode::Pong, &ping, self.rng.random());
        }
        while let Some(message) = self.session.poll_transmit() {
            write_frame(&mut self.outbound.control, Opcode::Binary, &message, self.rng.random());
        }
        while let Some((number, event)) = self.session.poll_event() {
            report(match event {
                WayEvent::Online => LinkEvent::WayUp { number, path: self.relay.path(number) },
                reason => {
                    self.relay.with_framer(|framer| framer.remove(number));
                    LinkEvent::WayDown { number, reason }
                }
            });
        }
    }

    fn leave(&mut self) {
        if !std::mem::replace(&mut self.leaving, true) {
            let key = self.rng.random();
            write_frame(&mut self.outbound.control, Opcode::Binary, &message::GOODBYE, key);
            let key = self.rng.random();
            write_frame(&mut self.outbound.control, Opcode::Close, &NORMAL, key);
        }
    }

    /// Sets the timer, and does what is due. Seldom sets it anew: one that is early only looks again.
    fn keep_time(&mut self, cx: &mut Context<'_>) -> Result<(), ConnectError> {
        if self.next_deadline() < self.timer_at {
            self.timer_at = self.next_deadline();
            self.timer.as_mut().reset(self.timer_at.into());
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.session.handle_timeout(now)?;
            self.outbound.check(now)?;
            self.timer_at = self.next_deadline();
            self.timer.as_mut().reset(self.timer_at.into());
        }
        Ok(())
    }

    fn next_deadline(&self) -> Instant {
        let next = self.session.poll_timeout();
        self.outbound.deadline().map_or(next, |deadline| deadline.min(next))
    }
}
