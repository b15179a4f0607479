//! Datagrams in.

use std::time::Instant;

use peer_core::batch::PacketBatch;
use peer_core::path::Path;

use super::Engine;
use crate::admission::{Admitted, Kind, Sender, Standing};
use crate::context::Context;
use crate::error::DatagramError;
use crate::fragments::Part;
use crate::message::{DATA_HEADER, HandshakeMacs, Message};
use crate::peer::Arrival;
use crate::stats::Handshake;

impl Engine {
    pub(super) fn receive(&mut self, now: Instant, path: Path, message: &[u8], packets: &mut PacketBatch) {
        self.cx.stats.received.datagram(message.len());
        let arrival = Arrival { now, path, message };
        let result = match Message::classify(message) {
            Ok(Message::Data { receiver }) => self.receive_data(&arrival, receiver, packets),
            Ok(Message::Initiation) => self.receive_initiation(&arrival),
            Ok(Message::Response { receiver }) => self.receive_response(&arrival, receiver),
            Ok(Message::CookieReply { receiver }) => self.receive_cookie(&arrival, receiver),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = result {
            self.cx.stats.drop_datagram(reason);
            self.schedule_housekeeping();
        }
    }

    fn receive_data(
        &mut self,
        arrival: &Arrival<'_>,
        receiver: u32,
        packets: &mut PacketBatch,
    ) -> Result<(), DatagramError> {
        let id = self.cx.indexes.owner(receiver).ok_or(DatagramError::UnknownIndex)?;
        let (peer, allowed) = self.peers.get_with_allowed(id).ok_or(DatagramError::UnknownIndex)?;
        let was_usable = peer.usable();
        let mut result = Err(DatagramError::NoRoom);
        packets.push_with(arrival.message.len() - DATA_HEADER, |room| {
            result = peer.open(&mut self.cx, arrival, receiver, room, |source| allowed.owner(source) == Some(id));
            let len = result.ok().flatten()?;
            if let Some(part) = Part::of(&room[..len])
                && self.fragments.take(arrival.now, id, &part, &room[..len], &self.cx.stats)
            {
                return None;
            }
            Some((len, ()))
        });
        if peer.usable() != was_usable {
            self.reschedule(id);
        }
        result.map(|_| ())
    }

    fn receive_initiation(&mut self, arrival: &Arrival<'_>) -> Result<(), DatagramError> {
        if !self.admit(Kind::Initiation, arrival)? {
            return Ok(());
        }
        let key = self.cx.identity.initiator(arrival.message)?;
        let id = self.peers.id(&key).ok_or(DatagramError::UnknownPeer)?;
        let peer = self.peers.get_mut(id).ok_or(DatagramError::UnknownPeer)?;
        let result = peer.handle_initiation(&mut self.cx, arrival);
        self.reschedule(id);
        result
    }

    fn receive_response(&mut self, arrival: &Arrival<'_>, receiver: u32) -> Result<(), DatagramError> {
        let id = self.cx.indexes.owner(receiver).ok_or(DatagramError::UnknownIndex)?;
        if !self.admit(Kind::Response, arrival)? {
            return Ok(());
        }
        let peer = self.peers.get_mut(id).ok_or(DatagramError::UnknownIndex)?;
        let result = peer.handle_response(&mut self.cx, arrival);
        self.reschedule(id);
        result
    }

    fn receive_cookie(&mut self, arrival: &Arrival<'_>, receiver: u32) -> Result<(), DatagramError> {
        let id = self.cx.indexes.owner(receiver).ok_or(DatagramError::UnknownIndex)?;
        let peer = self.peers.get_mut(id).ok_or(DatagramError::UnknownIndex)?;
        let result = peer.handle_cookie(&mut self.cx, arrival);
        self.reschedule(id);
        result
    }

    /// Whether a handshake message may cost curve arithmetic. If not, a cookie reply is on its way.
    fn admit(&mut self, kind: Kind, arrival: &Arrival<'_>) -> Result<bool, DatagramError> {
        let Arrival { now, path, message } = *arrival;
        let macs = HandshakeMacs::of(message).ok_or(DatagramError::Garbage)?;
        let Context { rng, scratch, known, .. } = &mut self.cx;
        let sender = Sender::of(path);
        let standing = match kind {
            _ if known.contains(path) => Standing::Known,
            Kind::Initiation if self.screen.is_flooded() => Standing::Flooding,
            _ => Standing::Stranger,
        };
        if let (Kind::Initiation, Sender::Claimed(_), Standing::Stranger | Standing::Flooding) =
            (kind, sender, standing)
        {
            self.screen.count(now, macs.has_mac2());
        }
        let len = match self.admission.admit(now, rng, (kind, sender, standing), &macs)? {
            Admitted::Yes => {
                // Buckets are to be forgotten.
                if self.admission.sources() > 0 {
                    self.schedule_housekeeping();
                }
                return Ok(true);
            }
            Admitted::WithCookie(remote) => self.admission.cookie_reply(now, rng, remote, &macs, scratch),
        };
        if self.cx.transmit(path, len.ok_or(DatagramError::Internal)?) {
            self.cx.stats.handshake(Handshake::CookieSent);
        }
        Ok(false)
    }
}
