//! Who is told that a packet goes no further, and how.
//!
//! A connection that policy, route or peer have ended is reset at both ends ([`crate::reset`]), or either would wait for the other
//! for hours. A member is told what no rule has decided: no route, a neighbour that does not answer, something exhausted
//! (RFC 1812 §5.2.7, RFC 4443 §3.1). What the policy refuses is dropped in silence, unless the operator wants it
//! answered.

use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_BLACKHOLE, BPF_FIB_LKUP_RET_PROHIBIT};
use peer_common::{Config, DropReason, Judged};

use crate::maps::{PEER_ERRORS, Scratch};
use crate::parse::{IPPROTO_TCP, Packet, Part, TCP_ACK, TCP_RST, TCP_SYN};
use crate::verifier::value;
use crate::{icmp, judge};

/// Answers at once to one peer, and nanoseconds until one more: a traceroute of a whole path, and 50 a second.
const BURST: u32 = 50;
const REFILL: u64 = 20_000_000;

/// Whether the packet belongs to a TCP connection that stood, and that what has changed since does not permit any more.
#[inline(always)]
pub fn ends_connection(work: &Scratch, reason: DropReason) -> bool {
    let judged_again = work.query.judged == Judged::Again as u8;
    judged_again
        && is_verdict(reason)
        && is_whole_tcp(&work.packet)
        && work.packet.tcp_flags & (TCP_ACK | TCP_RST) == TCP_ACK
}

/// What a member is told about its packet; `None`: nothing.
#[inline(always)]
pub fn to_peer(config: &Config, work: &Scratch, reason: DropReason) -> Option<icmp::Error> {
    Some(match reason {
        DropReason::TtlExceeded => icmp::Error::TIME_EXCEEDED,
        DropReason::TooBig => icmp::Error::too_big(work.mtu),
        DropReason::NoRoute | DropReason::NotUplink | DropReason::NoSourceAddress => icmp::Error::NO_ROUTE,
        DropReason::Unreachable => match work.hop.result {
            // As the kernel itself: a blackhole is silent.
            BPF_FIB_LKUP_RET_BLACKHOLE => return None,
            BPF_FIB_LKUP_RET_PROHIBIT => icmp::Error::PROHIBITED,
            _ => icmp::Error::NO_HOST,
        },
        DropReason::HostUnreachable => icmp::Error::SILENT,
        DropReason::PeerQuota
        | DropReason::PortsExhausted
        | DropReason::PortShare
        | DropReason::TableFull
        | DropReason::SilentNeighbours => icmp::Error::PROHIBITED,
        DropReason::PolicyDefault | DropReason::PolicyRule if config.answers & Config::REJECT != 0 => {
            icmp::Error::PROHIBITED
        }
        _ => return None,
    })
}

/// Whether what [`to_peer`] says is said by a reset: to an established connection an ICMP error is a hint only (RFC 1122
/// §4.2.3.9), and a member whose new one is rejected need not wait. Not where things may get better by themselves.
#[inline(always)]
pub fn as_reset(packet: &Packet, reason: DropReason) -> bool {
    let for_good = match reason {
        DropReason::PolicyDefault | DropReason::PolicyRule => true,
        // A connection that has lost its flow, and cannot have another.
        DropReason::PeerQuota | DropReason::PortsExhausted | DropReason::PortShare | DropReason::TableFull => {
            packet.tcp_flags & (TCP_ACK | TCP_SYN) == TCP_ACK
        }
        _ => false,
    };
    for_good && is_whole_tcp(packet)
}

/// Whether the sender, a peer, may be told of one more packet (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)).
#[inline(always)]
pub fn may_tell(work: &mut Scratch) -> bool {
    let Some(peer) = judge::peer_of(&mut work.query.keys, &work.packet.key.src) else { return false };
    match value(&PEER_ERRORS, peer.id) {
        // SAFETY: an array's value lives as long as the program. Another CPU's token may get lost.
        Some(budget) => unsafe { (*budget).take(REFILL, BURST) },
        None => false,
    }
}

/// Whether it is what [`judge::judge`] says, and not what befalls an accepted packet.
#[inline(always)]
fn is_verdict(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::PolicyDefault
            | DropReason::PolicyRule
            | DropReason::NoRoute
            | DropReason::ForeignSource
            | DropReason::DeniedDestination
    )
}

#[inline(always)]
fn is_whole_tcp(packet: &Packet) -> bool {
    packet.key.protocol == IPPROTO_TCP && packet.unjudged.is_none() && packet.part == Part::All
}
