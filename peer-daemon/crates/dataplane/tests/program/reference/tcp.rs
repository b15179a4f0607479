//! TCP connections, as docs/nat.md says that they are followed. One direction is a [`Side`].

use peer_common::{Counter, TcpSeen, TcpWindow};

use super::parse::{Parsed, Quoted, Segment, Tuple};
use super::{Reference, reply_of};
use crate::wire::TCP;

/// More than this an ordinary packet of the LAN is not believed, nor less than this a packet of the mesh taken for an old one.
const REACH: i64 = 1 << 24;
const LAG: u32 = 1 << 20;
const PLAUSIBLE: u32 = 1 << 30;

/// What one direction has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) syn: bool,
    pub(crate) ack: bool,
    pub(crate) fin: bool,
    pub(crate) fin_first: bool,
    pub(crate) rst: bool,
    /// The number behind all that was sent.
    pub(crate) end: Option<u32>,
    /// What was acknowledged, and the window from there on, not shifted.
    pub(crate) acked: Option<(u32, u16)>,
    pub(crate) scale: u8,
}

impl Side {
    /// As the tables have it.
    pub(crate) fn stored(&self) -> (u8, TcpWindow) {
        let bits = [
            (self.syn, TcpSeen::SYN),
            (self.ack, TcpSeen::ACK),
            (self.fin, TcpSeen::FIN),
            (self.fin_first, TcpSeen::FIN_FIRST),
            (self.rst, TcpSeen::RST),
            (self.end.is_some(), TcpSeen::END),
            (self.acked.is_some(), TcpSeen::WINDOW),
        ];
        let seen = bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        let (ack, window) = self.acked.unwrap_or_default();
        (seen, TcpWindow { end: self.end.unwrap_or_default(), ack, window, scale: self.scale, pad: 0 })
    }

    /// Whether `number` lies in the window, or right behind it.
    fn admits(&self, number: u32) -> bool {
        self.acked.is_none_or(|(ack, window)| number.wrapping_sub(ack) <= (u32::from(window) << self.scale) + 1)
    }

    /// Whether `ack` acknowledges all that was sent, or all but `lag` bytes.
    fn is_acknowledged_by(&self, ack: u32, lag: u32) -> bool {
        self.end.is_none_or(|end| end.wrapping_sub(ack) <= lag)
    }
}

/// A segment with its flags.
struct Met {
    fin: bool,
    syn: bool,
    rst: bool,
    ack: bool,
    segment: Segment,
    from_mesh: bool,
}

impl Reference {
    /// A packet from the mesh that goes its way.
    pub(super) fn see_out(&mut self, parsed: &Parsed) {
        let Some(met) = met(parsed, true) else { return };
        let tuple = parsed.tuple;
        let flow = self.flows.get_mut(&tuple).expect("known");
        if flow.route.is_none() {
            see_for_node(&mut flow.tcp, &met);
            return;
        }
        let (mut own, reply) = (flow.tcp, reply_of(tuple, flow.nat));
        let mut other = self.mappings.get(&reply).filter(|mapping| mapping.peer == tuple.src).map(|owner| owner.tcp);
        if !follow(&met, &mut own, other.as_mut()) {
            self.count(Counter::TcpOutOfWindow, 1);
            return;
        }
        if let Some(other) = other {
            self.mappings.get_mut(&reply).expect("found").tcp = other;
        }
        let flow = self.flows.get_mut(&tuple).expect("known");
        flow.tcp = own;
        if met.fin && !met.rst && !met.syn {
            flow.timestamp = met.segment.timestamp;
        } else if !own.fin {
            flow.timestamp = None;
        }
    }

    /// A packet from the uplink that goes its way.
    pub(super) fn see_in(&mut self, parsed: &Parsed, reply: Tuple) {
        let Some(met) = met(parsed, false) else { return };
        let mapping = self.mappings[&reply];
        let asked = Tuple { src: mapping.peer, dst: reply.src, protocol: reply.protocol };
        let mut own = mapping.tcp;
        let mut other = self.flows.get(&asked).map(|flow| flow.tcp);
        if !follow(&met, &mut own, other.as_mut()) {
            self.count(Counter::TcpOutOfWindow, 1);
            return;
        }
        self.mappings.get_mut(&reply).expect("known").tcp = own;
        if let Some(other) = other {
            self.flows.get_mut(&asked).expect("found").tcp = other;
        }
    }

    /// Whether an error may speak of a quoted segment. `asked` and `reply`: the flow's tuples; `of_peer`: the peer has sent it.
    pub(super) fn on_the_way(&self, quoted: &Quoted, asked: Tuple, reply: Tuple, of_peer: bool) -> bool {
        let (Some(flow), Some(mapping)) = (self.flows.get(&asked), self.mappings.get(&reply)) else { return true };
        let (sender, receiver) = if of_peer { (flow.tcp, mapping.tcp) } else { (mapping.tcp, flow.tcp) };
        let Some(end) = sender.end.filter(|_| asked.protocol == TCP) else { return true };
        let open = receiver.acked.map(|(ack, _)| end.wrapping_sub(ack)).filter(|open| *open <= PLAUSIBLE);
        end.wrapping_sub(quoted.seq) <= open.unwrap_or(LAG)
    }
}

/// `None`: no TCP, or no flag that means anything.
fn met(parsed: &Parsed, from_mesh: bool) -> Option<Met> {
    let has = |flag: u8| parsed.tcp_flags & flag != 0;
    (parsed.tuple.protocol == TCP && has(0x17)).then_some(Met {
        fin: has(1),
        syn: has(2),
        rst: has(4),
        ack: has(16),
        segment: parsed.tcp,
        from_mesh,
    })
}

