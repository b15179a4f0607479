//! Figures of an engine, shared with whoever asks. The engine alone writes; readers see each figure whole, not all of
//! one moment.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{DatagramError, PacketError};

/// A figure with one writer. Cheaper than a read-modify-write instruction per packet.
#[derive(Debug, Default)]
pub struct Figure(AtomicU64);

impl Figure {
    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Relaxed);
    }

    pub(crate) fn sub(&self, n: u64) {
        self.0.store(self.get().saturating_sub(n), Relaxed);
    }

    pub(crate) fn set(&self, n: usize) {
        self.0.store(n as u64, Relaxed);
    }
}

/// What happened to handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handshake {
    /// An initiation was sent, repetitions included.
    Initiated,
    /// An initiation was answered.
    Responded,
    /// A session that we initiated came up.
    CompletedAsInitiator,
    /// A session that the peer initiated was confirmed by its first data.
    CompletedAsResponder,
    /// The peer did not answer for 90 seconds.
    TimedOut,
    /// A stale initiation was answered by one of ours.
    Forced,
    /// An initiation crossed ours: answered later, unless ours is answered first; or one of ours waited for theirs.
    Crossed,
    /// A cookie was asked for.
    CookieSent,
    /// A peer asked for a cookie.
    CookieReceived,
}

impl Handshake {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 9] = [
        Self::Initiated,
        Self::Responded,
        Self::CompletedAsInitiator,
        Self::CompletedAsResponder,
        Self::TimedOut,
        Self::Forced,
        Self::Crossed,
        Self::CookieSent,
        Self::CookieReceived,
    ];

    /// Label of its counter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initiated => "initiated",
            Self::Responded => "responded",
            Self::CompletedAsInitiator => "completed_as_initiator",
            Self::CompletedAsResponder => "completed_as_responder",
            Self::TimedOut => "timed_out",
            Self::Forced => "forced",
            Self::Crossed => "crossed",
            Self::CookieSent => "cookie_sent",
            Self::CookieReceived => "cookie_received",
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Datagrams of every kind.
    pub datagrams: Figure,
    /// Their bytes, without UDP and IP headers.
    pub datagram_bytes: Figure,
    /// Inner packets.
    pub packets: Figure,
    /// Their bytes, without padding.
    pub packet_bytes: Figure,
}

/// All figures of one engine.
#[derive(Debug, Default)]
pub struct EngineStats {
    /// From the peers.
    pub received: Traffic,
    /// To the peers.
    pub sent: Traffic,
    /// Peers configured.
    pub peers: Figure,
    /// Peers with a valid session.
    pub connected: Figure,
    /// Peers with a tunnel in memory; each has a session index.
    pub tunnels: Figure,
    /// Prefixes that two peers claim, as of the last configuration.
    pub contested_prefixes: Figure,
    /// Packets that wait for a session.
    pub staged_packets: Figure,
    /// Their bytes.
    pub staged_bytes: Figure,
    /// Datagrams that wait for the driver.
    pub transmit_queue: Figure,
    /// Proven sources of handshake messages with a token bucket.
    pub source_buckets: Figure,
    /// Addresses from which members have made sessions lately.
    pub known_addresses: Figure,
    /// First fragments remembered.
    pub first_fragments: Figure,
    /// Fragments that wait for the first one of their packet.
    pub fragments_waiting: Figure,
    /// Fragments that came before the first one of their packet, and waited.
    pub fragments_held: Figure,
    /// Of those, they went on behind the first one.
    pub fragments_followed: Figure,
    /// Of those, no first one came in time: they went on without.
    pub fragments_expired: Figure,
    /// Of those, they had to make room: they went on without.
    pub fragments_evicted: Figure,
    /// Events that wait for the control side.
    pub events: Figure,
    /// Events lost because the control side did not fetch them.
    pub events_lost: Figure,
    handshakes: [Figure; Handshake::ALL.len()],
    datagram_drops: [Figure; DatagramError::ALL.len()],
    packet_drops: [Figure; PacketError::ALL.len()],
}

impl EngineStats {
    /// How often this happened to a handshake.
    #[must_use]
    pub fn handshakes(&self, what: Handshake) -> u64 {
        self.handshakes[what as usize].get()
    }

    /// Datagrams dropped for this reason.
    #[must_use]
    pub fn datagram_drops(&self, reason: DatagramError) -> u64 {
        self.datagram_drops[reason as usize].get()
    }

    /// Packets dropped for this reason.
    #[must_use]
    pub fn packet_drops(&self, reason: PacketError) -> u64 {
        self.packet_drops[reason as usize].get()
    }

    pub(crate) fn handshake(&self, what: Handshake) {
        self.handshakes[what as usize].add(1);
    }

    pub(crate) fn drop_datagram(&self, reason: DatagramError) {
        tracing::trace!(reason = reason.name(), "datagram dropped");
        self.datagram_drops[reason as usize].add(1);
    }

    pub(crate) fn screened(&self, count: u64) {
        self.datagram_drops[DatagramError::Screened as usize].add(count);
    }

    pub(crate) fn drop_packets(&self, reason: PacketError, count: u64) {
        if count > 0 {
            tracing::trace!(reason = reason.name(), count, "packets dropped");
            self.packet_drops[reason as usize].add(count);
        }
    }
}

impl Traffic {
    pub(crate) fn datagram(&self, len: usize) {
        self.datagrams.add(1);
        self.datagram_bytes.add(len as u64);
    }

    pub(crate) fn packet(&self, len: usize) {
        self.packets.add(1);
        self.packet_bytes.add(len as u64);
    }
}
