//! Ports: which one a flow gets, how many a peer may have, and which mapping gives its own away.

use std::collections::BTreeMap;
use std::net::IpAddr;

use peer_common::hash::siphash13;
use peer_common::{Addr, Counter, DropReason, FlowKind};

use super::parse::{Parsed, Tuple};
use super::{RefFlow, Reference, reply_of};
use crate::wire::{ICMP, ICMPV6, TCP};

const SECOND: u64 = 1_000_000_000;

/// What time has done to the tables: the reference has no clock of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times {
    pub(crate) now: u64,
    /// Last use of each flow.
    pub(crate) flows: BTreeMap<Tuple, u64>,
    /// Last use of each mapping.
    pub(crate) mappings: BTreeMap<Tuple, u64>,
}

/// Ports in use, by place of the counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ports {
    remotes: BTreeMap<u32, u32>,
    members: BTreeMap<u32, u32>,
}

impl Reference {
    /// Chooses a port by the documented hash and probes. Takes the mapping.
    pub(super) fn allocate(&mut self, parsed: &Parsed, flow: &mut RefFlow) -> Result<(), DropReason> {
        let tuple = parsed.tuple;
        let (min, range) = (u32::from(self.network.ports.0), u32::from(self.network.ports.1));
        let hash = port_hash(self.network.hash_key, tuple);
        let wanted = u32::from(tuple.src.1);
        let keep = !matches!(tuple.protocol, ICMP | ICMPV6) && (min..min + range).contains(&wanted);
        let start = if keep { wanted - min } else { hash as u32 % range };
        let step = 1 + (hash >> 32) as u32 % (range - 1);
        let port = |probe: u64| {
            let offset = (u64::from(start) + probe * u64::from(step)) % u64::from(range);
            (min + offset as u32) as u16
        };
        let bound = self.is_bound(tuple, flow);
        let free = if bound { 0 } else { 32 };
        for probe in 0..free {
            if self.take(tuple, flow, port(probe)) {
                return Ok(());
            }
        }
        let mut best: Option<(u8, u64, Tuple)> = None;
        let mut found = 0;
        for probe in free..free + 128 {
            let reply = reply_of(tuple, (flow.nat.0, port(probe)));
            if !self.mappings.contains_key(&reply) {
                if !bound && self.take(tuple, flow, port(probe)) {
                    return Ok(());
                }
                continue;
            }
            let Some((tier, age, old)) = self.reusable(parsed, flow, reply, bound) else { continue };
            found += 1;
            if best.is_none_or(|best| (tier, age) > (best.0, best.1)) {
                best = Some((tier, age, old));
            }
            if found == 8 {
                break;
            }
        }
        let Some((_, _, old)) = best else {
            return Err(if bound { DropReason::PortShare } else { DropReason::PortsExhausted });
        };
        flow.nat.1 = self.flows[&old].nat.1;
        self.forget(old);
        self.count(Counter::PortsReused, 1);
        self.map(reply_of(tuple, flow.nat), tuple, flow);
        Ok(())
    }

    fn take(&mut self, tuple: Tuple, flow: &mut RefFlow, port: u16) -> bool {
        let reply = reply_of(tuple, (flow.nat.0, port));
        match self.mappings.get_mut(&reply) {
            None => self.map(reply, tuple, flow),
            Some(owner) if owner.peer == tuple.src => owner.generation = flow.generation,
            Some(_) => {
                self.count(Counter::PortProbes, 1);
                return false;
            }
        }
        flow.nat.1 = port;
        true
    }

    /// How good a mapping is for a flow that finds no free port, its age, and whose it is.
    fn reusable(&self, new: &Parsed, flow: &RefFlow, reply: Tuple, bound: bool) -> Option<(u8, u64, Tuple)> {
        let mapping = &self.mappings[&reply];
        let owner = Tuple { src: mapping.peer, dst: reply.src, protocol: reply.protocol };
        let old = self.flows.get(&owner)?;
        let own = old.peer == flow.peer;
        if old.kind != FlowKind::Masqueraded || old.nat != reply.dst || bound && !own {
            return None;
        }
        let age = |then: u64| self.times.now.wrapping_sub(then).cast_signed().max(0).cast_unsigned();
        let age = age(self.times.flows[&owner]).min(age(self.times.mappings[&reply]));
        if reply.protocol != TCP {
            return (mapping.packets == 0 && age >= 30 * SECOND).then_some((2, age, owner));
        }
        let (there, back) = (old.tcp, mapping.tcp);
        let reset = there.rst || back.rst;
        let closed = there.fin && back.fin;
        let unanswered = there.syn && !there.ack && mapping.packets == 0;
        let stamps = new.tcp.timestamp.zip(old.timestamp);
        let later = stamps.is_some_and(|(new, old)| new.wrapping_sub(old).cast_signed() > 0);
        let safe = there.fin_first || age >= 60 * SECOND || later;
        let is_syn = new.tcp_flags & 0x12 == 0x02;
        let gone = reset || if closed { safe } else { unanswered };
        let tier = match () {
            () if age < 2 * SECOND => 0,
            () if !reset && closed && !own => 1,
            () => 2,
        };
        (is_syn && gone).then_some((tier, age, owner))
    }

    fn is_bound(&self, tuple: Tuple, flow: &RefFlow) -> bool {
        let (remote, member) = places(self.network.hash_key, tuple, flow);
        let range = u32::from(self.network.ports.1);
        let used = |counts: &BTreeMap<u32, u32>, place| counts.get(&place).copied().unwrap_or(0);
        used(&self.ports.remotes, remote) * 4 >= range * 3 && used(&self.ports.members, member) >= (range / 8).max(1)
    }

    /// Counts a port as taken, or as given back.
    pub(super) fn count_port(&mut self, tuple: Tuple, flow: &RefFlow, taken: bool) {
        if flow.kind != FlowKind::Masqueraded {
            return;
        }
        let (remote, member) = places(self.network.hash_key, tuple, flow);
        for count in [self.ports.remotes.entry(remote).or_default(), self.ports.members.entry(member).or_default()] {
            *count = if taken { *count + 1 } else { count.saturating_sub(1) };
        }
    }
}

/// Where ports towards a remote are counted, and those that the flow's peer has there.
fn places(key: [u64; 2], tuple: Tuple, flow: &RefFlow) -> (u32, u32) {
    let ends = u64::from(tuple.dst.1.to_be()) << 16 | u64::from(tuple.protocol);
    let [dst, nat] = [words(tuple.dst.0), words(flow.nat.0)];
    let hash = siphash13(key, [dst[0], dst[1], nat[0], nat[1], ends]);
    let member = ((hash >> 32) as u32).wrapping_add(flow.peer.wrapping_mul(0x9e37_79b1));
    (hash as u32 & 0xffff, member & 0xffff)
}

fn port_hash(key: [u64; 2], tuple: Tuple) -> u64 {
    let [src, dst] = [words(tuple.src.0), words(tuple.dst.0)];
    let ports = u64::from(tuple.src.1.to_be()) << 32 | u64::from(tuple.dst.1.to_be()) << 16;
    siphash13(key, [src[0], src[1], dst[0], dst[1], ports | u64::from(tuple.protocol)])
}

fn words(addr: IpAddr) -> [u64; 2] {
    let words = Addr::from(addr).words;
    [0, 2].map(|at| u64::from(words[at]) << 32 | u64::from(words[at + 1]))
}
