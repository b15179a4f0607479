//! What a flow learns of its TCP connection, and which resets, ends and opens it believes.
//!
//! Nobody forges what comes from the mesh: WireGuard has proven its source. On the LAN anybody may send in a server's name, but
//! sees nothing of the connection. So what comes from an uplink is judged by what the peer itself has shown, in `FLOWS`,
//! and never by `MAPPINGS`, which forged packets may have moved. What comes from the mesh is judged by `MAPPINGS`, because a peer
//! must not close its connection for us only; where forged packets have made that implausible, the peer is believed.
//!
//! An ordinary packet writes its own entry and looks nothing up. State that is not known, of a connection that was met in its
//! middle, refuses nothing, as in conntrack's loose mode.

use aya_ebpf::programs::TcContext;
use peer_common::{Counter, Flow, Mapping, TcpSeen, TcpWindow};

use crate::maps::{FLOWS, MAPPINGS, Scratch};
use crate::parse::{Packet, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use crate::tcp_options::{self, MAX_SCALE, Options};
use crate::verifier::{opaque_address, opaque_wide};
use crate::{flow, stats};

/// Flags that mean something here.
const FLAGS: u8 = TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK;
/// Of an entry to which ordinary packets have nothing to add but numbers.
const KNOWN: u8 = TcpSeen::ACK | TcpSeen::END | TcpSeen::WINDOW;
/// What data afterwards may clear.
const MARKS: u8 = TcpSeen::FIN | TcpSeen::RST;

/// How far an ordinary packet may be off, bytes: more than any window in use, and one in 256 of all numbers.
const REACH: u32 = 1 << 24;
/// Half of all windows that there may be (RFC 7323 §2.2): what is further ahead is behind.
const FURTHEST: u32 = 1 << 30;
/// How far an acknowledgement may lag behind what was sent. RFC 5961 §5.2 takes the largest window that the receiver has
/// announced, which a forged packet may have announced; more than this is on the way in few networks, and the peer's answers to
/// a dead connection bring a reset that fits.
const LAG: u32 = 1 << 20;
/// Data of a SYN (RFC 7413), which its answer need not acknowledge.
const SYN_DATA: u32 = 1460;

/// One direction's part of an entry.
struct Side<'a> {
    seen: &'a mut u8,
    tcp: &'a mut TcpWindow,
}

/// A packet of the mesh, of a flow that has a way out of its own.
#[inline(always)]
pub fn see_out<const L2: usize>(ctx: &TcContext, work: &mut Scratch, flow: &mut Flow) {
    if is_ordinary(&work.packet, flow.tcp_seen) {
        advance::<true>(&mut flow.tcp, &work.packet);
    } else if work.packet.tcp_flags & FLAGS != 0 {
        judge_out::<L2>(ctx, work, flow);
    }
}

/// A packet from an uplink.
#[inline(always)]
pub fn see_in<const L2: usize>(ctx: &TcContext, work: &mut Scratch, mapping: &mut Mapping) {
    if is_ordinary(&work.packet, mapping.tcp_seen) {
        advance::<false>(&mut mapping.tcp, &work.packet);
    } else if work.packet.tcp_flags & FLAGS != 0 {
        judge_in::<L2>(ctx, work, mapping);
    }
}

#[inline(always)]
fn is_ordinary(packet: &Packet, seen: u8) -> bool {
    packet.tcp_flags & FLAGS == TCP_ACK && seen & (KNOWN | MARKS) == KNOWN
}

/// Takes the numbers of an ordinary packet over.
#[inline(always)]
fn advance<const FROM_MESH: bool>(tcp: &mut TcpWindow, packet: &Packet) {
    tcp.end = moved::<FROM_MESH>(tcp.end, packet.tcp_seq().wrapping_add(packet.payload()));
    tcp.ack = moved::<FROM_MESH>(tcp.ack, packet.tcp_ack());
    tcp.window = packet.tcp_window();
}

/// Where a number stands after a packet says `to`. One of the mesh tells where its sender is now, unless it is a little
/// behind: an old one, overtaken. One of the LAN may be forged, and moves it by no more than [`REACH`], forward.
///
/// Without branches: which way it goes changes from packet to packet.
#[inline(always)]
fn moved<const FROM_MESH: bool>(from: u32, to: u32) -> u32 {
    // Behind by less than REACH is ahead by this or more.
    const BEHIND: u64 = (1 << 32) - REACH as u64;
    let ahead = to.wrapping_sub(from);
    let limit = if FROM_MESH { BEHIND } else { REACH as u64 };
    // All bits set if it is below the limit, else none.
    let taken = opaque_wide((ahead as u64).wrapping_sub(limit)) as i64 >> 63;
    from.wrapping_add(ahead & taken as u32)
}

