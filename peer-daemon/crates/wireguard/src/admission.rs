//! Which handshake messages may cost curve arithmetic: checks in the order of their cost.
//!
//! | check | cost | refused |
//! |---|---|---|
//! | type and length; a response names an index of ours | a lookup | `garbage`, `unknown_index` |
//! | how many initiations are looked at, with and without a second MAC apart | a lookup | `initiation_flood` |
//! | the first MAC: the sender knows our public key | a hash | `bad_mac` |
//! | how many are taken without a proof of their address | nothing | goes on to the cookie |
//! | the second MAC: the sender receives what is sent to its address | two to four hashes | a cookie reply, or `cookie_limited` |
//! | the token bucket of the source | a lookup | `source_limited` |
//! | how many are taken of all proven sources | nothing | `under_load` |
//!
//! Anybody can write a member's address on a datagram, as often as they like. So nothing is counted per address before the
//! address is proven, and what proven sources share is not what others share. What bears an address from which a member came
//! lately ([`crate::known`]) has budgets apart: a flood from invented addresses uses up those of strangers.
//!
//! Peers of a relay are named by the relay, which tells them by their connections, and only peers to which we have opened a
//! path come in by it: that is proof enough for a bucket, which comes first there. What they share is theirs alone.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use peer_core::key::PublicKey;
use peer_core::path::{Path, RelayId};
use rand::CryptoRng;

use crate::buckets::{Source, SourceBuckets};
use crate::budget::Budget;
use crate::cookies::Cookies;
use crate::error::DatagramError;
use crate::limits::{
    COOKIE_INITIATIONS, COOKIE_REPLIES, PLAIN_INITIATIONS, PROVEN_HANDSHAKES, RELAYED_HANDSHAKES, UNPROVEN_INITIATIONS,
    UNPROVEN_RESPONSES, UNPROVEN_WEIGHT_IN_FLOOD,
};
use crate::message::HandshakeMacs;

/// Decides on handshake messages.
pub(crate) struct Admission {
    cookies: Cookies,
    sources: SourceBuckets,
    /// For messages that bear an address from which a member came lately, and for all others.
    members: Share,
    strangers: Share,
    proven: Budget,
    relayed: Budget,
}

/// What messages may cost whose address is not proven.
struct Share {
    /// Initiations without a second MAC that are looked at.
    plain: Budget,
    /// Initiations with one.
    with_mac2: Budget,
    initiations: Budget,
    responses: Budget,
    replies: Budget,
}

/// Which handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Initiation,
    /// To one of our indexes.
    Response,
}

/// What is known of the sender of a message before it is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The datagram bears this address.
    Claimed(SocketAddr),
    /// A relay says who it is.
    Relayed(RelayId),
}

/// What the address of a message tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A member came from it lately.
    Known,
    /// Nothing.
    Stranger,
    /// Nothing, and a flood of initiations from strangers is going on.
    Flooding,
}

/// What becomes of a message that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// It may be read.
    Yes,
    /// Its sender, at this address, is to get a cookie reply and try again.
    WithCookie(SocketAddr),
}

impl Admission {
    pub(crate) fn new(public_key: &PublicKey, rng: &mut impl CryptoRng, now: Instant) -> Self {
        Self {
            cookies: Cookies::new(public_key, rng, now),
            sources: SourceBuckets::default(),
            members: Share::new(now),
            strangers: Share::new(now),
            proven: Budget::new(PROVEN_HANDSHAKES, now),
            relayed: Budget::new(RELAYED_HANDSHAKES, now),
        }
    }

    /// Decides on a message. Each check costs more than the one before.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        rng: &mut impl CryptoRng,
        (kind, sender, standing): (Kind, Sender, Standing),
        macs: &HandshakeMacs<'_>,
    ) -> Result<Admitted, DatagramError> {
        let remote = match sender {
            Sender::Relayed(id) => {
                self.sources.take(now, Source::from(id)).or(DatagramError::SourceLimited)?;
                self.cookies.mac1_is_valid(macs).or(DatagramError::BadMac)?;
                self.relayed.take(now).or(DatagramError::UnderLoad)?;
                return Ok(Admitted::Yes);
            }
            Sender::Claimed(remote) => remote,
        };
        let share = if standing == Standing::Known { &mut self.members } else { &mut self.strangers };
        if kind == Kind::Initiation {
            let read = if macs.has_mac2() { &mut share.with_mac2 } else { &mut share.plain };
            read.take(now).or(DatagramError::InitiationFlood)?;
        }
        self.cookies.mac1_is_valid(macs).or(DatagramError::BadMac)?;
        let unproven = match kind {
            Kind::Initiation => &mut share.initiations,
            Kind::Response => &mut share.responses,
        };
        let weight = if standing == Standing::Flooding { UNPROVEN_WEIGHT_IN_FLOOD } else { 1 };
        if unproven.take_as(weight, now) {
            return Ok(Admitted::Yes);
        }
        if !(macs.has_mac2() && self.cookies.mac2_is_valid(now, rng, remote, macs)) {
            share.replies.take(now).or(DatagramError::CookieLimited)?;
            return Ok(Admitted::WithCookie(remote));
        }
        self.sources.take(now, Source::from(remote.ip())).or(DatagramError::SourceLimited)?;
        self.proven.take(now).or(DatagramError::UnderLoad)?;
        Ok(Admitted::Yes)
    }

    /// Writes the reply that [`Admission::admit`] asks for; `None` without room.
    pub(crate) fn cookie_reply(
        &mut self,
        now: Instant,
        rng: &mut impl CryptoRng,
        remote: SocketAddr,
        macs: &HandshakeMacs<'_>,
        out: &mut [u8],
    ) -> Option<usize> {
        self.cookies.reply(now, rng, remote, macs, out)
    }

    /// Forgets sources that are quiet.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.sources.expire(now);
    }

    /// Sources with a bucket.
    pub(crate) fn sources(&self) -> usize {
        self.sources.len()
    }
}

impl Share {
    fn new(now: Instant) -> Self {
        let budget = |rate| Budget::new(rate, now);
        Self {
            plain: budget(PLAIN_INITIATIONS),
            with_mac2: budget(COOKIE_INITIATIONS),
            initiations: budget(UNPROVEN_INITIATIONS),
            responses: budget(UNPROVEN_RESPONSES),
            replies: budget(COOKIE_REPLIES),
        }
    }
}

impl Sender {
    pub(crate) fn of(path: Path) -> Self {
        match path {
            Path::Udp { remote, .. } => Self::Claimed(remote),
            Path::Relay(id) => Self::Relayed(id),
        }
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl From<RelayId> for Source {
    fn from(RelayId { connection, peer }: RelayId) -> Self {
        Self::Relay(u64::from(connection) << 32 | u64::from(peer))
    }
}

/// Turns a check into its reason.
trait OrRefuse {
    fn or(self, reason: DatagramError) -> Result<(), DatagramError>;
}

impl OrRefuse for bool {
    fn or(self, reason: DatagramError) -> Result<(), DatagramError> {
        if self { Ok(()) } else { Err(reason) }
    }
}

#[cfg(test)]
mod tests;