/// The node's own stack knows its connections; here only flags are collected.
fn see_for_node(side: &mut Side, met: &Met) {
    if met.syn {
        *side = Side::default();
    }
    side.syn |= met.syn;
    side.fin |= met.fin;
    side.rst |= met.rst;
    side.ack |= met.ack && !met.rst;
}

/// `false`: it counts for nothing.
fn follow(met: &Met, own: &mut Side, other: Option<&mut Side>) -> bool {
    match met {
        Met { rst: true, .. } => reset(met, own, other),
        Met { syn: true, from_mesh: true, .. } => open_out(met, own, other),
        Met { syn: true, .. } => open_in(met, own, other),
        Met { ack: true, .. } => data(met, own, other),
        _ => false,
    }
}

fn reset(met: &Met, own: &mut Side, other: Option<&mut Side>) -> bool {
    let Segment { seq, ack, .. } = met.segment;
    if let Some(other) = other {
        let obeyed = match (other.acked, other.end) {
            (Some((expected, _)), _) => {
                let up_to_date = met.from_mesh || other.is_acknowledged_by(ack, LAG);
                seq == expected
                    || met.ack && other.admits(seq) && up_to_date
                    || met.from_mesh && is_implausible(own, other)
            }
            (None, Some(end)) => met.ack && ack == end,
            (None, None) => true,
        };
        if !obeyed {
            return false;
        }
        if let (false, Some((expected, _))) = (met.from_mesh, &mut other.acked) {
            *expected = seq;
        }
        other.rst = true;
    }
    own.end = own.end.map(|end| current(end, seq));
    own.rst = true;
    true
}

fn open_out(met: &Met, own: &mut Side, other: Option<&mut Side>) -> bool {
    let back = other.as_deref().copied().unwrap_or_default();
    let is_over = own.rst || back.rst || own.fin && back.fin;
    if own.ack && back.ack && !is_over {
        return false;
    }
    let is_again = !is_over && own.syn && own.end == Some(behind(&met.segment, 1));
    if !is_again {
        *own = Side::default();
        if let Some(other) = other {
            *other = Side::default();
        }
    }
    begin(met, own);
    true
}

fn open_in(met: &Met, own: &mut Side, other: Option<&mut Side>) -> bool {
    let peer = other.as_deref().copied().unwrap_or_default();
    let is_wanted = match met.ack {
        true => !(peer.ack && own.ack) && peer.is_acknowledged_by(met.segment.ack, 1460),
        false => !peer.ack && !own.ack,
    };
    if !is_wanted || peer.rst || peer.fin {
        return false;
    }
    *own = Side::default();
    begin(met, own);
    true
}

fn begin(met: &Met, own: &mut Side) {
    own.syn = true;
    own.ack |= met.ack;
    own.end = Some(behind(&met.segment, 1));
    if met.ack || own.acked.is_none() {
        own.acked = met.ack.then_some((met.segment.ack, met.segment.window));
    }
    own.scale = met.segment.scale;
}

fn data(met: &Met, own: &mut Side, other: Option<&mut Side>) -> bool {
    let Segment { ack, window, .. } = met.segment;
    let end = behind(&met.segment, met.fin.into());
    let is_plain = !met.fin && own.ack && !own.fin && !own.rst;
    if let (true, Some(known_end), Some((known_ack, _))) = (is_plain, own.end, own.acked) {
        let moved = |from, to| match met.from_mesh {
            true => current(from, to),
            false => {
                if (0..REACH).contains(&i64::from(to.wrapping_sub(from) as i32)) {
                    to
                } else {
                    from
                }
            }
        };
        (own.end, own.acked) = (Some(moved(known_end, end)), Some((moved(known_ack, ack), window)));
        return true;
    }
    if let Some(other) = other.as_deref().filter(|_| met.fin || !met.from_mesh) {
        let in_window = met.from_mesh && is_implausible(own, other) || other.admits(end);
        if !in_window || !met.from_mesh && !other.is_acknowledged_by(ack, LAG) {
            return !met.fin;
        }
    }
    if !own.syn && own.acked.is_none() {
        own.scale = 14;
    }
    let (old_end, old_ack) = (own.end, own.acked.map(|(ack, _)| ack));
    let (end, ack) = (old_end.map_or(end, |old| current(old, end)), old_ack.map_or(ack, |old| current(old, ack)));
    (own.end, own.acked, own.ack) = (Some(end), Some((ack, window)), true);
    let new_data = old_end.is_some_and(|old| old != end);
    let new_ack = old_ack.is_some_and(|old| old != ack);
    if new_data {
        (own.fin, own.fin_first) = (false, false);
    }
    let is_other_open = other.as_deref().is_none_or(|other| !other.fin);
    if met.from_mesh && (new_data || new_ack) {
        if let Some(other) = other.filter(|_| own.rst) {
            other.rst = false;
        }
        own.rst = false;
    }
    if met.fin {
        own.fin_first |= !own.fin && is_other_open;
        own.fin = true;
    }
    true
}

/// Where a believed sender is: at `to`, unless that is a little behind.
fn current(from: u32, to: u32) -> u32 {
    let distance = i64::from(to.wrapping_sub(from) as i32);
    if (-REACH..0).contains(&distance) { from } else { to }
}

/// The number behind the segment.
fn behind(segment: &Segment, flags: u32) -> u32 {
    segment.seq.wrapping_add(segment.data).wrapping_add(flags)
}

/// Whether the LAN's side has acknowledged what the peer has not sent.
fn is_implausible(peer: &Side, lan: &Side) -> bool {
    matches!((peer.end, lan.acked), (Some(end), Some((ack, _))) if end.wrapping_sub(ack) > PLAUSIBLE)
}