/// What is more than an ordinary packet of the mesh. Returns 0, as functions of their own must return something.
#[inline(never)]
fn judge_out<const L2: usize>(ctx: &TcContext, work: &mut Scratch, flow: &mut Flow) -> u32 {
    let Scratch { packet, reply, options, mapping: blank, .. } = work;
    let options = &raw mut *options;
    if packet.tcp_flags & (TCP_SYN | TCP_FIN) != 0 {
        tcp_options::read::<L2>(ctx, packet, options);
    }
    flow::set_reply(reply, &packet.key, &flow.nat_addr, flow.nat_port);
    // Of what is not there, or another's, nothing is known.
    blank.tcp_seen = 0;
    clear(&mut blank.tcp);
    let mut mapping = opaque_address(&raw const *blank).cast_mut();
    if let Some(found) = MAPPINGS.get_ptr_mut(&*reply) {
        // SAFETY: a map value lives until the program ends, whatever becomes of its entry; fields are written one by one.
        let owner = unsafe { &*found };
        if owner.peer_addr == packet.key.src && owner.peer_port == packet.key.src_port {
            mapping = opaque_address(found).cast_mut();
        }
    }
    // SAFETY: as above, or this CPU's own.
    let mapping = unsafe { &mut *mapping };
    let other = Side { seen: &mut mapping.tcp_seen, tcp: &mut mapping.tcp };
    let own = Side { seen: &mut flow.tcp_seen, tcp: &mut flow.tcp };
    if !judged::<true>(packet, options, own, other) {
        stats::count(Counter::TcpOutOfWindow, 1);
    } else if packet.tcp_flags & (TCP_SYN | TCP_RST | TCP_FIN) == TCP_FIN {
        match tcp_options::timestamp(options) {
            Some(timestamp) => {
                flow.tcp_timestamp = timestamp;
                flow.tcp_seen |= TcpSeen::TIMESTAMP;
            }
            None => flow.tcp_seen &= !TcpSeen::TIMESTAMP,
        }
    }
    0
}

/// As [`judge_out`], from an uplink.
#[inline(never)]
fn judge_in<const L2: usize>(ctx: &TcContext, work: &mut Scratch, mapping: &mut Mapping) -> u32 {
    let Scratch { packet, query, options, flow: blank, .. } = work;
    let options = &raw mut *options;
    if packet.tcp_flags & TCP_SYN != 0 {
        tcp_options::read::<L2>(ctx, packet, options);
    }
    flow::set_asked(&mut query.key, &packet.key, mapping);
    blank.tcp_seen = 0;
    clear(&mut blank.tcp);
    let mut flow = opaque_address(&raw const *blank).cast_mut();
    if let Some(found) = FLOWS.get_ptr_mut(&query.key) {
        flow = opaque_address(found).cast_mut();
    }
    // SAFETY: as in `judge_out`.
    let flow = unsafe { &mut *flow };
    let other = Side { seen: &mut flow.tcp_seen, tcp: &mut flow.tcp };
    let own = Side { seen: &mut mapping.tcp_seen, tcp: &mut mapping.tcp };
    if !judged::<false>(packet, options, own, other) {
        stats::count(Counter::TcpOutOfWindow, 1);
    }
    0
}

/// `false`: it claims what does not fit, and counts for nothing.
#[inline(always)]
fn judged<const FROM_MESH: bool>(packet: &Packet, options: *const Options, own: Side<'_>, other: Side<'_>) -> bool {
    // In the order of RFC 9293 §3.10.7.4.
    if packet.tcp_flags & TCP_RST != 0 {
        reset::<FROM_MESH>(packet, own, other)
    } else if packet.tcp_flags & TCP_SYN != 0 {
        let scale = tcp_options::scale(options);
        if FROM_MESH { open_out(packet, scale, own, other) } else { open_in(packet, scale, own, other) }
    } else if packet.tcp_flags & TCP_ACK != 0 {
        data::<FROM_MESH>(packet, own, other)
    } else {
        // Without an acknowledgement every end ignores it.
        false
    }
}

