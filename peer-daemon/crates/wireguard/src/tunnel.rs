//! The Noise core behind our own interface. Nothing outside this file knows boringtun, so that another core can
//! replace it.
//!
//! What callers must know of this core (0.7.1): it reads the clock that [`CoreClock`] sets; only [`Tunnel::tick`] moves the
//! time that its timers see; and it panics when an output buffer is short, so all sizes are checked here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519;
use peer_core::key::{PresharedKey, PrivateKey, PublicKey};

use crate::core_clock::CoreClock;
use crate::error::DatagramError;
use crate::inner;
use crate::message::{DATA_HEADER, DATA_OVERHEAD, LONGEST_HANDSHAKE};

/// Our own key pair.
pub(crate) struct Identity {
    secret: x25519::StaticSecret,
    public: x25519::PublicKey,
    /// Of the tunnels. It checks the first MAC once more, and never asks for cookies: that is for
    /// [`Admission`](crate::admission::Admission) to do.
    macs: Arc<RateLimiter>,
}

impl Identity {
    pub(crate) fn new(private_key: &PrivateKey) -> Self {
        let secret = x25519::StaticSecret::from(*private_key.expose());
        let public = x25519::PublicKey::from(&secret);
        let macs = Arc::new(RateLimiter::new(&public, u64::MAX));
        Self { secret, public, macs }
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey(self.public.to_bytes())
    }

    /// Deciphers who sent a handshake initiation; that it is really they is for [`Tunnel::handshake`] to tell.
    pub(crate) fn initiator(&self, message: &[u8]) -> Result<PublicKey, DatagramError> {
        let Ok(Packet::HandshakeInit(initiation)) = Tunn::parse_incoming_packet(message) else {
            return Err(DatagramError::Garbage);
        };
        parse_handshake_anon(&self.secret, &self.public, &initiation)
            .map(|half| PublicKey(half.peer_static_public))
            .map_err(|_| DatagramError::Undecipherable)
    }
}

/// What a data message held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// An IP packet of `len` bytes at the start of the output.
    Packet {
        /// Its length without padding.
        len: usize,
        /// Its source address.
        source: IpAddr,
    },
    /// Nothing.
    Keepalive,
}

/// What the timers made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    /// Nothing.
    Idle,
    /// A message of so many bytes to be sent.
    Send(usize),
    /// All sessions and attempts are over; [`Tunnel::initiate`] begins anew.
    Expired,
}

/// Sessions with one peer. About 11 KB.
pub(crate) struct Tunnel {
    tunn: Tunn,
}

impl Tunnel {
    /// `index`: 24 bits, see [`crate::index`].
    pub(crate) fn new(
        identity: &Identity,
        peer: PublicKey,
        psk: Option<&PresharedKey>,
        index: u32,
        (clock, now): (&mut CoreClock, Instant),
    ) -> Self {
        let make = || {
            let limiter = Some(Arc::clone(&identity.macs));
            let (secret, peer) = (identity.secret.clone(), x25519::PublicKey::from(peer.0));
            // The engine keeps persistent keepalives itself: here they could not be changed later.
            Tunn::new(secret, peer, psk.map(|key| *key.expose()), None, index, limiter)
        };
        let mut tunnel = Self { tunn: clock.make(now, make) };
        // Its timers start with the instant of its making, which may be long ago.
        _ = tunnel.tick(clock, now, &mut [0; LONGEST_HANDSHAKE]);
        tunnel
    }

    /// Writes a handshake initiation to `out`; `None` if one is under way and `force` is not set.
    pub(crate) fn initiate(
        &mut self,
        clock: &mut CoreClock,
        now: Instant,
        force: bool,
        out: &mut [u8],
    ) -> Option<usize> {
        clock.set(now);
        match self.tunn.format_handshake_initiation(out, force) {
            TunnResult::WriteToNetwork(message) => {
                clock.stamped();
                Some(message.len())
            }
            _ => None,
        }
    }

