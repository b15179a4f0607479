//! `peer-daemon flows`: what it shows of real traffic, and that it takes nothing from it.

mod common;

use std::thread;

use common::{SECOND, becomes, lab};
use peer_tests::lab::{BEHIND, Download, GATEWAY, HTTP_PORT, Lab, NODE_LAN, Plan, Process, ping, run, wait_for};
use serde_json::{Value, json};

/// More than a scenario can load.
const ENDLESS: u64 = 1 << 40;
/// Enough for some looks while they run.
const PINGS: u32 = 5000;

#[test]
fn a_download_and_a_ping_are_shown_grow_and_are_selected() {
    let lab = lab(&Plan::default());
    let client = lab.client();
    let download = Download::start(&client.namespace, GATEWAY, ENDLESS).expect("download");
    let member = client.namespace.clone();
    let pings = thread::spawn(move || ping(&member, BEHIND, PINGS, SECOND * 2).expect("ping"));
    for protocol in ["tcp", "icmp"] {
        let mut before = Value::Null;
        let grown = wait_for(SECOND * 5, || {
            let now = flows(&lab, &["--protocol", protocol]).pop().unwrap_or_default();
            let more = |way: &str| before[way].is_object() && count(&now, way) > count(&before, way);
            let grown = more("from_peer") && more("to_peer");
            before = now;
            grown
        });
        assert!(grown, "counters of {protocol} stand still: {before}");
    }
    assert!(pings.join().expect("no panic").all_answered());

    let tcp = only(&lab, &["--protocol", "tcp"]);
    assert_eq!(tcp["kind"], "masqueraded");
    assert_eq!(tcp["peer"]["address"], json!(client.overlay()));
    assert_eq!(tcp["destination"], json!({ "address": GATEWAY, "port": HTTP_PORT }));
    assert_eq!(tcp["nat"]["address"], json!(NODE_LAN));
    assert!(tcp["nat"]["port"].as_u64().is_some_and(|port| (11_000..30_000).contains(&port)), "{tcp}");
    assert_eq!((&tcp["uplink"], &tcp["route"]), (&json!("eth0"), &json!("198.51.100.0/24")));
    assert_eq!((&tcp["policy"], &tcp["peer_key"]), (&json!(1), &json!(client.keys.public)));
    assert_eq!(tcp["state"], "established");
    assert!(tcp["expires_in_seconds"].as_u64().is_some_and(|seconds| seconds > 7400), "{tcp}");
    let icmp = only(&lab, &["--protocol", "icmp"]);
    assert_eq!((&icmp["destination"]["address"], &icmp["state"]), (&json!(BEHIND), &Value::Null));
    assert_eq!((&icmp["from_peer"]["packets"], &icmp["to_peer"]["packets"]), (&json!(PINGS), &json!(PINGS)));
    assert_eq!(icmp["from_peer"]["bytes"], PINGS * (20 + 8 + 48));

    let nat_port = tcp["nat"]["port"].to_string();
    let overlay = client.overlay().to_string();
    let key = &client.keys.public;
    for arguments in [["--port", &nat_port], ["--port", "80"], ["--address", "198.51.100.0/24"], ["--limit", "1"]] {
        assert_eq!(flows(&lab, &[&arguments[..], &["--protocol", "tcp"]].concat()).len(), 1, "{arguments:?}");
    }
    for arguments in [["--peer", &key[..6]], ["--peer", key], ["--peer", &overlay], ["--kind", "masqueraded"]] {
        assert_eq!(flows(&lab, &arguments).len(), 2, "{arguments:?}");
    }
    for arguments in [["--peer", "100.64.0.99"], ["--kind", "to_node"], ["--address", "fd00::/8"], ["--port", "9"]] {
        assert_eq!(flows(&lab, &arguments), Vec::<Value>::new(), "{arguments:?}");
    }
    let text = run(&mut lab.node.flows_command(&["--limit", "1"])).expect("flows").stdout;
    assert!(text.contains("and 1 more"), "{text}");
    let refused = run(&mut lab.node.flows_command(&["--peer", "////"])).expect("flows");
    assert!(!refused.status.success() && refused.stderr.contains("peer: `////`"), "{}", refused.stderr);
    download.stop().expect("every byte was right");
}

#[test]
fn a_watch_tells_what_opens_runs_and_closes_and_ends_with_ctrl_c() {
    let lab = lab(&Plan::default());
    let mut command = lab.node.flows_command(&["--watch", "--json", "--protocol", "tcp"]);
    let mut watch = Process::start("flows --watch", &mut command).expect("start");
    // It has looked once when it knows the first connection.
    let first = Download::start(&lab.client().namespace, GATEWAY, ENDLESS).expect("download");
    assert!(wait_for(SECOND * 10, || has(&watch, |event| event["packets_per_second"].is_number())), "{}", watch.log());
    let second = Download::start(&lab.client().namespace, BEHIND, ENDLESS).expect("download");
    let to = |event: &Value, kind: &str| event["event"] == kind && event["destination"]["address"] == json!(BEHIND);
    assert!(wait_for(SECOND * 10, || has(&watch, |event| to(event, "opened"))), "{}", watch.log());
    let runs = |event: &Value| to(event, "active") && event["bytes_per_second"].as_f64().is_some_and(|rate| rate > 1e5);
    assert!(wait_for(SECOND * 10, || has(&watch, runs)), "{}", watch.log());
    assert!(!has(&watch, |event| event["event"] == "closed"), "{}", watch.log());

    second.stop().expect("every byte was right");
    assert!(wait_for(SECOND * 15, || has(&watch, |event| to(event, "closed"))), "{}", watch.log());
    let others = |event: &Value| event["event"] == "closed" && !to(event, "closed");
    assert!(!has(&watch, others), "the other goes on: {}", watch.log());

    lab.node.namespace.exec("kill", &["-INT", &watch.pid().to_string()]).expect("a signal");
    becomes(Some(0), || watch.ended().expect("a status").and_then(|status| status.code()));
    first.stop().expect("every byte was right");
}

/// What `flows --json` says.
fn flows(lab: &Lab, arguments: &[&str]) -> Vec<Value> {
    let done = run(&mut lab.node.flows_command(&[&["--json"], arguments].concat())).expect("flows");
    assert!(done.status.success(), "{arguments:?}: {}", done.stderr);
    done.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn only(lab: &Lab, arguments: &[&str]) -> Value {
    let mut flows = flows(lab, arguments);
    assert_eq!(flows.len(), 1, "{arguments:?}: {flows:?}");
    flows.remove(0)
}

fn count(flow: &Value, way: &str) -> u64 {
    flow[way]["packets"].as_u64().expect("a count")
}

/// Whether a whole line of the watch is such an event.
fn has(watch: &Process, is: impl Fn(&Value) -> bool) -> bool {
    let log = watch.log();
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole.lines().any(|line| is(&serde_json::from_str(line).expect(line)))
}
