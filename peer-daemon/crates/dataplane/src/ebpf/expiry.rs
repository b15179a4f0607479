//! When a flow ends. Pure: ages in, an answer out.

use std::time::Duration;

use peer_common::{Flow, FlowKey, Mapping, TcpSeen};

use super::ages::Now;
use crate::flows::TcpState;
use crate::observe::{CloseReason, drop_reason};

/// RFC 5382 REQ-5: an established connection, at least 2 hours 4 minutes.
const TCP_ESTABLISHED: Duration = Duration::from_secs(7440);
/// RFC 5382 REQ-5: half-open and closing, at least 4 minutes; RFC 7857 §2: also after a RST.
const TCP_TRANSITORY: Duration = Duration::from_secs(240);
/// RFC 4787 REQ-5: 2 minutes at least, 5 are recommended. REQ-6: refreshed by outbound and, here, by inbound packets.
const UDP: Duration = Duration::from_secs(300);
/// RFC 5508 REQ-2: at least 60 seconds.
const ICMP_QUERY: Duration = Duration::from_secs(60);
/// Under pressure: half-open, closing and one-packet flows give way to established ones.
const UNDER_PRESSURE: Duration = Duration::from_secs(30);
/// Share of the table in use from which on there is pressure, percent.
const PRESSURE_PERCENT: u64 = 80;

const TCP: u32 = 6;
const ICMP: u32 = 1;
const ICMPV6: u32 = 58;

/// Whether the table is under pressure.
pub(super) fn pressure(used: u64, max: u64) -> bool {
    used * 100 > max * PRESSURE_PERCENT
}

/// Whether the forward side alone is young enough to keep the flow, whatever the reverse side says: spares its lookup.
pub(super) fn surely_alive(key: &FlowKey, flow: &Flow, now: Now, pressure: bool) -> bool {
    now.age(flow.last_seen) < shortest(key.protocol, pressure)
}

/// Whether a flow, or an orphaned mapping, has expired. `mapping` is the reverse side, when there is one.
pub(super) fn expired(key: &FlowKey, flow: &Flow, mapping: Option<&Mapping>, now: Now, pressure: bool) -> bool {
    let last = mapping.map_or(flow.last_seen, |mapping| mapping.last_seen.max(flow.last_seen));
    now.age(last) >= timeout(key.protocol, flow, mapping, pressure)
}

/// Why an expired flow has.
pub(super) fn why(key: &FlowKey, flow: &Flow, mapping: Option<&Mapping>, now: Now, pressure: bool) -> CloseReason {
    if let Some(reason) = drop_reason(flow.ended & !Flow::TOLD) {
        return CloseReason::of_drop(reason);
    }
    if pressure && !expired(key, flow, mapping, now, false) {
        return CloseReason::Evicted;
    }
    match tcp_state(flow, mapping) {
        TcpState::Closing if key.protocol == TCP => CloseReason::Closed,
        TcpState::Reset if key.protocol == TCP => CloseReason::Reset,
        _ => CloseReason::Expired,
    }
}

/// Whether a mapping without a flow has expired: nothing will refresh it.
pub(super) fn orphan_expired(key: &FlowKey, mapping: &Mapping, now: Now) -> bool {
    now.age(mapping.last_seen) >= shortest(key.protocol, false)
}

/// Whether it is a TCP connection that stands.
pub(super) fn is_connection(key: &FlowKey, flow: &Flow, mapping: Option<&Mapping>) -> bool {
    key.protocol == TCP && tcp_state(flow, mapping) == TcpState::Established
}

/// How long a flow may be idle.
pub(crate) fn timeout(protocol: u32, flow: &Flow, mapping: Option<&Mapping>, pressure: bool) -> Duration {
    let back = mapping.map_or((0, 0), |mapping| (mapping.tcp_seen, mapping.packets));
    match protocol {
        TCP if tcp_state(flow, mapping) == TcpState::Established => TCP_ESTABLISHED,
        TCP if pressure => UNDER_PRESSURE,
        TCP => TCP_TRANSITORY,
        ICMP | ICMPV6 => ICMP_QUERY,
        _ if pressure && flow.packets + back.1 <= 1 => UNDER_PRESSURE,
        _ => UDP,
    }
}

/// Established: both directions have seen the handshake through, and not both a FIN, and no RST. A flow that was met in
/// mid-connection (state was lost) counts as established by its ACKs.
pub(crate) fn tcp_state(flow: &Flow, mapping: Option<&Mapping>) -> TcpState {
    let out = flow.tcp_seen;
    // Flows of the node itself have one side only; its stack answers for the other.
    let back = mapping.map_or(TcpSeen::ACK, |mapping| mapping.tcp_seen);
    if (out | back) & TcpSeen::RST != 0 {
        TcpState::Reset
    } else if out & back & TcpSeen::FIN != 0 {
        TcpState::Closing
    } else if out & back & TcpSeen::ACK != 0 {
        TcpState::Established
    } else {
        TcpState::HalfOpen
    }
}

fn shortest(protocol: u32, pressure: bool) -> Duration {
    match protocol {
        _ if pressure => UNDER_PRESSURE,
        TCP => TCP_TRANSITORY,
        ICMP | ICMPV6 => ICMP_QUERY,
        _ => UDP,
    }
}

#[cfg(test)]
mod tests {
    use peer_common::DropReason;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    /// Long after every timer.
    const NOW: u64 = 100_000 * SECOND;

