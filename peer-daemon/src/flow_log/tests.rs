use std::time::SystemTime;

use peer_common::{DropReason, FlowKind, PacketCount};
use peer_core::key::PublicKey;
use peer_dataplane::flows::End;
use peer_dataplane::observe::{CloseReason, Direction};
use serde_json::{Value, json};

use super::*;

fn record(what: What) -> FlowRecord {
    let end = |addr: &str, port| End { addr: addr.parse().expect("an address"), port };
    FlowRecord {
        at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        what,
        protocol: 6,
        peer: end("100.64.0.10", 40_000),
        destination: end("198.51.100.80", 80),
        kind: Some(FlowKind::Masqueraded),
        nat: Some(end("198.51.100.1", 21_000)),
        uplink: Some("eth0".to_owned()),
        route_id: Some(0),
        route: "198.51.100.0/24".parse().ok(),
        rule: Some(3),
        peer_id: Some(1),
        from_peer: PacketCount { packets: 10, bytes: 1000 },
        to_peer: Some(PacketCount { packets: 20, bytes: 28_000 }),
        duration: Duration::from_micros(1_234_567),
    }
}

fn known() -> watch::Receiver<Arc<Known>> {
    let known = Known {
        addresses: Vec::new(),
        peers: Arc::new([(1, PublicKey([1; 32]))].into()),
        configured: Arc::default(),
        rules: Arc::default(),
    };
    watch::Sender::new(Arc::new(known)).subscribe()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn a_line_has_every_field_that_the_record_has() {
    let mut buffer = Vec::new();
    line::write(&mut buffer, &record(What::Closed(CloseReason::Reset)), &known().borrow().peers);
    let expected = json!({
        "time": "2023-11-14T22:13:20.123Z", "event": "close", "reason": "reset", "direction": null,
        "protocol": "tcp", "kind": "masqueraded",
        "peer": { "address": "100.64.0.10", "port": 40_000 }, "peer_key": PublicKey([1; 32]).to_string(),
        "destination": { "address": "198.51.100.80", "port": 80 },
        "nat": { "address": "198.51.100.1", "port": 21_000 }, "uplink": "eth0",
        "route": "198.51.100.0/24", "route_id": 0, "policy": 3,
        "from_peer": { "packets": 10, "bytes": 1000 }, "to_peer": { "packets": 20, "bytes": 28_000 },
        "duration_seconds": 1.235,
    });
    assert_eq!(lines(&String::from_utf8(buffer).expect("text")), [expected]);
}

#[test]
fn a_packet_that_could_not_be_read_has_no_ends() {
    let none = End { addr: "::".parse().expect("an address"), port: 0 };
    let what = What::Denied(DropReason::Malformed, Direction::FromPeer);
    let unread =
        FlowRecord { protocol: 0, peer: none, destination: none, kind: None, nat: None, peer_id: None, ..record(what) };
    let mut buffer = Vec::new();
    line::write(&mut buffer, &unread, &known().borrow().peers);
    let line = &lines(&String::from_utf8(buffer).expect("text"))[0];
    assert_eq!((&line["event"], &line["reason"]), (&json!("denied"), &json!("malformed")));
    assert_eq!(
        (&line["peer"], &line["protocol"], &line["duration_seconds"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
}

#[test]
fn what_is_told_is_written_in_order_and_after_a_move_elsewhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, old) = (dir.path().join("flows.json"), dir.path().join("flows.json.1"));
    let log = FlowLog::open(&path, known()).expect("it opens");
    let sink = log.sink();
    sink.tell(record(What::Opened));
    sink.tell(record(What::Closed(CloseReason::Expired)));
    let read = |path: &Path| lines(&std::fs::read_to_string(path).unwrap_or_default());
    while read(&path).len() < 2 {
        std::thread::yield_now();
    }
    std::fs::rename(&path, &old).expect("moved");
    sink.tell(record(What::Opened));
    log.reopen();
    sink.tell(record(What::Denied(DropReason::NoRoute, Direction::ToPeer)));
    let stats = log.stats();
    drop(sink);
    log.end();
    let events = |path: &Path| read(path).iter().map(|line| line["event"].clone()).collect::<Vec<_>>();
    assert_eq!(
        (events(&old), events(&path)),
        (vec![json!("open"), json!("close"), json!("open")], vec![json!("denied")])
    );
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(FlowLogCollector(stats)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
    for sample in [
        "peer_flow_log_records_total{event=\"open\"} 2",
        "peer_flow_log_records_total{event=\"denied\"} 1",
        "peer_flow_log_lost_total{reason=\"write\"} 0",
        "peer_flow_log_reopened_total 1",
    ] {
        assert!(text.contains(sample), "{sample} in {text}");
    }
}

#[test]
fn a_log_that_cannot_be_opened_says_what_to_name() {
    let error = FlowLog::open(Path::new("/nowhere/flows.json"), known()).expect_err("no such directory");
    let error = format!("{error:#}");
    assert!(error.contains("--flow-log /nowhere/flows.json") && error.contains("No such file"), "{error}");
}

#[test]
fn a_full_queue_loses_records_and_blocks_nobody() {
    let (queue, messages) = sync_channel(1);
    let stats = Arc::new(FlowLogStats::default());
    let sink = Sink { queue, stats: Arc::clone(&stats), last: OnceLock::new() };
    (0..3).for_each(|_| sink.tell(record(What::Opened)));
    assert!(format!("{stats:?}").contains("queue: 2"), "{stats:?}");
    let reader = std::thread::spawn(move || messages.iter().count());
    (0..100).for_each(|_| sink.tell_last(record(What::Closed(CloseReason::Stopped))));
    drop(sink);
    assert_eq!(reader.join().expect("no panic"), 101, "the last ones are waited for");
    assert!(format!("{stats:?}").contains("queue: 2"), "{stats:?}");
}
