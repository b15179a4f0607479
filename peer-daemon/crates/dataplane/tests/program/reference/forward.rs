//! The three places where packets pass.

use peer_common::{Counter, DropReason, FlowKind};

use super::parse::{Parsed, Quoted, Tuple, parse, quoted};
use super::rewrite::{self, End};
use super::{Outcome, RefFlow, Reference, reply_of};
use crate::wire::{ETH, ICMP, ICMPV6};

/// Why a packet goes no further, and the MTU that was too small for it.
type Refusal = (DropReason, usize);

impl Reference {
    /// A frame from the mesh.
    pub(crate) fn arrive_from_mesh(&mut self, frame: &[u8], gso: usize) -> Outcome {
        let Some(mut parsed) = parse(&frame[ETH..]) else {
            self.count_drop(DropReason::Malformed, frame.len());
            return Outcome::Drop;
        };
        match self.out(frame, &mut parsed, gso) {
            Ok(outcome) => outcome,
            Err((reason, mtu)) => {
                self.count_drop(reason, frame.len());
                self.answer_peer(frame, &parsed, reason, mtu)
            }
        }
    }

    fn out(&mut self, frame: &[u8], parsed: &mut Parsed, gso: usize) -> Result<Outcome, Refusal> {
        self.judged_again = false;
        self.complete(parsed);
        if parsed.problem == Some(DropReason::IcmpType)
            && let Some(quoted) = quoted(&frame[ETH..], parsed)
        {
            match self.flows.get(&quoted.tuple.reversed()).copied() {
                Some(flow) => return self.error_out(frame, parsed, &quoted, &flow),
                None => parsed.problem = Some(DropReason::IcmpUnmatched),
            }
        }
        let tuple = parsed.tuple;
        let known = if parsed.problem.is_none() { self.flows.get(&tuple).copied() } else { None };
        match known {
            Some(flow) if flow.generation == self.generation => {}
            Some(flow) => self.judge_again(tuple, flow)?,
            None => {
                if self.open(parsed).map_err(plain)?.is_none() {
                    self.count(Counter::ToNode, 1);
                    return Ok(Outcome::Next(frame.to_vec()));
                }
            }
        }
        self.follow(frame, parsed, gso)
    }

    fn judge_again(&mut self, tuple: Tuple, flow: RefFlow) -> Result<(), Refusal> {
        self.count(Counter::FlowsRejudged, 1);
        let generation = self.generation;
        if flow.kind == FlowKind::FromNode {
            self.peer_of(tuple.src.0).ok_or((DropReason::ForeignSource, 0))?;
            self.flows.get_mut(&tuple).expect("known").generation = generation;
            return Ok(());
        }
        self.judged_again = true;
        let accepted = self.judge(tuple, None).map_err(plain)?;
        let same = accepted.kind == flow.kind || flow.kind == FlowKind::FromLan && accepted.kind == FlowKind::Routed;
        if !same {
            self.forget(tuple);
            return Err((DropReason::SourceChanged, 0));
        }
        let flow = self.flows.get_mut(&tuple).expect("known");
        (flow.peer, flow.route, flow.generation) = (accepted.peer, accepted.route.map(|route| route.id), generation);
        Ok(())
    }

