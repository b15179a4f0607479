//! What became of a packet, as JSON and as text. Fields of the JSON are only ever added.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use peer_common::route::NO_ROUTE;
use peer_common::{DropReason, FlowEvent, FlowKey, FlowKind, Way};
use peer_core::desired::{Action, Rule};
use peer_dataplane::Configuration;
use peer_dataplane::flows::{KINDS, kind_name};
use peer_dataplane::observe::{Observer, drop_reason};
use peer_dataplane::trace::{RuleText, remedy};
use serde::{Deserialize, Serialize};

use super::stages;
use crate::admin::Known;
use crate::flows::{Place, protocol_name};

/// All of it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Report {
    /// `forwarded`, `to_node`, `to_stack`, `to_mesh`, `passed_on`, `dropped`.
    pub(super) verdict: String,
    /// Why it is dropped: the label of `peer_dropped_packets_total`.
    pub(super) reason: Option<String>,
    /// What that means.
    pub(super) explanation: Option<String>,
    pub(super) remedy: Option<String>,
    /// `wt0_ingress`, `wt0_egress`, `uplink_ingress`.
    pub(super) program: String,
    /// Absent: the packet could not be read.
    pub(super) protocol: Option<String>,
    /// The end in the mesh.
    pub(super) peer: Option<Place>,
    pub(super) peer_key: Option<String>,
    pub(super) destination: Option<Place>,
    /// What becomes of the flow; absent: there is none.
    pub(super) kind: Option<String>,
    /// The rule that decided.
    pub(super) rule: Option<RuleShown>,
    pub(super) route: Option<IpNet>,
    pub(super) uplink: Option<String>,
    pub(super) nat: Option<Place>,
    pub(super) policy_generation: u32,
    pub(super) stages: Vec<Step>,
    /// `CLOCK_MONOTONIC` of the node, nanoseconds.
    pub(super) time_ns: u64,
}

/// A rule.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct RuleShown {
    pub(super) id: u32,
    /// `accept`, `drop`; absent: there is no such rule any more.
    pub(super) action: Option<String>,
    pub(super) text: String,
}

/// A stage that the packet came to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Step {
    pub(super) stage: String,
    /// `passed`, `dropped`.
    pub(super) outcome: String,
    pub(super) text: String,
}

/// What numbers stand for.
pub(super) struct Context<'a> {
    pub(super) known: &'a Known,
    pub(super) observer: &'a Observer,
    pub(super) configuration: Configuration,
}

impl Context<'_> {
    pub(super) fn peer_key(&self, addr: IpAddr) -> Option<String> {
        self.known.peers.get(self.observer.owner(addr)?).map(ToString::to_string)
    }

    pub(super) fn rule(&self, id: u32) -> Option<RuleShown> {
        let shown = |rule: &Arc<Rule>| RuleShown {
            id,
            action: Some(if rule.action == Action::Accept { "accept" } else { "drop" }.to_owned()),
            text: RuleText(rule).to_string(),
        };
        let gone = || RuleShown { id, action: None, text: "it is gone meanwhile".to_owned() };
        (id != 0).then(|| self.known.rules.iter().find(|rule| rule.id == id).map_or_else(gone, shown))
    }
}

impl Report {
    pub(super) fn new(event: &FlowEvent, context: &Context<'_>) -> Self {
        let reason = drop_reason(event.verdict);
        let readable = event.key != FlowKey::default();
        let (peer, destination) = ends(event);
        let kind = kind(event);
        Self {
            verdict: verdict(event, reason).to_owned(),
            reason: reason.map(|reason| reason.name().to_owned()),
            explanation: reason.map(|reason| reason.help().trim().to_owned()),
            remedy: reason.map(|reason| remedy(reason, context.configuration).to_owned()),
            program: program(event).to_owned(),
            protocol: readable.then(|| protocol_name(u8::try_from(event.key.protocol).unwrap_or(u8::MAX))),
            peer: readable.then_some(peer),
            peer_key: if readable { context.peer_key(peer.address) } else { None },
            destination: readable.then_some(destination),
            kind: kind.map(|kind| kind_name(kind).to_owned()),
            rule: context.rule(event.policy_id),
            route: if event.route_id == NO_ROUTE { None } else { context.observer.route(event.route_id) },
            uplink: context.observer.device(event.uplink),
            nat: nat(event),
            policy_generation: event.policy_generation,
            stages: stages::steps(event, context),
            time_ns: event.time,
        }
    }

    pub(super) fn dropped(&self) -> bool {
        self.reason.is_some()
    }
}

/// The end in the mesh, and the other one.
pub(super) fn ends(event: &FlowEvent) -> (Place, Place) {
    let place = |addr: peer_common::Addr, port| Place { address: addr.into(), port: u16::from_be(port) };
    (place(event.key.src, event.key.src_port), place(event.key.dst, event.key.dst_port))
}

pub(super) fn kind(event: &FlowEvent) -> Option<FlowKind> {
    KINDS.iter().map(|(_, kind)| *kind).find(|kind| *kind as u8 == event.kind)
}

/// What stands for the peer's end in the LAN.
pub(super) fn nat(event: &FlowEvent) -> Option<Place> {
    let translated = kind(event) == Some(FlowKind::Masqueraded) && !event.nat_addr.is_none() && event.nat_port != 0;
    translated.then(|| Place { address: event.nat_addr.into(), port: u16::from_be(event.nat_port) })
}

fn program(event: &FlowEvent) -> &'static str {
    match event.way {
        way if way == Way::FromMesh as u8 => "wt0_ingress",
        way if way == Way::ToMesh as u8 => "wt0_egress",
        _ => "uplink_ingress",
    }
}

fn verdict(event: &FlowEvent, reason: Option<DropReason>) -> &'static str {
    if reason.is_some() {
        return "dropped";
    }
    match (event.way, kind(event)) {
        (way, _) if way == Way::ToMesh as u8 || way == Way::FromUplink as u8 => "to_mesh",
        (way, _) if way == Way::Unmatched as u8 => "passed_on",
        (_, None | Some(FlowKind::ToNode | FlowKind::FromNode)) => "to_node",
        _ if event.uplink == 0 => "to_stack",
        _ => "forwarded",
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.protocol, self.peer, self.destination) {
            (Some(protocol), Some(peer), Some(destination)) => {
                let arrow = if self.program == "wt0_ingress" { ">" } else { "<" };
                write!(f, "{protocol} {peer} {arrow} {destination}")?;
            }
            _ => f.write_str("a packet that cannot be read")?,
        }
        writeln!(f, " at {}: {}", self.program, self.verdict)?;
        for Step { stage, outcome, text } in &self.stages {
            let mark = if outcome == "dropped" { "✗" } else { "✓" };
            writeln!(f, "  {mark} {stage:<13} {text}")?;
        }
        match &self.remedy {
            Some(remedy) => writeln!(f, "  remedy: {remedy}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
