//! Datagrams in.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use peer_core::batch::PacketBatch;
use peer_core::path::{Path, RelayId};

use super::Engine;
use crate::error::DatagramError;
use crate::message::{DATA_HEADER, Message};
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
            result.ok().flatten().map(|len| (len, ()))
        });
        if peer.usable() != was_usable {
            self.reschedule(id);
        }
        result.map(|_| ())
    }

    fn receive_initiation(&mut self, arrival: &Arrival<'_>) -> Result<(), DatagramError> {
        self.cx.identity.check_mac(arrival.message)?;
        if !self.admit(arrival)? {
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
        self.cx.identity.check_mac(arrival.message)?;
        if !self.admit(arrival)? {
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

    /// Whether a handshake message with a right MAC may cost curve arithmetic. If not, a cookie reply is on its way.
    fn admit(&mut self, arrival: &Arrival<'_>) -> Result<bool, DatagramError> {
        let source = source(arrival.path);
        if let Some(source) = source
            && !self.sources.take(arrival.now, source)
        {
            return Err(DatagramError::SourceLimited);
        }
        self.schedule_housekeeping();
        let Some(len) = self.cx.identity.admit(source, arrival.message, &mut self.cx.scratch)? else {
            return Ok(true);
        };
        self.cx.stats.handshake(Handshake::CookieSent);
        self.cx.transmit(arrival.path, len);
        Ok(false)
    }
}

/// The address that limits and cookies are bound to. A peer behind a relay gets one of its own from the prefix that is
/// never routed (RFC 6666), a /64 each, as sources are counted.
fn source(path: Path) -> Option<IpAddr> {
    match path {
        Path::Udp { remote, .. } => Some(remote.ip().to_canonical()),
        Path::Relay(RelayId { connection, peer }) => {
            let number = u64::from(connection & 0xffff) << 32 | u64::from(peer);
            Some(Ipv6Addr::from_bits(0x0100 << 112 | u128::from(number) << 64).into())
        }
        _ => None,
    }
}
