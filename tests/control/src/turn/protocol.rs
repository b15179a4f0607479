//! The state of a TURN server without sockets and clock: RFC 8656 over UDP, one relayed address for each client.
//!
//! What a client sends goes to [`Protocol::handle_client`], what arrives at a relayed address to
//! [`Protocol::handle_peer`]. Both return at most one datagram to send. The caller opens and closes relayed addresses
//! by [`Relays`], and calls [`Protocol::handle_timeout`] at [`Protocol::poll_timeout`].

mod allocation;
mod auth;
mod request;
mod response;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use turn_types::attribute::{Data, XorPeerAddress};
use turn_types::channel::ChannelData;
use turn_types::message::SEND;
use turn_types::stun::message::{BINDING, Message, MessageClass};

use allocation::Allocation;
use auth::Auth;

use crate::stun;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For lifetimes.
    pub instant: Instant,
    /// For the names of time-limited users.
    pub wall: SystemTime,
}

/// Where relayed addresses come from.
pub trait Relays {
    /// Whether addresses of this family are available.
    fn supports(&self, v6: bool) -> bool;

    /// Opens a UDP socket that peers reach, and returns its address.
    ///
    /// # Errors
    /// None is available.
    fn open(&mut self, v6: bool) -> io::Result<SocketAddr>;

    /// Closes one.
    fn close(&mut self, relayed: SocketAddr);
}

/// How long things live. The default: as RFC 8656 has them.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Shortest lifetime of an allocation that the server grants.
    pub allocation: Duration,
    /// Longest lifetime of an allocation that the server grants.
    pub longest: Duration,
    /// Permissions.
    pub permission: Duration,
    /// Channels.
    pub channel: Duration,
    /// Nonces.
    pub nonce: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        let [nonce, allocation, longest, permission, channel] = [3600, 600, 3600, 300, 600].map(Duration::from_secs);
        Self { allocation, longest, permission, channel, nonce }
    }
}

/// What clients have done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Allocations made.
    pub allocations: u64,
    /// Successful refreshes, deletions included.
    pub refreshes: u64,
    /// Permissions created or refreshed by CreatePermission.
    pub permissions: u64,
    /// Channels bound or refreshed.
    pub channels: u64,
    /// Error responses by code.
    pub errors: BTreeMap<u16, u64>,
    /// Datagrams relayed from clients to peers.
    pub to_peers: u64,
    /// Datagrams relayed from peers to clients.
    pub to_clients: u64,
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// From the server's address, to the client that has just been heard.
    ToClient(Vec<u8>),
    /// From a relayed address.
    ToPeer {
        /// The relayed address.
        relayed: SocketAddr,
        /// Destination.
        peer: SocketAddr,
        /// Content.
        data: Vec<u8>,
    },
}

/// The state of one server address.
#[derive(Debug)]
pub struct Protocol {
    auth: Auth,
    lifetimes: Lifetimes,
    /// By the client's address.
    allocations: BTreeMap<SocketAddr, Allocation>,
    seen: Seen,
}

impl Protocol {
    /// A server without allocations. `seed` makes its nonces differ from those of other servers.
    #[must_use]
    pub fn new(secret: &str, lifetimes: Lifetimes, seed: u64, now: Now) -> Self {
        let auth = Auth::new(secret, seed, now.instant);
        Self { auth, lifetimes, allocations: BTreeMap::new(), seen: Seen::default() }
    }

    /// Handles a datagram from a client.
    pub fn handle_client(
        &mut self,
        now: Now,
        client: SocketAddr,
        datagram: &[u8],
        relays: &mut dyn Relays,
    ) -> Option<Output> {
        if let Ok(channel) = ChannelData::parse(datagram) {
            return self
                .forward(now, client, channel.data(), |allocation| allocation.peer_of(channel.id(), now.instant));
        }
        let message = Message::from_bytes(datagram).ok()?;
        match (message.class(), message.method()) {
            (MessageClass::Request, BINDING) => stun::answer(datagram, client).map(Output::ToClient),
            (MessageClass::Request, _) => self.handle_request(now, client, &message, relays).map(Output::ToClient),
            (MessageClass::Indication, SEND) => {
                let peer = message.attribute::<XorPeerAddress>().ok()?.addr(message.transaction_id());
                let data = message.attribute::<Data<'_>>().ok()?;
                self.forward(now, client, data.data(), |_| Some(peer))
            }
            _ => None,
        }
    }

    /// Handles a datagram that a peer sent to a relayed address: what to send to which client.
    pub fn handle_peer(
        &mut self,
        now: Now,
        relayed: SocketAddr,
        peer: SocketAddr,
        data: &[u8],
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let (client, allocation) = self.allocations.iter().find(|(_, allocation)| allocation.relayed == relayed)?;
        if allocation.expires <= now.instant || !allocation.permits(peer.ip(), now.instant) {
            return None;
        }
        let datagram = match allocation.channel_to(peer, now.instant) {
            Some(number) => response::channel_data(number, data)?,
            None => response::data_indication(peer, data)?,
        };
        self.seen.to_clients += 1;
        Some((*client, datagram))
    }

    /// Ends the allocations that have expired.
    pub fn handle_timeout(&mut self, now: Now, relays: &mut dyn Relays) {
        self.allocations.retain(|_, allocation| {
            let lives = allocation.expires > now.instant;
            if !lives {
                relays.close(allocation.relayed);
            }
            lives
        });
    }

    /// When the next allocation expires.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.allocations.values().map(|allocation| allocation.expires).min()
    }

    /// What clients have done so far.
    #[must_use]
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Relayed addresses by client.
    #[must_use]
    pub fn relayed(&self) -> BTreeMap<SocketAddr, SocketAddr> {
        self.allocations.iter().map(|(client, allocation)| (*client, allocation.relayed)).collect()
    }

    /// Accepts credentials of another secret, and no others, from now on. Allocations stay; each client's next request
    /// with old credentials gets 401.
    pub fn set_secret(&mut self, secret: &str) {
        secret.clone_into(&mut self.auth.secret);
    }

    /// Grants other lifetimes from now on.
    pub fn set_lifetimes(&mut self, lifetimes: Lifetimes) {
        self.lifetimes = lifetimes;
    }

    /// Makes the nonces that clients have stale: each client's next request gets 438.
    pub fn expire_nonces(&mut self, now: Now) {
        self.auth.renew_nonce(now.instant);
    }

    /// Ends all allocations: each client's next request about its own gets 437.
    pub fn forget_allocations(&mut self, relays: &mut dyn Relays) {
        for allocation in std::mem::take(&mut self.allocations).into_values() {
            relays.close(allocation.relayed);
        }
    }

    /// Relays what a client sends to the peer that `find` returns, if the client has a permission for it.
    fn forward(
        &mut self,
        now: Now,
        client: SocketAddr,
        data: &[u8],
        find: impl FnOnce(&Allocation) -> Option<SocketAddr>,
    ) -> Option<Output> {
        let allocation = self.allocations.get(&client).filter(|allocation| allocation.expires > now.instant)?;
        let peer = find(allocation)?;
        if !allocation.permits(peer.ip(), now.instant) || peer.is_ipv4() != allocation.relayed.is_ipv4() {
            return None;
        }
        self.seen.to_peers += 1;
        Some(Output::ToPeer { relayed: allocation.relayed, peer, data: data.to_vec() })
    }
}
