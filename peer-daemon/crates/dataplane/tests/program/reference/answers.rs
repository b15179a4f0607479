//! What ends are told of packets that go no further, as docs/nat.md says.

use peer_common::{Counter, DropReason, FlowKind};

use super::parse::{Parsed, Part, Tuple};
use super::rewrite::{self, Said};
use super::{Outcome, Reference, reply_of};
use crate::wire::{ETH, TCP};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

impl Reference {
    /// A frame of the mesh that was refused.
    pub(super) fn answer_peer(&mut self, frame: &[u8], parsed: &Parsed, reason: DropReason, mtu: usize) -> Outcome {
        if self.ends_connection(parsed, reason) {
            let tuple = parsed.tuple;
            let flow = self.flows[&tuple];
            self.end(tuple, reply_of(tuple, flow.nat));
            // The peer's own is a copy that the tests do not see here.
            self.count(Counter::ResetsSent, 2);
            let source = if flow.kind == FlowKind::Masqueraded { flow.nat } else { tuple.src };
            let onward = self.onward(frame, parsed, Tuple { src: source, ..tuple });
            return if flow.by_uplink { Outcome::Redirect(onward) } else { Outcome::Next(onward) };
        }
        let Some(said) = self.said(parsed, reason, mtu) else { return Outcome::Drop };
        if self.peer_of(parsed.tuple.src.0).is_none() {
            return Outcome::Drop;
        }
        if is_said_by_reset(parsed, reason) {
            if parsed.tcp_flags & RST != 0 {
                return Outcome::Drop;
            }
            self.count(Counter::ResetsSent, 1);
            return Outcome::Redirect(back(frame, parsed));
        }
        let source = self.network.overlay[usize::from(!parsed.is_v4())];
        self.error(frame, parsed, source, said)
    }

    /// A frame of an uplink, with a mapping, that was refused.
    pub(super) fn answer_lan(
        &mut self,
        frame: &[u8],
        parsed: &Parsed,
        reply: Tuple,
        (reason, mtu): (DropReason, usize),
    ) -> Outcome {
        let told = if self.ends_connection(parsed, reason) {
            let asked = Tuple { src: self.mappings[&reply].peer, dst: reply.src, protocol: reply.protocol };
            self.end(asked, reply);
            self.count(Counter::ResetsSent, 2);
            Outcome::Redirect(back(frame, parsed))
        } else {
            let said = match reason {
                DropReason::TtlExceeded => Said::TimeExceeded,
                DropReason::TooBig => Said::TooBig(mtu),
                _ => return Outcome::Drop,
            };
            let source = self.network.uplink[usize::from(!parsed.is_v4())];
            self.error(frame, parsed, source, said)
        };
        match told {
            Outcome::Redirect(mut told) => {
                // Back to where the frame came from.
                told[..12].rotate_left(6);
                Outcome::Redirect(told)
            }
            outcome => outcome,
        }
    }

    fn ends_connection(&self, parsed: &Parsed, reason: DropReason) -> bool {
        use DropReason as R;
        let by_judgement =
            matches!(reason, R::PolicyDefault | R::PolicyRule | R::NoRoute | R::ForeignSource | R::DeniedDestination);
        self.judged_again && by_judgement && is_segment(parsed) && parsed.tcp_flags & (ACK | RST) == ACK
    }

    fn end(&mut self, asked: Tuple, reply: Tuple) {
        if let Some(flow) = self.flows.get_mut(&asked) {
            (flow.tcp.rst, flow.aged) = (true, false);
        }
        if let Some(mapping) = self.mappings.get_mut(&reply).filter(|mapping| mapping.peer == asked.src) {
            mapping.tcp.rst = true;
        }
    }

    fn said(&self, parsed: &Parsed, reason: DropReason, mtu: usize) -> Option<Said> {
        use DropReason as R;
        let v4 = parsed.is_v4();
        let unreachable = |code4, code6| Some(Said::Unreachable(if v4 { code4 } else { code6 }));
        match reason {
            R::TtlExceeded => Some(Said::TimeExceeded),
            R::TooBig => Some(Said::TooBig(mtu)),
            R::NoRoute | R::NotUplink => unreachable(0, 0),
            R::PeerQuota | R::PortsExhausted | R::PortShare => unreachable(13, 1),
            R::PolicyDefault | R::PolicyRule if self.network.reject => unreachable(13, 1),
            _ => None,
        }
    }

    fn error(&mut self, frame: &[u8], parsed: &Parsed, source: std::net::IpAddr, said: Said) -> Outcome {
        if parsed.problem.is_some() || parsed.part == Part::Later {
            return Outcome::Drop;
        }
        self.count(Counter::IcmpErrorsSent, 1);
        let mut error = frame[..ETH].to_vec();
        error.extend(rewrite::own_error(&frame[ETH..], parsed, source, said));
        Outcome::Redirect(error)
    }

    fn onward(&self, frame: &[u8], parsed: &Parsed, tuple: Tuple) -> Vec<u8> {
        let segment = parsed.tcp;
        let mut reset = frame[..ETH].to_vec();
        reset.extend(rewrite::own_reset(tuple, segment.seq, segment.ack, RST | ACK));
        reset
    }
}

fn is_segment(parsed: &Parsed) -> bool {
    parsed.tuple.protocol == TCP && parsed.problem.is_none() && parsed.part == Part::All
}

fn is_said_by_reset(parsed: &Parsed, reason: DropReason) -> bool {
    use DropReason as R;
    let applies = match reason {
        R::PolicyDefault | R::PolicyRule => true,
        R::PeerQuota | R::PortsExhausted | R::PortShare => parsed.tcp_flags & (ACK | SYN) == ACK,
        _ => false,
    };
    applies && is_segment(parsed)
}

fn back(frame: &[u8], parsed: &Parsed) -> Vec<u8> {
    let segment = parsed.tcp;
    let marks = [SYN, FIN].iter().filter(|flag| parsed.tcp_flags & **flag != 0).count() as u32;
    let (seq, ack, flags) = match parsed.tcp_flags & ACK {
        0 => (0, segment.seq.wrapping_add(segment.data).wrapping_add(marks), RST | ACK),
        _ => (segment.ack, 0, RST),
    };
    let mut reset = frame[..ETH].to_vec();
    reset.extend(rewrite::own_reset(parsed.tuple.reversed(), seq, ack, flags));
    reset
}
