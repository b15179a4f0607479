//! Packets out.

use std::net::IpAddr;
use std::time::Instant;

use peer_core::batch::DatagramBatch;
use peer_core::shard::Engine as _;

use super::Engine;
use crate::error::PacketError;
use crate::inner;

impl Engine {
    pub(super) fn send(
        &mut self,
        now: Instant,
        packet: &[u8],
        datagrams: &mut DatagramBatch,
    ) -> Result<(), PacketError> {
        let destination = inner::destination(packet).ok_or(PacketError::Malformed)?;
        let id = self.owner(destination).ok_or(PacketError::NoPeer)?;
        let peer = self.peers.get_mut(id).ok_or(PacketError::NoPeer)?;
        let Some(path) = peer.path() else {
            peer.want_path(&mut self.cx, now);
            return Err(PacketError::NoEndpoint);
        };
        // Before the packet is staged: a tunnel found dead now gives up what was staged before.
        peer.refresh(&mut self.cx, now);
        if !peer.usable() {
            peer.stage(&mut self.cx, packet);
            peer.initiate(&mut self.cx, now, false);
            self.reschedule(id);
            return Ok(());
        }
        let mut sealed = false;
        datagrams.push_with(packet.len() + Self::OVERHEAD, |room| {
            let len = peer.seal(&mut self.cx, now, packet, room)?;
            self.cx.stats.sent.datagram(len);
            sealed = true;
            Some((len, path))
        });
        if sealed { Ok(()) } else { Err(PacketError::NoRoom) }
    }

    /// The peer that owns an inner address; packets of one flow come in a row.
    fn owner(&mut self, destination: IpAddr) -> Option<u32> {
        if let Some((addr, id)) = self.peers.last_destination
            && addr == destination
        {
            return Some(id);
        }
        let id = self.peers.allowed().owner(destination)?;
        self.peers.last_destination = Some((destination, id));
        Some(id)
    }
}
