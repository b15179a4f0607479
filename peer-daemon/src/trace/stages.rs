//! The stages that a packet came to, in words. Pure.

use std::fmt::Write as _;

use peer_common::{Addr, DropReason, FlowEvent, FlowKey, FlowKind, Judged, Way};
use peer_dataplane::observe::drop_reason;
use peer_dataplane::trace::{Stage, explain};

use super::report::{Context, RuleShown, Step, ends, kind, nat};
use crate::flows::protocol_name;

/// All stages up to the one where it is dropped, or to the last.
pub(super) fn steps(event: &FlowEvent, context: &Context<'_>) -> Vec<Step> {
    let dropped = drop_reason(event.verdict);
    let end = dropped.map(|reason| explain(reason).stage);
    let all = match event.way {
        way if way == Way::FromMesh as u8 => from_mesh(event, context),
        way if way == Way::ToMesh as u8 => to_mesh(event),
        way if way == Way::FromUplink as u8 => from_uplink(event, context),
        _ => unmatched(event),
    };
    let passed = all.into_iter().take_while(|(stage, _)| end.is_none_or(|end| *stage < end));
    let mut steps: Vec<_> = passed.map(|(stage, text)| step(stage, "passed", text)).collect();
    if let Some(reason) = dropped {
        steps.push(step(explain(reason).stage, "dropped", drop_text(event, reason, context)));
    }
    steps
}

type Passed = Vec<(Stage, String)>;

fn step(stage: Stage, outcome: &str, text: String) -> Step {
    Step { stage: stage.name().to_owned(), outcome: outcome.to_owned(), text }
}

fn from_mesh(event: &FlowEvent, context: &Context<'_>) -> Passed {
    let (peer, destination) = ends(event);
    let kind = kind(event);
    let mut steps = vec![(Stage::Parse, packet_text(event)), (Stage::Flow, flow_text(event))];
    let owner = context.peer_key(peer.address).unwrap_or_else(|| "that is gone".to_owned());
    steps.push((Stage::Source, format!("{} is an address of the peer {owner}", peer.address)));
    if kind == Some(FlowKind::FromNode) {
        steps.push((Stage::Send, "the node has opened this flow: its answers pass, and no rule is asked".to_owned()));
        return steps;
    }
    steps.push((Stage::Destination, format!("{} is none of those that are always denied", destination.address)));
    let route = context.observer.route(event.route_id);
    steps.push((
        Stage::Route,
        match (route, kind) {
            (Some(route), Some(FlowKind::Masqueraded)) => format!("{route} covers it; the source is replaced"),
            (Some(route), _) => format!("{route} covers it; the source is kept"),
            (None, _) => "it is for the node itself".to_owned(),
        },
    ));
    steps.push((Stage::Policy, policy_text(event, context)));
    if event.judged == Judged::New as u8 && kind.is_some() {
        steps.push((Stage::Quota, "the peer may have one flow more".to_owned()));
    }
    match context.observer.device(event.uplink) {
        None if route.is_none() => steps.push((Stage::Send, "handed to the node's own stack".to_owned())),
        None => {
            steps.push((Stage::Uplink, "the kernel's route leaves by no uplink of ours".to_owned()));
            steps.push((Stage::Send, "handed to the kernel's own forwarding, source kept".to_owned()));
        }
        Some(device) => {
            steps.push((Stage::Uplink, hop_text(event, &device)));
            if let Some(nat) = nat(event) {
                steps.push((Stage::Nat, format!("{peer} leaves as {nat}")));
            }
            steps.extend(last_steps(event, &format!("redirected out of {device}")));
        }
    }
    steps
}

fn to_mesh(event: &FlowEvent) -> Passed {
    let flow = match kind(event) {
        Some(FlowKind::FromNode) => "opened by the node: answers to it pass".to_owned(),
        Some(FlowKind::FromLan) => "opened by the LAN on a route that keeps sources: answers to it pass".to_owned(),
        Some(_) => "answers a flow that the peer has opened".to_owned(),
        None => "of no flow".to_owned(),
    };
    let send = "to the mesh device, for the peer that owns the address".to_owned();
    vec![(Stage::Parse, packet_text(event)), (Stage::Flow, flow), (Stage::Send, send)]
}

