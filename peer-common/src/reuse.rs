//! Which mapping may give its port to a new flow when ports towards a remote are scarce.
//!
//! Without scarcity all of them live as long as RFC 4787, 5382, 5508 and 7857 want. Under it a port is worth more in use than as
//! a memory of a connection that has ended, or was never answered:
//!
//! - *Never answered*, TCP: half-open, and no packet came back. RFC 5382 REQ-5 gives it four minutes for an answer that is
//!   late; the oldest goes first, so that one on its way has a chance.
//! - *Reset*: the connection is gone at both ends, neither is in TIME-WAIT (RFC 9293 §3.10.7). RFC 7857 §2.2 keeps it four
//!   minutes because a RST may be forged; conntrack keeps it ten seconds, and lets a new SYN begin anew at once.
//! - *Closed*, a FIN both ways: the server may be in TIME-WAIT, and would refuse the SYN or, worse, take an old segment for one
//!   of the new connection (RFC 1337). That cannot be where the client closed first: then the client is in TIME-WAIT, and the
//!   server has forgotten all. Nor when [`TIME_WAIT`] has passed, which Linux and Cilium (60 s; 10 s for closing entries in
//!   its own table) do not outlast. Nor where a server in TIME-WAIT must accept the SYN: its timestamp is later than the
//!   old connection's last one (RFC 6191 §2, what RFC 6056 §2.2 asks of those who choose ports). A peer's own mapping goes
//!   first; it, too, under these conditions only.
//! - *Never answered*, UDP and echo: after [`UNANSWERED`]. RFC 4787 REQ-5 wants two minutes, so that an answer finds its
//!   way; here the filter is address and port dependent, so that nobody but this silent remote could use the mapping, and the
//!   next packet of the peer makes another.
//!
//! What is established, or was answered, never gives its port away.

use crate::{Flow, FlowKind, Mapping, TcpSeen};

/// Younger than this, in nanoseconds, a mapping is taken when there is no other: an answer, or the last acknowledgement, may be
/// on its way. Times of last use are a second coarse: a second is certain.
pub const FRESH: u64 = 2_000_000_000;
/// How long UDP or an echo must have waited for an answer, nanoseconds: conntrack gives up as early.
pub const UNANSWERED: u64 = 30_000_000_000;
/// How long a server waits in TIME-WAIT, nanoseconds: Linux' `TCP_TIMEWAIT_LEN`. RFC 9293 §3.4.2 would have it four minutes.
pub const TIME_WAIT: u64 = 60_000_000_000;

const TCP: u32 = 6;

/// The flow that needs a port.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer {
    /// IP protocol number.
    pub protocol: u32,
    /// Peer that opens it.
    pub peer_id: u32,
    /// Its packet is a SYN.
    pub syn: bool,
    /// The SYN has a timestamp, ...
    pub timestamped: bool,
    /// ... this one.
    pub timestamp: u32,
}

/// How readily the mapping of `flow` gives its port to `new` at `now` (`CLOCK_MONOTONIC`, coarse, nanoseconds): 0 never, else
/// the higher the better, the oldest of equals first.
#[inline(always)]
#[must_use]
pub fn rank(new: &Newcomer, flow: &Flow, mapping: &Mapping, now: u64) -> u64 {
    if flow.kind != FlowKind::Masqueraded as u8 {
        return 0;
    }
    let (out, back) = (age(now, flow.last_seen), age(now, mapping.last_seen));
    let age = if out < back { out } else { back };
    let own = flow.peer_id == new.peer_id;
    let mut tier = 2;
    if new.protocol != TCP {
        if mapping.packets != 0 || age < UNANSWERED {
            return 0;
        }
    } else {
        // What is no SYN belongs to a connection that another port would end.
        if !new.syn {
            return 0;
        }
        let closed = flow.tcp_seen & mapping.tcp_seen & TcpSeen::FIN != 0;
        if (flow.tcp_seen | mapping.tcp_seen) & TcpSeen::RST != 0 {
            // Gone.
        } else if closed {
            if !(flow.tcp_seen & TcpSeen::FIN_FIRST != 0 || age >= TIME_WAIT || is_later(new, flow)) {
                return 0;
            }
            if !own {
                tier = 1;
            }
        } else if !(mapping.packets == 0 && flow.tcp_seen & (TcpSeen::SYN | TcpSeen::ACK) == TcpSeen::SYN) {
            return 0;
        }
        if age < FRESH {
            tier = 0;
        }
    }
    // Never zero, and an age is far below 2⁶⁰ nanoseconds.
    (tier << 60) + age + 1
}

/// Whether the SYN's timestamp is later than the last one of the old connection.
#[inline(always)]
fn is_later(new: &Newcomer, flow: &Flow) -> bool {
    new.timestamped
        && flow.tcp_seen & TcpSeen::TIMESTAMP != 0
        && (new.timestamp.wrapping_sub(flow.tcp_timestamp) as i32) > 0
}

