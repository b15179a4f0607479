//! What a client has on a server.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Instant;

use turn_types::stun::message::TransactionId;

/// Channel numbers, RFC 8656 §12.
const CHANNELS: RangeInclusive<u16> = 0x4000..=0x4fff;

/// An allocation with its permissions and channels.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) relayed: SocketAddr,
    /// Whose it is: other users get 441.
    pub(super) user: String,
    /// Of the request that made it: a repetition gets the same answer.
    pub(super) transaction: TransactionId,
    pub(super) expires: Instant,
    permissions: BTreeMap<IpAddr, Instant>,
    channels: BTreeMap<u16, Channel>,
}

#[derive(Debug)]
struct Channel {
    peer: SocketAddr,
    expires: Instant,
}

impl Allocation {
    pub(super) fn new(relayed: SocketAddr, user: &str, transaction: TransactionId, expires: Instant) -> Self {
        let (permissions, channels) = (BTreeMap::new(), BTreeMap::new());
        Self { relayed, user: user.to_owned(), transaction, expires, permissions, channels }
    }

    pub(super) fn permits(&self, peer: IpAddr, now: Instant) -> bool {
        self.permissions.get(&peer).is_some_and(|expires| *expires > now)
    }

    pub(super) fn permit(&mut self, peer: IpAddr, until: Instant) {
        self.permissions.insert(peer, until);
    }

    /// Whom a channel leads to.
    pub(super) fn peer_of(&self, number: u16, now: Instant) -> Option<SocketAddr> {
        self.channels.get(&number).filter(|channel| channel.expires > now).map(|channel| channel.peer)
    }

    /// The channel that leads to a peer.
    pub(super) fn channel_to(&self, peer: SocketAddr, now: Instant) -> Option<u16> {
        let leads = |channel: &Channel| channel.peer == peer && channel.expires > now;
        self.channels.iter().find(|(_, channel)| leads(channel)).map(|(number, _)| *number)
    }

    /// Binds a channel or refreshes it. `false`: the number is out of range, or the number or the peer is bound
    /// otherwise (RFC 8656 §12.2).
    pub(super) fn bind(&mut self, number: u16, peer: SocketAddr, now: Instant, until: Instant) -> bool {
        let other_peer = self.peer_of(number, now).is_some_and(|bound| bound != peer);
        let other_number = self.channel_to(peer, now).is_some_and(|bound| bound != number);
        if !CHANNELS.contains(&number) || other_peer || other_number {
            return false;
        }
        self.channels.insert(number, Channel { peer, expires: until });
        true
    }
}
