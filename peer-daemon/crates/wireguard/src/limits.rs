//! Sizes of all tables and queues, and intervals of our own. WireGuard's own timers are in the Noise core.

use std::time::Duration;

/// Peers per engine.
pub const MAX_PEERS: usize = 65_536;

/// Packets of one peer that wait for its session; as many as the Linux module stages.
pub(crate) const STAGED_PER_PEER: usize = 128;
/// Bytes of all packets that wait for sessions.
pub(crate) const STAGED_BYTES: usize = 8 << 20;

/// Datagrams that wait for the driver to fetch them.
pub(crate) const TRANSMIT_QUEUE: usize = 8192;
/// Their bytes.
pub(crate) const TRANSMIT_QUEUE_BYTES: usize = 16 << 20;

/// Events that wait for the control side.
pub(crate) const EVENT_QUEUE: usize = 4096;

/// Source addresses whose handshake messages are counted.
pub(crate) const SOURCE_BUCKETS: usize = 8192;
/// Handshake messages per second and source address in the long run. Many peers may stand behind one NAT.
pub(crate) const SOURCE_RATE: u32 = 50;
/// Handshake messages that a source may send at once.
pub(crate) const SOURCE_BURST: u32 = 100;
/// Handshake messages per second, all sources together, from which on cookies are asked for: about 0.25 ms of
/// curve arithmetic each.
pub(crate) const HANDSHAKES_PER_SECOND: u64 = 500;

/// Longest pause between two looks at the timers of an active tunnel.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// A tunnel that was not looked at for longer is looked at before it is used: its clock stood still meanwhile.
pub(crate) const STALE_TICK: Duration = Duration::from_secs(1);
/// After this time without an answer the Noise core repeats an initiation (WireGuard paper §6.1, `Rekey-Timeout`).
pub(crate) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Random delay of repetitions, so that peers that started together do not repeat together (paper §6.4).
pub(crate) const RETRY_JITTER: Duration = Duration::from_millis(333);
/// The Noise core reads its clock later than our caller did: repetitions wait at least so much longer.
pub(crate) const CLOCK_MARGIN: Duration = Duration::from_millis(10);
/// Pause between two initiations of ours in answer to stale ones of one peer: whoever replays one gets no more out of us
/// than this, and a peer that restarts again soon is not kept waiting.
pub(crate) const FORCED_INITIATION_PAUSE: Duration = Duration::from_secs(1);
/// Time between two handshake messages of ours to one peer that belong to different handshakes, unless the peer has said that
/// it has no use for the first. wireguard-go takes them apart on several threads, and what it makes of an initiation
/// and of a response that come together is a session that it can send by and cannot receive by.
pub(crate) const CROSSING_HOLD: Duration = Duration::from_millis(100);
/// So long an initiation of ours is given to be answered before another one answers a stale one.
pub(crate) const CROSSING_PAUSE: Duration = Duration::from_millis(300);
/// Distance of handshakes that are started together: a little more than one costs.
pub(crate) const HANDSHAKE_SPREAD: Duration = Duration::from_millis(1);
/// Pause between two reports of one peer's path.
pub(crate) const PATH_REPORT_PAUSE: Duration = Duration::from_secs(1);
/// Peers whose timers are handled in one call; each may cost a handshake.
pub(crate) const PEERS_PER_TIMEOUT: usize = 256;
/// Pause between two removals of idle token buckets, and between two summaries of drops.
pub(crate) const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Default for the MTU inside the tunnel, bytes: what fits IPv6 over Ethernet.
pub(crate) const DEFAULT_MTU: u16 = 1420;