    fn check(protocol: u32, out: u8, back: Option<u8>, pressure: bool) -> u64 {
        let key = FlowKey { protocol, ..FlowKey::default() };
        // Bisection finds the age from which on the flow is gone.
        let gone = |seconds: u64| {
            let seen = NOW - seconds * SECOND;
            let flow = Flow { last_seen: seen, tcp_seen: out, packets: 5, ..Flow::default() };
            let mapping = back.map(|tcp_seen| Mapping { last_seen: seen, tcp_seen, packets: 5, ..Mapping::default() });
            let expired = expired(&key, &flow, mapping.as_ref(), NOW.into(), pressure);
            assert!(!(expired && surely_alive(&key, &flow, NOW.into(), pressure)), "the shortcut agrees");
            expired
        };
        (0..10_000).find(|&seconds| gone(seconds)).expect("every flow ends")
    }

    #[test]
    fn each_class_has_its_timer() {
        let (syn, ack, fin, rst) = (TcpSeen::SYN, TcpSeen::ACK, TcpSeen::FIN, TcpSeen::RST);
        assert_eq!(check(TCP, syn, Some(0), false), 240, "half-open");
        assert_eq!(check(TCP, syn, Some(syn | ack), false), 240, "not yet acknowledged");
        assert_eq!(check(TCP, syn | ack, Some(syn | ack), false), 7440, "established");
        assert_eq!(check(TCP, ack, Some(ack), false), 7440, "met in mid-connection");
        assert_eq!(check(TCP, syn | ack | fin, Some(syn | ack), false), 7440, "half-closed");
        assert_eq!(check(TCP, syn | ack | fin, Some(syn | ack | fin), false), 240, "closed");
        assert_eq!(check(TCP, syn | ack, Some(syn | ack | rst), false), 240, "reset");
        assert_eq!(check(17, 0, Some(0), false), 300);
        assert_eq!(check(1, 0, Some(0), false), 60);
        assert_eq!(check(58, 0, Some(0), false), 60);
    }

    #[test]
    fn states_have_names_of_their_own() {
        let state = |out, back| {
            let mapping = Mapping { tcp_seen: back, ..Mapping::default() };
            tcp_state(&Flow { tcp_seen: out, ..Flow::default() }, Some(&mapping)).name()
        };
        let (syn, ack, fin, rst) = (TcpSeen::SYN, TcpSeen::ACK, TcpSeen::FIN, TcpSeen::RST);
        assert_eq!(state(syn, syn | ack), "half_open");
        assert_eq!(state(syn | ack, syn | ack), "established");
        assert_eq!(state(syn | ack | fin, syn | ack), "established", "half-closed");
        assert_eq!(state(ack | fin, ack | fin), "closing");
        assert_eq!(state(ack | fin, ack | fin | rst), "reset");
    }

    #[test]
    fn why_it_has_expired() {
        let why = |protocol, out, back, idle: u64, pressure| {
            let key = FlowKey { protocol, ..FlowKey::default() };
            let seen = NOW - idle * SECOND;
            let flow = Flow { last_seen: seen, tcp_seen: out, packets: 1, ..Flow::default() };
            let mapping = Mapping { last_seen: seen, tcp_seen: back, ..Mapping::default() };
            why(&key, &flow, Some(&mapping), NOW.into(), pressure).name()
        };
        let (syn, ack, fin, rst) = (TcpSeen::SYN, TcpSeen::ACK, TcpSeen::FIN, TcpSeen::RST);
        assert_eq!(why(TCP, ack, ack, 8000, false), "expired");
        assert_eq!(why(TCP, ack | fin, ack | fin, 250, false), "closed");
        assert_eq!(why(TCP, ack, ack | rst, 250, false), "reset");
        assert_eq!(why(TCP, syn, 0, 31, true), "evicted");
        assert_eq!(why(TCP, ack | fin, ack | fin, 250, true), "closed", "it would have gone without pressure");
        assert_eq!(why(17, 0, 0, 31, true), "evicted");
        assert_eq!(why(17, 0, 0, 301, true), "expired");
    }

    #[test]
    fn what_a_packet_has_ended_says_by_what() {
        let key = FlowKey { protocol: TCP, ..FlowKey::default() };
        let marks = TcpSeen::ACK | TcpSeen::RST;
        let why = |ended: u32| {
            let flow = Flow { last_seen: NOW - 250 * SECOND, tcp_seen: marks, ended, ..Flow::default() };
            why(&key, &flow, None, NOW.into(), false)
        };
        assert_eq!(why(0), CloseReason::Reset);
        for told in [0, Flow::TOLD] {
            assert_eq!(why(told | (DropReason::PolicyDefault as u32 + 1)), CloseReason::PolicyRevoked);
            assert_eq!(why(told | (DropReason::NoRoute as u32 + 1)), CloseReason::RouteRemoved);
            assert_eq!(why(told | (DropReason::ForeignSource as u32 + 1)), CloseReason::PeerRemoved);
        }
    }

    #[test]
    fn pressure_shortens_what_is_not_established() {
        let (syn, ack) = (TcpSeen::SYN, TcpSeen::ACK);
        assert_eq!(check(TCP, syn, Some(0), true), 30);
        assert_eq!(check(TCP, syn | ack, Some(syn | ack), true), 7440);
        assert_eq!(check(17, 0, Some(0), true), 300, "a UDP flow of several packets stays");
        assert!(pressure(81, 100) && !pressure(80, 100));
    }

    #[test]
    fn either_direction_keeps_a_flow() {
        let key = FlowKey { protocol: 17, ..FlowKey::default() };
        let old = Flow { last_seen: NOW - 400 * SECOND, ..Flow::default() };
        let fresh = Mapping { last_seen: NOW - SECOND, ..Mapping::default() };
        assert!(!expired(&key, &old, Some(&fresh), NOW.into(), false));
        assert!(expired(&key, &old, None, NOW.into(), false));
    }
}