/// A reset counts where the other end obeys it (RFC 9293 §3.10.7.3, RFC 5961 §3.2): as an answer to its SYN, acknowledging that; or
/// with the very number that it expects. And inside its window, if it acknowledges what that end has sent as well (RFC 5961 §5):
/// that is how an end gives up while data is on the way. The other end asks for the very number then, when it has not
/// got the data.
///
/// Both entries are marked: the peer's own, because only the peer can show that it lives.
#[inline(always)]
fn reset<const FROM_MESH: bool>(packet: &Packet, own: Side<'_>, other: Side<'_>) -> bool {
    let seq = packet.tcp_seq();
    let acks = packet.tcp_flags & TCP_ACK != 0;
    if *other.seen & TcpSeen::WINDOW != 0 {
        let exact = seq == other.tcp.ack;
        let inside = acks && in_window(seq, other.tcp) && (FROM_MESH || acknowledges(packet, &other, LAG));
        if !exact && !inside && !(FROM_MESH && implausible(&own, &other)) {
            return false;
        }
        if !FROM_MESH {
            // What the peer still acknowledges up to here has crossed the reset, and does not show that it lives.
            other.tcp.ack = seq;
        }
    } else if *other.seen & TcpSeen::END != 0 && !(acks && packet.tcp_ack() == other.tcp.end) {
        return false;
    }
    *other.seen |= TcpSeen::RST;
    if *own.seen & TcpSeen::END != 0 {
        own.tcp.end = moved::<true>(own.tcp.end, seq);
    }
    *own.seen |= TcpSeen::RST;
    true
}

/// A SYN of the peer begins anew what is closed, reset or half-open, and both entries with it. On an established connection it
/// restarts nothing (RFC 5961 §4.2): the server asks back, and if the peer has really lost it, it answers with a reset that
/// fits.
#[inline(always)]
fn open_out(packet: &Packet, scale: u8, own: Side<'_>, other: Side<'_>) -> bool {
    let end = packet.tcp_seq().wrapping_add(packet.payload()).wrapping_add(1);
    let (seen, back) = (*own.seen, *other.seen);
    let over = (seen | back) & TcpSeen::RST != 0 || seen & back & TcpSeen::FIN != 0;
    if !over && seen & back & TcpSeen::ACK != 0 {
        return false;
    }
    const SYN: u8 = TcpSeen::SYN | TcpSeen::END;
    let again = !over && seen & SYN == SYN && own.tcp.end == end;
    if !again {
        (*own.seen, *other.seen) = (0, 0);
        clear(other.tcp);
    }
    begin(packet, scale, end, own);
    true
}

/// A SYN from the LAN opens what the peer has asked for, and nothing else: as an answer that acknowledges the peer's, or, not yet
/// answered, from both ends at once (RFC 9293 §3.5).
#[inline(always)]
fn open_in(packet: &Packet, scale: u8, own: Side<'_>, other: Side<'_>) -> bool {
    let answered = *own.seen & TcpSeen::ACK != 0;
    let acks = packet.tcp_flags & TCP_ACK != 0;
    let peer_acks = *other.seen & TcpSeen::ACK != 0;
    let wanted =
        if acks { !(peer_acks && answered) && acknowledges(packet, &other, SYN_DATA) } else { !peer_acks && !answered };
    if !wanted || *other.seen & MARKS != 0 {
        return false;
    }
    *own.seen = 0;
    begin(packet, scale, packet.tcp_seq().wrapping_add(packet.payload()).wrapping_add(1), own);
    true
}

/// Sets an entry to what a SYN shows.
#[inline(always)]
fn begin(packet: &Packet, scale: u8, end: u32, own: Side<'_>) {
    own.tcp.end = end;
    own.tcp.scale = scale;
    if packet.tcp_flags & TCP_ACK != 0 {
        (own.tcp.ack, own.tcp.window) = (packet.tcp_ack(), packet.tcp_window());
        *own.seen |= TcpSeen::SYN | KNOWN;
    } else {
        if *own.seen & TcpSeen::WINDOW == 0 {
            (own.tcp.ack, own.tcp.window) = (0, 0);
        }
        *own.seen |= TcpSeen::SYN | TcpSeen::END;
    }
}

#[inline(always)]
fn clear(tcp: &mut TcpWindow) {
    (tcp.end, tcp.ack, tcp.window, tcp.scale) = (0, 0, 0, 0);
}

