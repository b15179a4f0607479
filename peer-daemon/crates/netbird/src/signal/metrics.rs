//! Metrics of signal.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use peer_metrics::{Figures, counter, counters, gauge};
use prometheus_client::encoding::DescriptorEncoder;

use super::Message;
use super::keys::MAX_KEYS;
use crate::stream::StreamStats;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To us.
    Received,
    /// From us.
    Sent,
}

/// Why a message was refused or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Received with no sender's key in it.
    SenderKey,
    /// Received and not authentic.
    Forged,
    /// Received and not understood.
    Malformed,
    /// To be sent while there was no connection.
    Offline,
    /// To be sent while too many waited.
    Full,
    /// To be sent and replaced by a newer one.
    Superseded,
    /// To be sent; the server did not take it.
    Failed,
}

const LOSSES: [(Loss, &str); 7] = [
    (Loss::SenderKey, "sender_key"),
    (Loss::Forged, "forged"),
    (Loss::Malformed, "malformed"),
    (Loss::Offline, "offline"),
    (Loss::Full, "full"),
    (Loss::Superseded, "superseded"),
    (Loss::Failed, "failed"),
];

const KINDS: [&str; 6] = ["offer", "answer", "candidate", "go_idle", "heartbeat", "mode"];

/// Figures of signal, shared by the task and whoever reads them.
#[derive(Debug, Default)]
pub struct SignalStats {
    /// The stream.
    pub stream: StreamStats,
    disconnects: AtomicU64,
    received: [AtomicU64; KINDS.len()],
    sent: [AtomicU64; KINDS.len()],
    losses: [AtomicU64; LOSSES.len()],
    queued: AtomicU64,
    keys: AtomicU64,
    keys_derived: AtomicU64,
}

impl SignalStats {
    /// Messages of all kinds so far.
    #[must_use]
    pub fn messages(&self, direction: Direction) -> u64 {
        self.kinds(direction).iter().map(|counter| counter.load(Relaxed)).sum()
    }

    /// Messages refused or dropped so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.losses.iter().map(|counter| counter.load(Relaxed)).sum()
    }

    /// Keys between us and other peers that are kept.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.keys.load(Relaxed)
    }

    /// Keys derived so far, one X25519 operation each.
    #[must_use]
    pub fn keys_derived(&self) -> u64 {
        self.keys_derived.load(Relaxed)
    }

    pub(crate) fn on_disconnect(&self) {
        self.disconnects.fetch_add(1, Relaxed);
    }

    pub(crate) fn on_message(&self, direction: Direction, message: &Message) {
        self.kinds(direction)[kind(message)].fetch_add(1, Relaxed);
    }

    pub(crate) fn on_loss(&self, loss: Loss) {
        self.losses[loss as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn set_queued(&self, queued: usize) {
        self.queued.store(u64::try_from(queued).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn set_keys(&self, keys: usize) {
        self.keys.store(u64::try_from(keys).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn on_key_derived(&self) {
        self.keys_derived.fetch_add(1, Relaxed);
    }

    const fn kinds(&self, direction: Direction) -> &[AtomicU64; KINDS.len()] {
        match direction {
            Direction::Received => &self.received,
            Direction::Sent => &self.sent,
        }
    }
}

const fn kind(message: &Message) -> usize {
    match message {
        Message::Offer(_) => 0,
        Message::Answer(_) => 1,
        Message::Candidate(_) => 2,
        Message::GoIdle => 3,
        Message::Heartbeat => 4,
        Message::Mode => 5,
    }
}

impl Figures for SignalStats {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let connected = u64::from(self.stream.connected());
        gauge(encoder, "peer_signal_connected", "1 while the stream is registered.", connected)?;
        let queued = self.queued.load(Relaxed);
        gauge(encoder, "peer_signal_queue_messages", "Messages that wait to be sent.", queued)?;
        gauge(encoder, "peer_signal_keys", "Keys between us and other peers that are kept.", self.keys())?;
        gauge(encoder, "peer_signal_keys_max", "Keys that fit.", MAX_KEYS as u64)?;
        let help = "Keys derived, an X25519 operation each: those of peers that were not known, or forgotten.";
        counter(encoder, "peer_signal_keys_derived", help, self.keys_derived())?;
        counter(encoder, "peer_signal_streams", "Streams registered.", self.stream.opened())?;
        let disconnects = self.disconnects.load(Relaxed);
        counter(encoder, "peer_signal_disconnects", "Streams lost, and attempts that failed.", disconnects)?;
        for (name, help, direction) in [
            ("peer_signal_messages_received", "Messages of other peers.", Direction::Received),
            ("peer_signal_messages_sent", "Messages that the server took.", Direction::Sent),
        ] {
            let kinds = KINDS.iter().zip(self.kinds(direction));
            counters(encoder, name, help, kinds.map(|(kind, count)| ([("kind", *kind)], count.load(Relaxed))))?;
        }
        let help = "Messages refused on receipt, or dropped before they were sent.";
        let losses = LOSSES.iter().zip(&self.losses);
        let losses = losses.map(|((_, reason), count)| ([("reason", *reason)], count.load(Relaxed)));
        counters(encoder, "peer_signal_messages_lost", help, losses)
    }
}