    /// Opens a flow; `None`: the node takes the packet without one.
    fn open(&mut self, parsed: &Parsed) -> Result<Option<()>, DropReason> {
        let tuple = parsed.tuple;
        let accepted = self.judge(tuple, parsed.problem)?;
        let opens = parsed.is_query || !matches!(tuple.protocol, ICMP | ICMPV6);
        if parsed.problem.is_some() || !opens {
            return if accepted.route.is_none() { Ok(None) } else { Err(DropReason::IcmpType) };
        }
        if self.peer_flows.get(&accepted.peer).copied().unwrap_or(0) >= self.network.quota {
            return Err(DropReason::PeerQuota);
        }
        let mut flow = self.begin(tuple, accepted.kind);
        flow.peer = accepted.peer;
        if let Some(route) = accepted.route {
            flow.route = Some(route.id);
            flow.by_uplink = route.served;
            match (route.served, route.masquerade) {
                (false, true) => return Err(DropReason::NotUplink),
                (false, false) => {}
                (true, true) => {
                    flow.nat.0 = self.network.uplink[usize::from(!parsed.is_v4())];
                    self.allocate(parsed, &mut flow)?;
                }
                (true, false) => self.map_as_is(tuple, &flow),
            }
        }
        self.opened(tuple, flow);
        self.flows.insert(tuple, flow);
        Ok(Some(()))
    }

    fn map_as_is(&mut self, tuple: Tuple, flow: &RefFlow) {
        if !self.mappings.contains_key(&tuple.reversed()) {
            self.map(tuple.reversed(), tuple, flow);
        }
    }

    fn follow(&mut self, frame: &[u8], parsed: &Parsed, gso: usize) -> Result<Outcome, Refusal> {
        let tuple = parsed.tuple;
        self.remember(parsed);
        let flow = self.flows[&tuple];
        if flow.aged && !matches!(flow.kind, FlowKind::ToNode | FlowKind::FromNode) && !self.reassert(tuple, &flow) {
            self.forget(tuple);
            return Err((DropReason::SourceChanged, 0));
        }
        let segments = segments(parsed, gso);
        if !flow.by_uplink {
            self.touch_out(parsed, segments);
            self.count(if flow.route.is_none() { Counter::ToNode } else { Counter::ToStack }, segments);
            return Ok(Outcome::Next(frame.to_vec()));
        }
        if parsed.ttl <= 1 {
            return Err((DropReason::TtlExceeded, 0));
        }
        if !fits(parsed, gso, self.network.uplink_mtu) {
            return Err((DropReason::TooBig, self.network.uplink_mtu));
        }
        self.touch_out(parsed, segments);
        self.count(Counter::ForwardedOut, segments);
        let mut frame = frame.to_vec();
        rewrite::decrement_ttl(&mut frame);
        self.clamp(&mut frame, parsed, self.network.uplink_mtu.min(self.network.wt0_mtu));
        if flow.kind == FlowKind::Masqueraded {
            rewrite::translate(&mut frame, parsed, End::Source, flow.nat);
        }
        Ok(Outcome::Redirect(frame))
    }

    fn reassert(&mut self, tuple: Tuple, flow: &RefFlow) -> bool {
        let reply = reply_of(tuple, flow.nat);
        match self.mappings.get(&reply) {
            Some(owner) => owner.peer == tuple.src,
            None => {
                self.count(Counter::MappingsHealed, 1);
                self.map(reply, tuple, flow);
                true
            }
        }
    }

    fn touch_out(&mut self, parsed: &Parsed, segments: u64) {
        let flow = self.flows.get_mut(&parsed.tuple).expect("known");
        flow.packets += segments;
        flow.bytes += parsed.len as u64;
        flow.aged = false;
        self.see_out(parsed);
    }

    fn clamp(&mut self, frame: &mut [u8], parsed: &Parsed, mtu: usize) {
        if rewrite::clamp(frame, parsed, mtu) {
            self.count(Counter::MssClamped, 1);
        }
    }