/// A FIN, and data where the entry is marked or knows too little.
///
/// What the peer sends or acknowledges beyond what it has shown clears a reset: it lives, so that the reset was not its own, and
/// was not obeyed. The LAN clears none, because after a reset of the peer's the server's data is still on the way. A FIN is
/// cleared by new data of its own side, which after a genuine one there is none.
#[inline(always)]
fn data<const FROM_MESH: bool>(packet: &Packet, own: Side<'_>, other: Side<'_>) -> bool {
    let fin = packet.tcp_flags & TCP_FIN != 0;
    let (end, ack) = (packet.tcp_seq().wrapping_add(packet.payload()).wrapping_add(fin as u32), packet.tcp_ack());
    if (fin || !FROM_MESH) && !fits::<FROM_MESH>(packet, end, &own, &other) {
        return !fin;
    }
    let before = *own.seen;
    let (knew_end, knew_ack) = (before & TcpSeen::END != 0, before & TcpSeen::WINDOW != 0);
    // Of the peer, or judged by what the peer has shown: where it is now.
    let end = if knew_end { moved::<true>(own.tcp.end, end) } else { end };
    let ack = if knew_ack { moved::<true>(own.tcp.ack, ack) } else { ack };
    let more_data = knew_end && end != own.tcp.end;
    let more = more_data || knew_ack && ack != own.tcp.ack;
    (own.tcp.end, own.tcp.ack, own.tcp.window) = (end, ack, packet.tcp_window());
    if before & (TcpSeen::SYN | TcpSeen::WINDOW) == 0 {
        // What it was in the SYN is not known.
        own.tcp.scale = MAX_SCALE;
    }
    let mut seen = before | KNOWN;
    if more_data {
        seen &= !(TcpSeen::FIN | TcpSeen::FIN_FIRST | TcpSeen::TIMESTAMP);
    }
    if FROM_MESH && more && before & TcpSeen::RST != 0 {
        seen &= !TcpSeen::RST;
        *other.seen &= !TcpSeen::RST;
    }
    if fin {
        if (seen | *other.seen) & TcpSeen::FIN == 0 {
            seen |= TcpSeen::FIN_FIRST;
        }
        seen |= TcpSeen::FIN;
    }
    *own.seen = seen;
    true
}

/// Whether a packet that ends at `end` lies in the window that the other side has open (RFC 9293 §3.10.7.4) and, from the LAN,
/// acknowledges what the peer has sent (RFC 5961 §5).
#[inline(always)]
fn fits<const FROM_MESH: bool>(packet: &Packet, end: u32, own: &Side<'_>, other: &Side<'_>) -> bool {
    let judge = *other.seen & TcpSeen::WINDOW != 0 && !(FROM_MESH && implausible(own, other));
    if judge && !in_window(end, other.tcp) {
        return false;
    }
    FROM_MESH || acknowledges(packet, other, LAG)
}

/// Whether a number lies in the window, its end and the number of a FIN behind it included.
#[inline(always)]
fn in_window(seq: u32, tcp: &TcpWindow) -> bool {
    // No more than the mask lets through is a shift; the compiler cannot know.
    let room = (tcp.window as u32) << (tcp.scale & 0xf);
    seq.wrapping_sub(tcp.ack) <= room + 1
}

/// Whether the packet acknowledges the end of what the other side has sent, or less by up to `lag`.
#[inline(always)]
fn acknowledges(packet: &Packet, other: &Side<'_>, lag: u32) -> bool {
    *other.seen & TcpSeen::END == 0 || other.tcp.end.wrapping_sub(packet.tcp_ack()) <= lag
}

/// Whether the LAN has acknowledged what the peer has never sent: forged, or of another connection.
#[inline(always)]
fn implausible(own: &Side<'_>, other: &Side<'_>) -> bool {
    *own.seen & TcpSeen::END != 0 && own.tcp.end.wrapping_sub(other.tcp.ack) > FURTHEST
}

/// Whether an ICMP error may be about a segment that begins at `seq`: sent, and not yet acknowledged (RFC 5927 §4.1). Ends
/// included, for segments without data.
#[inline(always)]
pub fn on_the_way(seq: u32, sender: (&TcpWindow, u8), receiver: (&TcpWindow, u8)) -> bool {
    if sender.1 & TcpSeen::END == 0 {
        return true;
    }
    let behind = sender.0.end.wrapping_sub(seq);
    let unacknowledged = sender.0.end.wrapping_sub(receiver.0.ack);
    let known = receiver.1 & TcpSeen::WINDOW != 0 && unacknowledged <= FURTHEST;
    behind <= if known { unacknowledged } else { LAG }
}
