//! The flow log, and what `flows` shows of packets that were dropped.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use common::{PATIENCE, SECOND, answered, becomes, flow, page};
use peer_tests::lab::{
    BEHIND, Binaries, Datagram, ECHO_PORT, EchoSocket, GATEWAY, HTTP_PORT, LAN, Lab, NODE_LAN, Plan, Process,
    RuleEntry, add_address, forge, run, wait_for,
};
use serde_json::{Value, json};

const LOG: &str = "/run/lab/flows.json";

/// A lab whose daemon writes a flow log.
fn lab(arguments: &[&str]) -> Lab {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    lab.node.arguments = [&["--flow-log", LOG], arguments].concat().iter().map(|&text| text.to_owned()).collect();
    lab.up().expect("up");
    lab
}

/// All whole lines of a log.
fn read(lab: &Lab, path: &str) -> Vec<Value> {
    let text = lab.node.namespace.enter(|| fs::read_to_string(path)).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Waits for the line that is like this.
#[track_caller]
fn await_line(lab: &Lab, path: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut found = None;
    wait_for(PATIENCE, || {
        found = read(lab, path).into_iter().find(&is);
        found.is_some()
    });
    found.unwrap_or_else(|| panic!("no such line in {:#?}", read(lab, path)))
}

fn destination(line: &Value) -> Option<SocketAddr> {
    let address = line["destination"]["address"].as_str()?.parse().ok()?;
    Some(SocketAddr::new(address, line["destination"]["port"].as_u64()?.try_into().ok()?))
}

fn flows(lab: &Lab, arguments: &[&str]) -> Vec<Value> {
    let done = run(&mut lab.node.flows_command(&[&["--json"], arguments].concat())).expect("flows");
    assert!(done.status.success(), "{arguments:?}: {}", done.stderr);
    done.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn flows_open_and_close_with_their_reason_and_denials_have_theirs() {
    let mut lab = lab(&[]);
    page(lab.client(), GATEWAY);
    let (http, echo): (SocketAddr, SocketAddr) = ((GATEWAY, HTTP_PORT).into(), (GATEWAY, ECHO_PORT).into());
    let opened = await_line(&lab, LOG, |line| line["event"] == "open" && destination(line) == Some(http));
    assert_eq!((&opened["protocol"], &opened["kind"]), (&json!("tcp"), &json!("masqueraded")));
    assert_eq!(opened["peer"]["address"], json!(lab.client().overlay()));
    assert_eq!(opened["peer_key"], json!(lab.client().keys.public));
    assert_eq!((&opened["nat"]["address"], &opened["uplink"]), (&json!(NODE_LAN), &json!("eth0")));
    assert_eq!((&opened["route"], &opened["policy"]), (&json!("198.51.100.0/24"), &json!(1)));
    assert!(opened["route_id"].is_u64() && opened["reason"].is_null(), "{opened}");

    let udp = flow(lab.client(), GATEWAY);
    (0..3).for_each(|_| assert!(answered(&udp, b"counted")));
    await_line(&lab, LOG, |line| line["event"] == "open" && destination(line) == Some(echo));
    // What the rules do not permit any more is removed by the next scan, whether it sends or not.
    lab.node.config.rules = vec![RuleEntry::new("accept", "tcp", &[LAN], &[])];
    lab.node.reload().expect("reload");
    let closed = await_line(&lab, LOG, |line| line["event"] == "close" && destination(line) == Some(echo));
    assert_eq!(closed["reason"], "policy_revoked");
    assert_eq!((&closed["from_peer"]["packets"], &closed["to_peer"]["packets"]), (&json!(3), &json!(3)));
    assert_eq!(closed["from_peer"]["bytes"], 3 * (20 + 8 + b"counted".len()));
    assert!(closed["duration_seconds"].as_f64().is_some_and(|seconds| seconds < 10.0), "{closed}");

    assert!(!udp.ask(b"denied", SECOND / 2).expect("send"));
    let denied = await_line(&lab, LOG, |line| line["event"] == "denied" && destination(line) == Some(echo));
    assert_eq!((&denied["reason"], &denied["direction"]), (&json!("policy_default"), &json!("from_peer")));
    assert_eq!((&denied["kind"], &denied["policy"]), (&Value::Null, &Value::Null));

    // The address that stands for the peer goes to another.
    let other = "198.51.100.9".parse().expect("an address");
    lab.node.namespace.exec("ip", &["address", "del", &format!("{NODE_LAN}/24"), "dev", "eth0"]).expect("ip");
    add_address(&lab.node.namespace, "eth0", other, 24).expect("ip");
    let closed = await_line(&lab, LOG, |line| line["event"] == "close" && destination(line) == Some(http));
    assert_eq!(closed["reason"], "address_changed");

    // What is held at the end is closed by it.
    assert!(wait_for(PATIENCE, || peer_tests::lab::get(&lab.client().namespace, http, "/").is_ok()));
    assert!(lab.node.stop().expect("a clean end").success());
    let last = await_line(&lab, LOG, |line| line["reason"] == "stopped" && destination(line) == Some(http));
    assert!(last["to_peer"]["bytes"].as_u64().is_some_and(|bytes| bytes > 100), "{last}");
    let lines = read(&lab, LOG);
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!(of("open"), of("close"), "each flow that opens closes: {lines:#?}");
}

#[test]
fn a_log_that_was_moved_away_is_opened_anew_and_losses_are_counted() {
    let mut lab = lab(&["--flow-log-rate", "1"]);
    page(lab.client(), GATEWAY);
    await_line(&lab, LOG, |line| line["event"] == "open");
    let old = "/run/lab/flows.json.1";
    lab.node.namespace.enter(|| fs::rename(LOG, old)).expect("moved");
    lab.node.reload().expect("SIGHUP");
    assert!(wait_for(SECOND * 5, || lab.node.namespace.enter(|| Path::new(LOG).exists())));
    assert!(answered(&flow(lab.client(), GATEWAY), b"after the move"));
    await_line(&lab, LOG, |line| line["event"] == "open" && line["protocol"] == "udp");
    assert_eq!(lab.node.metric("peer_flow_log_reopened_total", &[]).expect("metrics"), 1.0);

    // One a second, and a burst of 1024 on each processor: the rest is counted.
    let limited = || lab.node.metric("peer_packets_total", &[("path", "events_limited")]).expect("metrics");
    let stranger = "100.64.9.9".parse().expect("an address");
    let packet = |port| Datagram::udp((lab.client().overlay(), port), (stranger, 9), b"to nobody");
    for chunk in (1..20_000_u16).collect::<Vec<_>>().chunks(500) {
        let packets: Vec<_> = chunk.iter().map(|&port| packet(port)).collect();
        forge(&lab.client().namespace, "wg0", &packets).unwrap_or_default();
        if limited() > 1000.0 {
            break;
        }
    }
    assert!(limited() > 1000.0, "{} events were held back", limited());
    let lines = || lab.node.metric("peer_flow_log_records_total", &[("event", "denied")]).expect("metrics");
    let dropped = lab.node.dropped(peer_common::DropReason::NoRoute).expect("metrics");
    becomes(true, || lines() + limited() >= dropped);
    assert!(answered(&flow(lab.client(), GATEWAY), b"traffic goes on"));
}

#[test]
fn a_full_disk_costs_lines_and_no_packet() {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    lab.node.arguments = vec!["--flow-log".into(), "/dev/full".into()];
    lab.up().expect("up");
    page(lab.client(), GATEWAY);
    let lost = lab.node.await_metric(SECOND * 5, 1.0, "peer_flow_log_lost_total", &[("reason", "write")]);
    assert!(lost.expect("metrics") >= 1.0);
    page(lab.client(), GATEWAY);
    assert!(lab.node.stop().expect("a clean end").success());

    lab.node.arguments = vec!["--flow-log".into(), "/nowhere/flows.json".into()];
    let refused = lab.node.run_to_end().expect("it ends");
    assert!(
        !refused.status.success() && refused.stderr.contains("--flow-log /nowhere/flows.json"),
        "{}",
        refused.stderr
    );
}

#[test]
fn what_was_dropped_is_shown_without_any_log() {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    lab.node.config.rules =
        vec![RuleEntry::new("accept", "any", &[LAN], &[]), RuleEntry::new("drop", "udp", &[LAN], &[ECHO_PORT])];
    lab.up().expect("up");
    page(lab.client(), GATEWAY);
    let mut command = lab.node.flows_command(&["--watch", "--json", "--verdict", "denied"]);
    let watch = Process::start("flows --watch", &mut command).expect("start");
    let by_rule = flow(lab.client(), GATEWAY);
    (0..3).for_each(|_| assert!(!by_rule.ask(b"dropped by a rule", SECOND / 5).expect("send")));
    let by_default = EchoSocket::open(&lab.client().namespace, (BEHIND, 9).into()).expect("socket");
    assert!(!by_default.ask(b"accepted by none", SECOND / 5).expect("send"));

    // The members' stacks, and the node's, send more than this scenario does.
    let of_member = ["--address", &lab.client().overlay().to_string(), "--protocol", "udp"];
    let flows = |lab: &Lab, arguments: &[&str]| flows(lab, &[&of_member[..], arguments].concat());
    let denied = flows(&lab, &["--verdict", "denied"]);
    assert_eq!(denied.len(), 2, "{denied:#?}");
    assert_eq!(
        (&denied[0]["drop_reason"], &denied[0]["policy"]),
        (&json!("policy_default"), &Value::Null),
        "most recent"
    );
    let rule = &denied[1];
    assert_eq!((&rule["verdict"], &rule["drop_reason"]), (&json!("denied"), &json!("policy_rule")));
    assert_eq!((&rule["policy"], &rule["route"], &rule["kind"]), (&json!(2), &json!("198.51.100.0/24"), &Value::Null));
    assert_eq!((&rule["from_peer"]["packets"], &rule["peer_key"]), (&json!(3), &json!(lab.client().keys.public)));
    assert_eq!(flows(&lab, &["--verdict", "denied", "--port", "9"]).len(), 1);
    assert_eq!(flows(&lab, &["--verdict", "denied", "--kind", "masqueraded"]).len(), 0);
    let (any, allowed) = (flows(&lab, &["--verdict", "any"]), flows(&lab, &[]));
    assert_eq!(any.len(), allowed.len() + 2);
    assert!(allowed.iter().all(|flow| flow["verdict"] == "allowed" && flow["drop_reason"].is_null()), "{allowed:#?}");
    let text = run(&mut lab.node.flows_command(&["--verdict", "denied"])).expect("flows").stdout;
    assert!(text.contains("denied: policy_rule") && text.contains("denied: policy_default"), "{text}");
    assert!(lab.node.metric("peer_denied_tuples", &[]).expect("metrics") >= 2.0);

    let seen = |reason: &str| {
        let log = watch.log();
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let mut lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
        lines.any(|event| event["drop_reason"] == reason && event["event"] != "closed")
    };
    assert!(wait_for(SECOND * 5, || seen("policy_rule") && seen("policy_default")), "{}", watch.log());
}
