//! Bounds of every table and rate, with their reasons.

use std::time::Duration;

/// Sessions of all peers together. A map holds fewer peers; more is an error of the caller.
pub(crate) const SESSIONS: usize = 65_536;

/// Local addresses in use. Every one multiplies the pairs to check; hosts with more uplinks are rare.
pub(crate) const LOCAL_ADDRESSES: usize = 8;

/// Remote candidates of a session that came by signalling: a host with 8 addresses of which each has a mapping.
pub(crate) const REMOTE_CANDIDATES: usize = 16;

/// Addresses of a session, signalled and seen, local mappings included. `is` keeps each for the agent's life, so a session
/// whose peer roams more often ends and begins anew.
pub(crate) const ADDRESSES: usize = 64;

/// Candidate text; the official client sends about 150 bytes.
pub(crate) const CANDIDATE_TEXT: usize = 512;

/// Candidates kept for the next session of a peer.
pub(crate) const EARLY_PER_PEER: usize = REMOTE_CANDIDATES;
/// Peers for which candidates are kept.
pub(crate) const EARLY_PEERS: usize = 4096;
/// How long candidates are kept. The peer repeats its offer sooner, and its candidates with it.
pub(crate) const EARLY_TTL: Duration = Duration::from_secs(30);

/// Requests that wait for a response: 2 000 checks/s for the time below, and consent checks of 65 536 sessions.
pub(crate) const TRANSACTIONS: usize = 131_072;
/// How long a response may take. Longer than any path that still carries data.
pub(crate) const TRANSACTION_TTL: Duration = Duration::from_secs(10);

/// Datagrams and events that wait for the caller, who drains them after every input. Only a caller that does not reaches it.
pub(crate) const QUEUE: usize = 262_144;

/// Connectivity checks per second of all sessions: 1 000 peers that come at once, each with 16 pairs checked twice, take 16 s.
/// A check is 150 bytes: at most 2.4 Mbit/s. Consent checks of selected pairs are exempt: their peers authenticated.
pub(crate) const CHECKS_PER_SECOND: u32 = 2_000;
/// Burst of the same.
pub(crate) const CHECKS_BURST: u32 = 500;
/// Checks per second of one session, after the burst: the pairs that are left are repeated once per second.
pub(crate) const SESSION_CHECKS_PER_SECOND: u32 = 10;
/// Burst of the same: 2 local addresses by 16 remote ones, and half of them repeated.
pub(crate) const SESSION_CHECKS_BURST: u32 = 50;

/// Interval of checks while there is doubt whether a selected pair carries data.
pub(crate) const DOUBT_INTERVAL: Duration = Duration::from_millis(40);
/// How long a pair in doubt has to answer one of them, or six round trips: eight checks, all of which are lost once in
/// thousands of times where a fifth of all datagrams is. TCP repeats its first unanswered segment after 200 and 600 ms: before the
/// second time the path should be another one.
pub(crate) const DOUBT_TIME: Duration = Duration::from_millis(300);
/// How long a pair that has answered is not doubted: traffic that needs no answers costs four checks a second.
pub(crate) const DOUBT_PAUSE: Duration = Duration::from_millis(250);

/// Candidate pairs of a session, the worst dropped first (RFC 8445, section 6.1.2.5 has 100).
pub(crate) const PAIRS: usize = 64;

/// Sources that share a bucket by hash: a table of fixed size cannot be flooded.
pub(crate) const SOURCE_BUCKETS: usize = 1024;
/// HMAC verifications per second and source (IPv4 address, IPv6 /64) that are not a known pair of the session. Many peers may
/// share an address behind a carrier's NAT.
pub(crate) const SOURCE_VERIFICATIONS_PER_SECOND: u32 = 64;
/// Burst of the same.
pub(crate) const SOURCE_VERIFICATIONS_BURST: u32 = 256;

/// Longest STUN message that is read: the largest check of the official client has 184 bytes.
pub(crate) const STUN_MESSAGE: usize = 1280;

/// STUN servers in use.
pub(crate) const STUN_SERVERS: usize = 16;

/// Addresses of the external IP map.
pub(crate) const EXTERNAL_IPS: usize = 16;