    /// Takes an initiation, a response or a cookie reply. Writes the answer, if there is one, to `out`.
    pub(crate) fn handshake(
        &mut self,
        clock: &mut CoreClock,
        now: Instant,
        message: &[u8],
        out: &mut [u8],
    ) -> Result<Option<usize>, DatagramError> {
        if out.len() < LONGEST_HANDSHAKE {
            return Err(DatagramError::Internal);
        }
        clock.set(now);
        match self.tunn.decapsulate(None, message, out) {
            TunnResult::WriteToNetwork(answer) => Ok(Some(answer.len())),
            TunnResult::Done => Ok(None),
            TunnResult::Err(error) => Err(match error {
                WireGuardError::WrongTai64nTimestamp => DatagramError::StaleInitiation,
                WireGuardError::InvalidAeadTag | WireGuardError::WrongKey => DatagramError::WrongKey,
                WireGuardError::UnexpectedPacket | WireGuardError::WrongIndex => DatagramError::UnexpectedResponse,
                WireGuardError::InvalidMac => DatagramError::BadMac,
                _ => DatagramError::Internal,
            }),
            TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => Err(DatagramError::Internal),
        }
    }

    /// Decrypts a data message to the start of `out`, which holds at least the message without its header. The error
    /// [`DatagramError::MalformedPacket`] comes after authentication, all others before.
    pub(crate) fn open(&mut self, message: &[u8], out: &mut [u8]) -> Result<Opened, DatagramError> {
        if out.len() + DATA_HEADER < message.len() {
            return Err(DatagramError::NoRoom);
        }
        let (packet, source, header) = match self.tunn.decapsulate(None, message, out) {
            TunnResult::WriteToTunnelV4(packet, source) => (packet, source.into(), inner::IPV4_HEADER),
            TunnResult::WriteToTunnelV6(packet, source) => (packet, source.into(), inner::IPV6_HEADER),
            TunnResult::Done => return Ok(Opened::Keepalive),
            TunnResult::Err(error) => {
                return Err(match error {
                    WireGuardError::DuplicateCounter => DatagramError::Replay,
                    WireGuardError::InvalidCounter => DatagramError::TooOld,
                    WireGuardError::InvalidAeadTag => DatagramError::BadTag,
                    WireGuardError::InvalidPacket => DatagramError::MalformedPacket,
                    WireGuardError::NoCurrentSession | WireGuardError::WrongIndex => DatagramError::NoSession,
                    _ => DatagramError::Internal,
                });
            }
            TunnResult::WriteToNetwork(_) => return Err(DatagramError::Internal),
        };
        if packet.len() < header {
            return Err(DatagramError::MalformedPacket);
        }
        Ok(Opened::Packet { len: packet.len(), source })
    }

    /// Encrypts `packet` (empty: a keepalive) into `out`; `None` without room. The caller knows from
    /// [`Tunnel::usable`], asked since the last tick, that there is a session: asking here would cost a look at the
    /// clock per packet.
    ///
    /// The core does not stop after `Reject-After-Messages` (2^64 − 2^13 − 1, paper §6.1); within the 180 seconds that a
    /// session lives that would take more than 2^56 messages a second.
    pub(crate) fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        if out.len() < packet.len() + DATA_OVERHEAD {
            return None;
        }
        match self.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(message) => Some(message.len()),
            _ => None,
        }
    }

    /// Keepalives that the core itself held back until there was a session; call until `None`.
    pub(crate) fn held_back(&mut self, out: &mut [u8]) -> Option<usize> {
        match self.tunn.decapsulate(None, &[], out) {
            TunnResult::WriteToNetwork(message) => Some(message.len()),
            _ => None,
        }
    }

    /// Moves the core's time and does what is due: repeated handshakes, rekeying, passive keepalives, expiry.
    pub(crate) fn tick(&mut self, clock: &mut CoreClock, now: Instant, out: &mut [u8]) -> Tick {
        clock.set(now);
        match self.tunn.update_timers(out) {
            TunnResult::WriteToNetwork(message) => {
                clock.stamped();
                Tick::Send(message.len())
            }
            TunnResult::Err(WireGuardError::ConnectionExpired) => Tick::Expired,
            _ => Tick::Idle,
        }
    }

    /// Whether there is a session to send with. Only [`Tunnel::tick`] ends one; only messages bring one.
    pub(crate) fn usable(&self, clock: &mut CoreClock, now: Instant) -> bool {
        clock.set(now);
        self.tunn.time_since_last_handshake().is_some()
    }

    /// Whether the last tick said, or would say, [`Tick::Expired`].
    pub(crate) fn expired(&self) -> bool {
        self.tunn.is_expired()
    }
}