/// Another CPU's clock may be a little ahead: that is no age.
#[inline(always)]
const fn age(now: u64, then: u64) -> u64 {
    let age = now.wrapping_sub(then);
    if age >> 63 == 0 { age } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1000 * SECOND;
    const OWN: u32 = 1;
    const OTHER: u32 = 2;
    const SYN: Newcomer = Newcomer { protocol: TCP, peer_id: OWN, syn: true, timestamped: false, timestamp: 0 };
    const OPEN: u8 = TcpSeen::SYN | TcpSeen::ACK;
    const DONE: u8 = OPEN | TcpSeen::FIN;

    fn rank_of(new: Newcomer, peer_id: u32, out: u8, back: Option<u8>, seconds: u64) -> u64 {
        let last_seen = NOW - seconds * SECOND;
        let kind = FlowKind::Masqueraded as u8;
        let flow = Flow { peer_id, tcp_seen: out, tcp_timestamp: 100, last_seen, kind, packets: 1, ..Flow::default() };
        let (tcp_seen, packets) = (back.unwrap_or(0), u64::from(back.is_some()));
        rank(&new, &flow, &Mapping { tcp_seen, packets, last_seen, kind, ..Mapping::default() }, NOW)
    }

    #[test]
    fn what_lives_keeps_its_port() {
        for seconds in [0, 10, 100, 900] {
            for peer in [OWN, OTHER] {
                for (out, back) in [
                    (OPEN, Some(OPEN)),
                    (DONE, Some(OPEN)),
                    (OPEN, Some(DONE)),
                    (TcpSeen::ACK, Some(TcpSeen::ACK)),
                    (TcpSeen::ACK, None),
                    (TcpSeen::SYN, Some(OPEN)),
                ] {
                    assert_eq!(rank_of(SYN, peer, out, back, seconds), 0, "{out:x} {back:?}");
                }
            }
            let udp = Newcomer { protocol: 17, ..SYN };
            assert_eq!(rank_of(udp, OWN, 0, Some(0), seconds), 0, "it was answered");
        }
    }

    #[test]
    fn the_oldest_that_ended_or_was_never_answered_goes_first() {
        let reset = OPEN | TcpSeen::RST;
        let classes = [(TcpSeen::SYN, None), (OPEN, Some(reset)), (reset, Some(OPEN))];
        for (out, back) in classes {
            let at = |seconds| rank_of(SYN, OTHER, out, back, seconds);
            assert!(at(0) > 0 && at(1) > at(0) && at(2) > at(1) && at(100) > at(2));
            assert_eq!(at(5), rank_of(SYN, OWN, out, back, 5), "whose it is says nothing");
        }
        // A SYN whose answer is on its way comes after all others.
        assert!(
            rank_of(SYN, OTHER, DONE | TcpSeen::FIN_FIRST, Some(DONE), 2) > rank_of(SYN, OWN, TcpSeen::SYN, None, 1)
        );
    }

    #[test]
    fn a_closed_one_must_not_meet_time_wait() {
        for peer in [OWN, OTHER] {
            assert_eq!(rank_of(SYN, peer, DONE, Some(DONE | TcpSeen::FIN_FIRST), 59), 0, "the server closed first");
            assert!(rank_of(SYN, peer, DONE, Some(DONE | TcpSeen::FIN_FIRST), 60) > 0);
            assert!(rank_of(SYN, peer, DONE | TcpSeen::FIN_FIRST, Some(DONE), 5) > 0, "the client did");
            let stamped = |timestamp| Newcomer { timestamped: true, timestamp, ..SYN };
            let rank = |new, seen| rank_of(new, peer, DONE | seen, Some(DONE | TcpSeen::FIN_FIRST), 5);
            assert!(rank(stamped(101), TcpSeen::TIMESTAMP) > 0);
            assert!(rank(stamped(100 + (1 << 31) - 1), TcpSeen::TIMESTAMP) > 0);
            assert_eq!(rank(stamped(100), TcpSeen::TIMESTAMP), 0, "not later");
            assert_eq!(rank(stamped(99), TcpSeen::TIMESTAMP), 0);
            assert_eq!(rank(stamped(100 + (1 << 31)), TcpSeen::TIMESTAMP), 0);
            assert_eq!(rank(stamped(101), 0), 0, "the old one had none");
        }
        let closed = |peer, seconds| rank_of(SYN, peer, DONE | TcpSeen::FIN_FIRST, Some(DONE), seconds);
        assert!(closed(OWN, 3) > closed(OTHER, 500), "a peer's own first");
        assert!(closed(OTHER, 3) > closed(OWN, 1), "but not while its last acknowledgement may be on its way");
    }

    #[test]
    fn only_a_syn_takes_a_port_of_tcp() {
        assert_eq!(rank_of(Newcomer { syn: false, ..SYN }, OWN, TcpSeen::SYN, None, 100), 0);
    }

    #[test]
    fn udp_and_echo_wait_half_a_minute_for_an_answer() {
        for protocol in [1, 17, 58] {
            let new = Newcomer { protocol, syn: false, ..SYN };
            assert_eq!(rank_of(new, OWN, 0, None, 29), 0);
            assert!(rank_of(new, OTHER, 0, None, 40) > rank_of(new, OWN, 0, None, 30));
        }
    }

    #[test]
    fn what_is_not_translated_has_no_port_to_give() {
        let flow = Flow { kind: FlowKind::Routed as u8, tcp_seen: TcpSeen::SYN, ..Flow::default() };
        assert_eq!(rank(&SYN, &flow, &Mapping::default(), NOW), 0);
    }
}