    fn error_out(
        &mut self,
        frame: &[u8],
        parsed: &Parsed,
        quoted: &Quoted,
        flow: &RefFlow,
    ) -> Result<Outcome, Refusal> {
        let teller = self.peer_of(parsed.tuple.src.0).ok_or((DropReason::ForeignSource, 0))?;
        let told = self.peer_of(quoted.tuple.dst.0);
        if told != Some(teller) || parsed.tuple.dst.0 != quoted.tuple.src.0 {
            return Err((DropReason::IcmpUnmatched, 0));
        }
        if flow.generation != self.generation && flow.kind != FlowKind::FromNode {
            self.judge(quoted.tuple.reversed(), None).map_err(plain)?;
        }
        let asked = quoted.tuple.reversed();
        if flow.route.is_some() && !self.on_the_way(quoted, asked, reply_of(asked, flow.nat), false) {
            return Err((DropReason::IcmpUnmatched, 0));
        }
        if !flow.by_uplink {
            self.count(Counter::IcmpErrors, 1);
            return Ok(Outcome::Next(frame.to_vec()));
        }
        if parsed.ttl <= 1 {
            return Err((DropReason::TtlExceeded, 0));
        }
        self.count(Counter::IcmpErrors, 1);
        let mut frame = frame.to_vec();
        rewrite::decrement_ttl(&mut frame);
        if flow.kind == FlowKind::Masqueraded {
            rewrite::translate_error(&mut frame, parsed, quoted, End::Source, flow.nat);
        }
        Ok(Outcome::Redirect(frame))
    }

    /// A frame that arrives on the uplink.
    pub(crate) fn arrive_on_uplink(&mut self, frame: &[u8], gso: usize) -> Outcome {
        let Some((parsed, reply, quoted)) = self.ours(frame) else {
            self.count(Counter::UplinkNext, 1);
            return Outcome::Next(frame.to_vec());
        };
        match self.back(frame, &parsed, reply, quoted.as_ref(), gso) {
            Ok(outcome) => outcome,
            Err((reason, mtu)) => {
                self.count_drop(reason, parsed.len);
                self.answer_lan(frame, &parsed, reply, (reason, mtu))
            }
        }
    }

    fn ours(&self, frame: &[u8]) -> Option<(Parsed, Tuple, Option<Quoted>)> {
        let mut parsed = parse(&frame[ETH..])?;
        if frame[12..14] != if parsed.is_v4() { [0x08, 0x00] } else { [0x86, 0xdd] } {
            return None;
        }
        self.complete(&mut parsed);
        let quote = match parsed.problem {
            None => None,
            Some(DropReason::IcmpType) => {
                let quote = quoted(&frame[ETH..], &parsed)?;
                (quote.tuple.src.0 == parsed.tuple.dst.0).then_some(())?;
                Some(quote)
            }
            Some(_) => return None,
        };
        let reply = quote.map_or(parsed.tuple, |quote| quote.tuple.reversed());
        self.mappings.contains_key(&reply).then_some((parsed, reply, quote))
    }

    fn back(
        &mut self,
        frame: &[u8],
        parsed: &Parsed,
        reply: Tuple,
        quoted: Option<&Quoted>,
        gso: usize,
    ) -> Result<Outcome, Refusal> {
        self.judged_again = false;
        if quoted.is_none() {
            self.remember(parsed);
        }
        self.judge_reply(reply)?;
        if let Some(quoted) = quoted {
            let asked = Tuple { src: self.mappings[&reply].peer, dst: reply.src, protocol: reply.protocol };
            if !self.on_the_way(quoted, asked, reply, true) {
                return Err((DropReason::IcmpUnmatched, 0));
            }
        }
        if parsed.ttl <= 1 {
            return Err((DropReason::TtlExceeded, 0));
        }
        let mapping = self.mappings[&reply];
        let masqueraded = mapping.kind == FlowKind::Masqueraded;
        let mut frame_out = frame.to_vec();
        if let Some(quoted) = quoted {
            self.count(Counter::IcmpErrors, 1);
            rewrite::decrement_ttl(&mut frame_out);
            if masqueraded {
                rewrite::translate_error(&mut frame_out, parsed, quoted, End::Destination, mapping.peer);
            }
            return Ok(Outcome::Redirect(frame_out));
        }
        if parsed.whole && !fits(parsed, gso, self.network.wt0_mtu) {
            return Err((DropReason::TooBig, self.network.wt0_mtu));
        }
        let segments = segments(parsed, gso);
        let touched = self.mappings.get_mut(&reply).expect("known");
        touched.packets += segments;
        touched.bytes += parsed.len as u64;
        self.see_in(parsed, reply);
        self.count(Counter::ForwardedIn, segments);
        rewrite::decrement_ttl(&mut frame_out);
        self.clamp(&mut frame_out, parsed, self.network.uplink_mtu.min(self.network.wt0_mtu));
        if masqueraded {
            rewrite::translate(&mut frame_out, parsed, End::Destination, mapping.peer);
        }
        Ok(Outcome::Redirect(frame_out))
    }

