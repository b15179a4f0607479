use peer_dataplane::trace::explain;
use std::sync::Arc;

use peer_common::{Addr, Judged};
use peer_core::desired::{PortRange, Protocol, Scope};
use peer_core::key::PublicKey;

use super::*;

fn known() -> Known {
    let rule = |id, action| Rule {
        id,
        sources: vec!["100.64.0.0/16".parse().expect("a prefix")],
        destinations: vec!["198.51.100.0/24".parse().expect("a prefix")],
        protocol: Protocol::Tcp,
        ports: vec![PortRange { min: 80, max: 80 }],
        action,
        scope: Scope::Both,
    };
    Known {
        addresses: Vec::new(),
        peers: Arc::new([(1, PublicKey([1; 32]))].into()),
        configured: Arc::default(),
        rules: Rule::list([rule(7, Action::Accept), rule(9, Action::Drop)]),
    }
}

fn event(verdict: Option<DropReason>) -> FlowEvent {
    let addr = |text: &str| Addr::from(text.parse::<IpAddr>().expect("an address"));
    FlowEvent {
        key: FlowKey {
            src: addr("100.64.0.10"),
            dst: addr("198.51.100.80"),
            src_port: 40_000_u16.to_be(),
            dst_port: 80_u16.to_be(),
            protocol: 6,
        },
        verdict: verdict.map_or(0, |reason| reason as u32 + 1),
        way: Way::FromMesh as u8,
        judged: Judged::New as u8,
        kind: FlowKind::Masqueraded as u8,
        nat_addr: addr("198.51.100.1"),
        nat_port: 40_000_u16.to_be(),
        uplink: 3,
        policy_id: 7,
        mtu: 1500,
        len: 60,
        ttl: 64,
        tcp_flags: 2,
        ..FlowEvent::default()
    }
}

fn report(event: &FlowEvent) -> Report {
    let observer = Observer::default();
    Report::new(event, &Context { known: &known(), observer: &observer, configuration: Configuration::File })
}

#[test]
fn a_packet_that_passes_comes_to_every_stage() {
    let report = report(&event(None));
    assert_eq!((report.verdict.as_str(), report.dropped()), ("forwarded", false));
    let stages: Vec<_> = report.stages.iter().map(|step| step.stage.as_str()).collect();
    let expected = [
        "parse",
        "flow",
        "source",
        "destination",
        "route",
        "policy",
        "quota",
        "uplink",
        "nat",
        "hop_limit",
        "mtu",
        "send",
    ];
    assert_eq!(stages, expected);
    let rule = report.rule.as_ref().expect("a rule");
    assert_eq!((rule.id, rule.text.as_str()), (7, "100.64.0.0/16 → 198.51.100.0/24, tcp 80: accept"));
    let text = report.to_string();
    assert!(text.starts_with("tcp 100.64.0.10:40000 > 198.51.100.80:80 at wt0_ingress: forwarded\n"), "{text}");
    assert!(text.contains("rule 7: 100.64.0.0/16") && text.contains("leaves as 198.51.100.1:40000"), "{text}");
    let json = serde_json::to_string(&report).expect("JSON");
    assert_eq!(serde_json::from_str::<Report>(&json).expect("the same"), report);
}

#[test]
fn every_drop_ends_at_its_stage_with_explanation_and_remedy() {
    for reason in DropReason::ALL {
        for way in [Way::FromMesh, Way::ToMesh, Way::FromUplink] {
            let report = report(&FlowEvent { way: way as u8, ..event(Some(*reason)) });
            let last = report.stages.last().expect("at least one stage");
            assert_eq!((report.verdict.as_str(), last.outcome.as_str()), ("dropped", "dropped"));
            assert_eq!(last.stage, explain(*reason).stage.name());
            assert!(last.text.starts_with(reason.name()), "{}", last.text);
            assert_eq!(report.reason.as_deref(), Some(reason.name()));
            assert!(report.explanation.as_ref().is_some_and(|text| text.len() > 10), "{reason:?}");
            assert!(report.remedy.as_ref().is_some_and(|text| text.len() > 20), "{reason:?}");
            assert_eq!(report.stages.iter().filter(|step| step.outcome == "dropped").count(), 1);
            assert!(report.to_string().contains("  remedy: "));
        }
    }
}

#[test]
fn the_rule_that_drops_is_named_and_one_that_is_gone_is_said_to_be() {
    let by = |id| report(&FlowEvent { policy_id: id, ..event(Some(DropReason::PolicyRule)) });
    let last = by(9).stages.pop().expect("a stage");
    assert!(last.text.contains("rule 9: 100.64.0.0/16") && last.text.contains("drop)"), "{}", last.text);
    assert_eq!(by(5).rule, Some(RuleShown { id: 5, action: None, text: "it is gone meanwhile".to_owned() }));
    assert_eq!(by(0).rule, None);
}

#[test]
fn verdicts_of_each_program() {
    let of = |way: Way, kind: u8, uplink| report(&FlowEvent { way: way as u8, kind, uplink, ..event(None) }).verdict;
    assert_eq!(of(Way::FromMesh, FlowKind::ToNode as u8, 0), "to_node");
    assert_eq!(of(Way::FromMesh, FlowKind::FromNode as u8, 0), "to_node");
    assert_eq!(of(Way::FromMesh, 0, 0), "to_node");
    assert_eq!(of(Way::FromMesh, FlowKind::Routed as u8, 0), "to_stack");
    assert_eq!(of(Way::FromMesh, FlowKind::Routed as u8, 3), "forwarded");
    assert_eq!(of(Way::ToMesh, FlowKind::FromNode as u8, 0), "to_mesh");
    assert_eq!(of(Way::FromUplink, FlowKind::Masqueraded as u8, 3), "to_mesh");
    assert_eq!(of(Way::Unmatched, 0, 0), "passed_on");
    let unread = report(&FlowEvent { key: FlowKey::default(), ..event(Some(DropReason::Malformed)) });
    assert_eq!((unread.peer, unread.protocol.as_deref()), (None, None));
    assert!(unread.to_string().starts_with("a packet that cannot be read at wt0_ingress: dropped\n"), "{unread}");
}
