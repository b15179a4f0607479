//! Sizes of all tables and queues, and intervals of our own. WireGuard's own timers are in the Noise core.

use std::time::Duration;

use crate::budget::Rate;
use crate::screen::Flood;

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

/// Initiations without a second MAC whose first one is computed. A refused one costs 0.4 µs, one that is not looked at 0.02 µs
/// (`examples/refused_handshakes.rs`): a flood takes a few percent of the thread, and what it leaves is the traffic's. More would get no answer, see
/// [`COOKIE_REPLIES`].
pub(crate) const PLAIN_INITIATIONS: Rate = Rate::new(20_000, 2_000);
/// Initiations with a second MAC, of which a false one costs 1 µs. They are counted apart: a flood without cookies does not
/// keep out those who have one.
pub(crate) const COOKIE_INITIATIONS: Rate = Rate::new(50_000, 5_000);
/// Initiations without a second MAC from unknown addresses that are a flood ([`crate::screen`]): beyond as many a second as may get
/// an answer, and some more. Of a flood half as many are received: what it costs is taken from the traffic.
pub(crate) const PLAIN_FLOOD: Flood = Flood { from: 8_000, received: 4_000 };
/// And those with one.
pub(crate) const MAC2_FLOOD: Flood = Flood { from: 20_000, received: 10_000 };
/// Under a flood an initiation from an unknown address counts as so many of [`UNPROVEN_INITIATIONS`]: it would be one of the flood
/// anyway, and members who get a cookie need none.
pub(crate) const UNPROVEN_WEIGHT_IN_FLOOD: u64 = 10;
/// Initiations that are taken without a proof of their address, all sources together. Beyond, cookies are asked for: 0.05 ms of curve
/// arithmetic each, 0.25 if it is a peer's.
pub(crate) const UNPROVEN_INITIATIONS: Rate = Rate::new(500, 250);
/// Responses that are taken without a proof of their address. They name a session index of ours, which only those on the
/// path know, and we begin handshakes at this rate ourselves ([`HANDSHAKE_SPREAD`]).
pub(crate) const UNPROVEN_RESPONSES: Rate = Rate::new(1000, 1000);
/// Handshake messages of sources that have proven their address, all together.
pub(crate) const PROVEN_HANDSHAKES: Rate = Rate::new(500, 500);
/// Handshake messages through relays, all together. The relay names the sender.
pub(crate) const RELAYED_HANDSHAKES: Rate = Rate::new(1000, 1000);
/// Handshake messages of one source that has proven its address, or that a relay names. Many peers may stand behind one NAT.
pub(crate) const SOURCE_RATE: Rate = Rate::new(50, 100);
/// Sources with a bucket.
pub(crate) const SOURCE_BUCKETS: usize = 8192;
/// Addresses from which members have made sessions lately; two for each peer that there may be.
pub(crate) const KNOWN_ADDRESSES: usize = 2 * MAX_PEERS;
/// Cookie replies: 2 µs to make one, as much to send it. Enough to answer each of 5 000 a second that bear a member's address,
/// so that the member has its cookie with the first try.
pub(crate) const COOKIE_REPLIES: Rate = Rate::new(6_000, 600);

/// First fragments remembered, so that those that follow do not wait.
pub(crate) const FIRST_FRAGMENTS: usize = 1024;
/// Fragments that wait for the first one of their packet; about 350 KB at the usual MTU.
pub(crate) const WAITING_FRAGMENTS: usize = 256;
/// Those of one peer: a packet of 64 KiB in fragments for an MTU of 1280.
pub(crate) const WAITING_FRAGMENTS_OF_PEER: usize = 56;
/// How long they wait: swapped fragments come within milliseconds, over two paths within some hundreds. What a receiver waits
/// for is longer (RFC 791 §3.2: 15 s, RFC 8200 §4.5: 60 s).
pub(crate) const FRAGMENT_PATIENCE: Duration = Duration::from_millis(500);

/// Longest pause between two looks at the timers of an active tunnel.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// A tunnel that was not looked at for longer is looked at before it is used: its clock stood still meanwhile.
pub(crate) const STALE_TICK: Duration = Duration::from_secs(1);
/// After this time without an answer the Noise core repeats an initiation (WireGuard paper §6.1, `Rekey-Timeout`).
pub(crate) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Random delay of repetitions, so that peers that started together do not repeat together (paper §6.4).
pub(crate) const RETRY_JITTER: Duration = Duration::from_millis(333);
/// The Noise core's clock may be a little ahead of our caller's, never behind: repetitions wait at least so much longer.
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