    fn judge_reply(&mut self, reply: Tuple) -> Result<(), Refusal> {
        let mapping = self.mappings[&reply];
        if mapping.generation == self.generation {
            return Ok(());
        }
        let forward = Tuple { src: mapping.peer, dst: reply.src, protocol: reply.protocol };
        let route = match self.flows.get(&forward) {
            Some(flow) if flow.generation == self.generation => flow.route,
            _ => {
                self.count(Counter::FlowsRejudged, 1);
                self.judged_again = true;
                self.judge(forward, None).map_err(plain)?.route.map(|route| route.id)
            }
        };
        let generation = self.generation;
        let mapping = self.mappings.get_mut(&reply).expect("known");
        (mapping.route, mapping.generation) = (route, generation);
        Ok(())
    }

    /// A frame of the node, or of the LAN, towards the mesh.
    pub(crate) fn leave_to_mesh(&mut self, frame: &[u8], gso: usize) -> Outcome {
        let sent = match parse(&frame[ETH..]) {
            None => Err(DropReason::Malformed),
            Some(mut parsed) => self.send(frame, &mut parsed, gso),
        };
        match sent {
            Ok(frame) => Outcome::Next(frame),
            Err(reason) => {
                self.count_drop(reason, frame.len());
                Outcome::Drop
            }
        }
    }

    fn send(&mut self, frame: &[u8], parsed: &mut Parsed, gso: usize) -> Result<Vec<u8>, DropReason> {
        self.complete(parsed);
        let own = self.network.locals.contains_key(&parsed.tuple.src.0);
        self.count(Counter::FromNode, segments(parsed, gso));
        if let Some(problem) = parsed.problem {
            return if own { Ok(frame.to_vec()) } else { Err(problem) };
        }
        let route = if own { None } else { Some(self.route_to(parsed.tuple.src.0).ok_or(DropReason::NoRoute)?) };
        self.remember(parsed);
        let mut frame = frame.to_vec();
        self.clamp(&mut frame, parsed, self.network.wt0_mtu);
        // Flows stand under the tuple that enters from the mesh.
        let tuple = parsed.tuple.reversed();
        if let Some(flow) = self.flows.get_mut(&tuple) {
            flow.aged = false;
            return Ok(frame);
        }
        if route.is_some_and(|route| route.masquerade) {
            return Err(DropReason::NoRoute);
        }
        let kind = if route.is_none() { FlowKind::FromNode } else { FlowKind::FromLan };
        let mut flow = self.begin(tuple, kind);
        if let Some(route) = route {
            flow.route = Some(route.id);
            self.map_as_is(tuple, &flow);
        }
        self.opened(tuple, flow);
        self.flows.insert(tuple, flow);
        Ok(frame)
    }
}

fn plain(reason: DropReason) -> Refusal {
    (reason, 0)
}

fn segments(parsed: &Parsed, gso: usize) -> u64 {
    if gso == 0 {
        return 1;
    }
    (parsed.len.saturating_sub(parsed.headers)).div_ceil(gso).max(1) as u64
}

fn fits(parsed: &Parsed, gso: usize, mtu: usize) -> bool {
    let len = if gso == 0 { parsed.len } else { parsed.headers + gso };
    len <= mtu
}