fn from_uplink(event: &FlowEvent, context: &Context<'_>) -> Passed {
    let (peer, _) = ends(event);
    let owner = context.peer_key(peer.address).map_or_else(String::new, |key| format!(" of the peer {key}"));
    let mut steps = vec![
        (Stage::Parse, packet_text(event)),
        (Stage::Flow, format!("answers a flow{owner}")),
        (Stage::Policy, policy_text(event, context)),
    ];
    if let Some(nat) = nat(event) {
        steps.push((Stage::Nat, format!("{nat} becomes {peer} again")));
    }
    steps.extend(last_steps(event, "redirected to the mesh device"));
    steps
}

fn unmatched(event: &FlowEvent) -> Passed {
    let flow = "answers no flow of ours: it goes on, untouched, to whoever is attached next".to_owned();
    vec![(Stage::Parse, packet_text(event)), (Stage::Flow, flow)]
}

fn last_steps(event: &FlowEvent, sent: &str) -> Passed {
    let mtu = if event.way == Way::FromMesh as u8 { format!("an MTU of {}", event.mtu) } else { "the mesh".to_owned() };
    vec![
        (Stage::HopLimit, format!("{} hops are left, one is taken", event.ttl)),
        (Stage::Mtu, format!("{} bytes fit {mtu}", event.len)),
        (Stage::Send, sent.to_owned()),
    ]
}

fn packet_text(event: &FlowEvent) -> String {
    if event.key == FlowKey::default() {
        return "headers are read".to_owned();
    }
    let (peer, destination) = ends(event);
    let protocol = protocol_name(u8::try_from(event.key.protocol).unwrap_or(u8::MAX));
    let (from, to) = if event.way == Way::FromMesh as u8 { (peer, destination) } else { (destination, peer) };
    let mut text = format!("{protocol} {from} → {to}, {} bytes, hop limit {}", event.len, event.ttl);
    if event.key.protocol == 6 {
        let names = [(0x02, "SYN"), (0x10, "ACK"), (0x01, "FIN"), (0x04, "RST")];
        let flags: Vec<_> = names.iter().filter(|(bit, _)| event.tcp_flags & bit != 0).map(|(_, name)| *name).collect();
        // A string takes everything.
        let _ = write!(text, ", {}", if flags.is_empty() { "no flags".to_owned() } else { flags.join(" ") });
    }
    text
}

fn flow_text(event: &FlowEvent) -> String {
    let known = format!("known, {} packets so far", event.packets);
    match event.judged {
        judged if judged == Judged::Again as u8 => format!("{known}, from an earlier policy: judged again"),
        judged if judged == Judged::New as u8 => "not known yet: rules are asked".to_owned(),
        _ if kind(event).is_some() => format!("{known}: what was decided then holds"),
        _ => "looked up".to_owned(),
    }
}

fn hop_text(event: &FlowEvent, device: &str) -> String {
    let next_hop = if event.next_hop == Addr::NONE {
        "the kernel looks the next hop up".to_owned()
    } else {
        format!("next hop {}", std::net::IpAddr::from(event.next_hop))
    };
    format!("{device}, {next_hop}, MTU {}", event.mtu)
}

fn policy_text(event: &FlowEvent, context: &Context<'_>) -> String {
    let rule = context.rule(event.policy_id);
    let shown = |RuleShown { id, text, .. }: RuleShown| format!("rule {id}: {text}");
    if event.judged == Judged::Not as u8 {
        let by = rule.map_or_else(|| "without a rule".to_owned(), |rule| format!("by {}", shown(rule)));
        return format!("accepted when the flow was opened, {by}");
    }
    let by = rule.map_or_else(|| "no rule".to_owned(), shown);
    format!("{by} ({})", numbers(event))
}

fn numbers(event: &FlowEvent) -> String {
    format!("identity {}, class {}, generation {}", event.identity, event.class, event.policy_generation)
}

fn drop_text(event: &FlowEvent, reason: DropReason, context: &Context<'_>) -> String {
    let mut text = format!("{}: {}", reason.name(), reason.help().trim());
    let detail = match reason {
        DropReason::PolicyDefault => Some(numbers(event)),
        DropReason::PolicyRule => context.rule(event.policy_id).map(|rule| format!("rule {}: {}", rule.id, rule.text)),
        DropReason::TooBig => Some(format!("{} bytes, MTU {}", event.len, event.mtu)),
        DropReason::TtlExceeded => Some(format!("hop limit {}", event.ttl)),
        DropReason::NotUplink => context.observer.device(event.uplink),
        _ => None,
    };
    if let Some(detail) = detail {
        // A string takes everything.
        let _ = write!(text, " ({detail})");
    }
    text
}
