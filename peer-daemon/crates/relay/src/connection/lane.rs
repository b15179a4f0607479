//! A connection that is let in, as the shard's thread drives it.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peer_connect::DetachedStream;
use peer_core::batch::DatagramBatch;
use peer_core::path::{Path, RelayId};
use peer_io::RelayLane;
use peer_io::relay::LaneError;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::inbound::{Inbound, Target};
use super::outbound::Outbound;
use super::{LinkCommand, LinkEvent, Report};
use crate::error::ConnectError;
use crate::framer::Framer;
use crate::message;
use crate::session::{Session, WayEvent};
use crate::stats::{RelayStats, Share};
use crate::websocket::Opcode;

/// For the last words.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// Normal closure (RFC 6455 §7.4.1).
const NORMAL: [u8; 2] = 1000_u16.to_be_bytes();

/// What drives itself, given a socket, time and turns. It tells of its end when it is dropped.
pub(super) struct Lane {
    pub(super) connection: u32,
    pub(super) stream: DetachedStream,
    pub(super) session: Session,
    pub(super) framer: Framer,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    pub(super) commands: mpsc::UnboundedReceiver<LinkCommand>,
    pub(super) report: Report,
    pub(super) stats: Arc<RelayStats>,
    /// Its part of the gauge of connections.
    pub(super) _connected: Share,
    /// Until when the last words may take.
    pub(super) leaving: Option<Instant>,
    /// How it ended.
    pub(super) end: Option<ConnectError>,
}

impl Lane {
    fn finish(&mut self, result: Result<(), ConnectError>) {
        if let Err(error) = result {
            self.end.get_or_insert(error);
        }
    }

    /// Frames what the session has to say, and reports.
    fn answer(&mut self) {
        for ping in self.inbound.pings.drain(..) {
            self.outbound.message(Opcode::Pong, &ping, self.framer.mask());
        }
        while let Some(message) = self.session.poll_transmit() {
            self.outbound.message(Opcode::Binary, &message, self.framer.mask());
        }
        while let Some((number, event)) = self.session.poll_event() {
            (self.report)(match event {
                WayEvent::Online => {
                    let path = Path::Relay(RelayId { connection: self.connection, peer: number });
                    LinkEvent::WayUp { number, path }
                }
                reason => {
                    self.framer.remove(number);
                    LinkEvent::WayDown { number, reason }
                }
            });
        }
    }

    fn leave(&mut self, now: Instant) {
        if self.leaving.is_none() {
            self.leaving = Some(now + GOODBYE_TIMEOUT);
            self.outbound.message(Opcode::Binary, &message::GOODBYE, self.framer.mask());
            self.outbound.message(Opcode::Close, &NORMAL, self.framer.mask());
        }
    }

    fn command(&mut self, now: Instant, command: LinkCommand) {
        match command {
            LinkCommand::Open { peer, number } => {
                self.framer.insert(number, peer);
                if let Some(datagram) = self.session.open(now, peer, number) {
                    self.inbound.add(number, datagram);
                }
            }
            LinkCommand::Close { peer, number } => {
                self.framer.remove(number);
                self.session.close(peer, number);
            }
            LinkCommand::Goodbye => self.leave(now),
        }
    }

    fn check(&mut self, now: Instant) -> Result<(), ConnectError> {
        self.session.handle_timeout(now)?;
        self.outbound.check(now)?;
        match self.leaving {
            Some(until) if until <= now => Err(ConnectError::Closed),
            _ => Ok(()),
        }
    }
}

impl RelayLane for Lane {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn wants_write(&self) -> bool {
        !self.outbound.is_empty()
    }

    fn receive(&mut self, now: Instant, batch: &mut DatagramBatch) -> bool {
        if self.end.is_some() {
            return false;
        }
        let target = Target { now, session: &mut self.session, stats: &self.stats };
        let more = match self.inbound.receive(&mut self.stream, batch, target) {
            Ok(more) => more,
            Err(error) => {
                self.end = Some(error);
                false
            }
        };
        self.answer();
        if self.inbound.closed {
            self.leave(now);
        }
        more
    }

    fn send(&mut self, peer: u32, datagram: &[u8]) -> Result<(), LaneError> {
        if self.leaving.is_some() || self.end.is_some() {
            return Err(LaneError::Gone);
        }
        self.outbound.datagram(&mut self.framer, peer, datagram)
    }

    fn flush(&mut self, now: Instant) {
        if self.end.is_some() || self.outbound.is_empty() {
            return;
        }
        let result = self.outbound.write(now, &mut self.stream);
        self.finish(result);
        if self.leaving.is_some() && self.outbound.is_empty() {
            self.finish(Err(ConnectError::Closed));
        }
    }

    fn handle_commands(&mut self, now: Instant) {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.command(now, command),
                Err(TryRecvError::Empty) => break,
                // Nobody has use for it any more.
                Err(TryRecvError::Disconnected) => {
                    self.leave(now);
                    break;
                }
            }
        }
        self.answer();
    }

    fn handle_timeout(&mut self, now: Instant) {
        let result = self.check(now);
        self.finish(result);
        self.answer();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let session = Some(self.session.poll_timeout());
        [session, self.outbound.deadline(), self.leaving].into_iter().flatten().min()
    }

    fn is_over(&self) -> bool {
        self.end.is_some()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.stream.close();
        if self.leaving.is_none() {
            self.stats.breaks.add(1);
        }
        (self.report)(LinkEvent::Down(self.end.take().unwrap_or(ConnectError::ShardStopped)));
    }
}
