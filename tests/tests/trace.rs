//! `peer-daemon trace`: what it says of a packet is what becomes of it.

mod common;

use std::net::IpAddr;

use common::{PATIENCE, SECOND, answered, becomes, flow, lab, page};
use peer_common::DropReason;
use peer_tests::lab::{
    BEHIND, BEHIND6, Binaries, Datagram, ECHO_PORT, GATEWAY, GATEWAY6, HTTP_PORT, LAN, LAN6, Lab, NODE_OVERLAY, Plan,
    Process, RouteEntry, RuleEntry, arrive_twice_at_once, flood, forge, run, wait_for,
};
use serde_json::{Value, json};

const BLACKHOLE: &str = "10.50.0.0/16";
const INTO_THE_MESH: &str = "10.51.0.0/16";
const DROPPED_PORT: u16 = 7100;
const SCTP: u8 = 132;

/// Ports and flows are few, the LAN is narrow, and some routes lead nowhere.
fn troubled() -> Lab {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    let node = &lab.node.namespace;
    node.exec("ip", &["route", "add", "blackhole", BLACKHOLE]).expect("ip");
    node.exec("ip", &["link", "set", "eth0", "mtu", "1300"]).expect("ip");
    let config = &mut lab.node.config;
    config.routes.extend([BLACKHOLE, INTO_THE_MESH].map(RouteEntry::masqueraded));
    let open = [LAN, LAN6, BLACKHOLE, INTO_THE_MESH];
    config.rules = vec![
        RuleEntry::new("accept", "any", &open, &[]),
        RuleEntry::new("drop", "udp", &[LAN], &[DROPPED_PORT]),
        RuleEntry::new("accept", "icmp", &[&format!("{NODE_OVERLAY}/32")], &[]),
    ];
    lab.node.arguments = ["--nat-ports", "20480-20495", "--peer-flows", "40"].map(str::to_owned).to_vec();
    lab.up().expect("up");
    lab.node.namespace.exec("ip", &["route", "add", INTO_THE_MESH, "dev", "wt0"]).expect("ip");
    assert!(answered(&flow(lab.client(), GATEWAY), b"warm"));
    lab
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// What is said of a described packet, with the exit code that it must have.
fn described(lab: &Lab, arguments: &[String]) -> Value {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--json"]).collect();
    let done = run(&mut lab.node.trace_command(&arguments)).expect("trace");
    let report: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {}", done.stderr));
    let expected = i32::from(report["verdict"] == "dropped");
    assert_eq!(done.status.code(), Some(expected), "{arguments:?}: {report:#}");
    report
}

/// Whole lines of JSON of a live trace.
fn traced(live: &Process) -> Vec<Value> {
    let log = live.log();
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn follow(lab: &Lab, arguments: &[&str]) -> Process {
    let mut command = lab.node.trace_command(&[&["--live", "--json"], arguments].concat());
    let live = Process::start("trace --live", &mut command).expect("start");
    assert!(wait_for(SECOND * 5, || live.log().contains("following packets")), "{}", live.log());
    live
}

/// A drop that is provoked.
struct Case {
    reason: DropReason,
    /// How it is described, if it can be.
    described: Option<String>,
    packet: Datagram,
}

fn cases(lab: &Lab) -> Vec<Case> {
    use DropReason as R;
    let (v4, v6) = (lab.client().overlay(), lab.client().overlay6());
    let udp =
        |to: IpAddr, port| Datagram::udp((if to.is_ipv4() { v4 } else { v6 }, 4000), (to, port), b"to be dropped");
    let by_udp = |reason, to: &str, port: u16| Case {
        reason,
        described: Some(format!("--to {to} --proto udp --sport 4000 --port {port}")),
        packet: udp(addr(to), port),
    };
    let live_only = |reason, packet| Case { reason, described: None, packet };
    let gateway = GATEWAY.to_string();
    let timestamp =
        Datagram::of(1, v4, GATEWAY, vec![13, 0, 0xf2, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let quoted = udp(v4, 9).bytes().expect("one family");
    let error = Datagram::of(1, v4, GATEWAY, [&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat());
    vec![
        by_udp(R::Multicast, "224.0.0.1", 9),
        by_udp(R::DeniedDestination, "169.254.169.254", 80),
        by_udp(R::DeniedDestination, &NODE_OVERLAY.to_string(), 51_820),
        by_udp(R::NoRoute, "192.0.2.200", 9),
        by_udp(R::PolicyDefault, &BEHIND.to_string(), 9),
        by_udp(R::PolicyDefault, &BEHIND6.to_string(), 9),
        by_udp(R::PolicyRule, &gateway, DROPPED_PORT),
        by_udp(R::Unreachable, "10.50.0.1", 9),
        by_udp(R::NotUplink, "10.51.0.1", 9),
        Case {
            reason: R::Protocol,
            described: Some(format!("--to {gateway} --proto {SCTP}")),
            packet: Datagram::of(SCTP, v4, GATEWAY, vec![0; 64]),
        },
        Case {
            reason: R::TtlExceeded,
            described: Some(format!("--to {gateway} --proto udp --sport 4000 --port 9 --ttl 1")),
            packet: udp(GATEWAY, 9).with_hops(1),
        },
        Case {
            reason: R::TooBig,
            described: Some(format!("--to {gateway} --proto udp --sport 4000 --port 10 --size 1400")),
            packet: Datagram::udp((v4, 4000), (GATEWAY, 10), &[7; 1372]),
        },
        live_only(R::IpOptions, udp(GATEWAY, 9).with_ipv4_option()),
        live_only(R::ExtensionHeader, udp(GATEWAY6, 9).with_extension_header()),
        live_only(R::Fragment, Datagram::of(17, v4, GATEWAY, vec![0; 64]).as_fragment(9, false)),
        live_only(R::IcmpType, timestamp),
        live_only(R::IcmpUnmatched, error),
    ]
}

/// What a report must have, of a drop for that reason.
fn assert_explains(report: &Value, reason: DropReason) {
    assert_eq!((&report["verdict"], &report["reason"]), (&json!("dropped"), &json!(reason.name())), "{report:#}");
    let last = report["stages"].as_array().and_then(|stages| stages.last()).expect("stages");
    assert_eq!(last["outcome"], "dropped", "{report:#}");
    assert!(last["text"].as_str().is_some_and(|text| text.starts_with(reason.name())), "{report:#}");
    assert_eq!(report["explanation"], reason.help().trim(), "{report:#}");
    assert!(report["remedy"].as_str().is_some_and(|remedy| remedy.len() > 20), "{report:#}");
}

#[test]
fn drops_are_described_followed_and_counted_for_the_same_reason() {
    let lab = troubled();
    let overlay = lab.client().overlay().to_string();
    let live = follow(&lab, &["--seconds", "600"]);
    for Case { reason, described: how, packet } in cases(&lab) {
        if let Some(how) = how {
            let from = if how.contains("2001:") { lab.client().overlay6().to_string() } else { overlay.clone() };
            let arguments = format!("--from {from} {how}");
            let report = described(&lab, &arguments.split(' ').map(str::to_owned).collect::<Vec<_>>());
            assert_explains(&report, reason);
            if reason == DropReason::PolicyRule {
                assert_eq!(report["rule"]["id"], 2);
                let text = report["rule"]["text"].as_str().expect("a text");
                assert!(text.ends_with(&format!("→ {LAN}, udp {DROPPED_PORT}: drop")), "{text}");
            }
        }
        assert_provoked(&lab, &live, reason, 1, || {
            forge(&lab.client().namespace, "wg0", std::slice::from_ref(&packet)).expect("send");
        });
    }
    // What the tunnel itself would not let through arrives at the device, twice.
    let stranger = Datagram::udp((addr("100.64.0.99"), 4000), (GATEWAY, 9), b"a stranger").bytes().expect("bytes");
    let arguments = format!("--from 100.64.0.99 --to {GATEWAY} --proto udp --port 9");
    let report = described(&lab, &arguments.split(' ').map(str::to_owned).collect::<Vec<_>>());
    assert_explains(&report, DropReason::ForeignSource);
    let mut cut = stranger.clone();
    cut.truncate(22);
    for (reason, packet) in [(DropReason::ForeignSource, stranger), (DropReason::Malformed, cut)] {
        assert_provoked(&lab, &live, reason, 2, || {
            arrive_twice_at_once(&lab.node.namespace, "wt0", std::slice::from_ref(&packet)).expect("arrive");
        });
    }
    exhausted(&lab, &live);
}

/// Ports to one remote, and then the flows of the peer.
fn exhausted(lab: &Lab, live: &Process) {
    let member = &lab.client().namespace;
    let source = lab.client().overlay();
    let packet = |sport, port| Datagram::udp((source, sport), (GATEWAY, port), b"one of many");
    let many: Vec<_> = (0..13).map(|number| packet(5000 + number, 9)).collect();
    forge(member, "wg0", &many).expect("send");
    let describe = |sport: u16, port: u16| {
        let arguments = format!("--from {source} --to {GATEWAY} --proto udp --sport {sport} --port {port}");
        described(lab, &arguments.split(' ').map(str::to_owned).collect::<Vec<_>>())
    };
    becomes(true, || describe(6000, 9)["reason"] == "port_share");
    assert_explains(&describe(6000, 9), DropReason::PortShare);
    assert_provoked(lab, live, DropReason::PortShare, 1, || {
        forge(member, "wg0", &[packet(6000, 9)]).expect("send");
    });
    assert_eq!(describe(6000, 11)["verdict"], "forwarded", "to another remote there are ports");
    let rest: Vec<_> = (0..40).map(|number| packet(7000, 20 + number)).collect();
    forge(member, "wg0", &rest).expect("send");
    becomes(true, || describe(6000, 11)["reason"] == "peer_quota");
    assert_explains(&describe(6000, 11), DropReason::PeerQuota);
    assert_provoked(lab, live, DropReason::PeerQuota, 1, || {
        forge(member, "wg0", &[packet(6001, 11)]).expect("send");
    });
}

/// What needs a small table, and a route that is no longer what a flow was opened by.
#[test]
fn a_full_table_and_a_flow_whose_route_changed_are_explained() {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    lab.node.arguments = ["--max-flows", "64", "--peer-flows", "1000"].map(str::to_owned).to_vec();
    lab.up().expect("up");
    assert!(answered(&flow(lab.client(), GATEWAY), b"warm"));
    let source = lab.client().overlay();
    let packet = |sport| Datagram::udp((source, sport), (GATEWAY, 9), b"one of many");
    let send = |lab: &Lab, packets: &[Datagram]| forge(&lab.client().namespace, "wg0", packets).expect("send");
    let describe = |lab: &Lab, sport: u16| {
        let arguments = format!("--from {source} --to {GATEWAY} --proto udp --sport {sport} --port 9");
        described(lab, &arguments.split(' ').map(str::to_owned).collect::<Vec<_>>())
    };
    let live = follow(&lab, &["--seconds", "600"]);
    send(&lab, &[packet(4000)]);
    becomes(true, || describe(&lab, 4000)["stages"].to_string().contains("known"));
    lab.node.config.routes.iter_mut().for_each(|route| route.masquerade = false);
    lab.node.reload().expect("reload");
    assert_explains(&describe(&lab, 4000), DropReason::SourceChanged);
    assert_provoked(&lab, &live, DropReason::SourceChanged, 1, || send(&lab, &[packet(4000)]));
    assert_eq!(describe(&lab, 4000)["verdict"], "forwarded", "the next packet opens it anew");

    let many: Vec<_> = (5000..5200).map(packet).collect();
    send(&lab, &many);
    becomes(true, || lab.node.dropped(DropReason::TableFull).expect("metrics") > 0.0);
    assert_provoked(&lab, &live, DropReason::TableFull, 1, || send(&lab, &[packet(6000)]));
}

/// Provokes a drop: its counter rises, and whoever follows sees why.
#[track_caller]
fn assert_provoked(lab: &Lab, live: &Process, reason: DropReason, count: usize, provoke: impl FnOnce()) {
    let of = |report: &Value| report["reason"] == reason.name();
    let (before, seen) = (lab.node.dropped(reason).expect("metrics"), traced(live).iter().filter(|it| of(it)).count());
    provoke();
    becomes((reason, before + count as f64), || (reason, lab.node.dropped(reason).expect("metrics")));
    let told = || traced(live).into_iter().filter(of).collect::<Vec<_>>();
    assert!(wait_for(SECOND * 5, || told().len() >= seen + count), "{}: {}", reason.name(), live.log());
    told().iter().skip(seen).for_each(|report| assert_explains(report, reason));
}

#[test]
fn a_described_packet_names_its_rule_and_changes_nothing() {
    let lab = lab(&Plan::default());
    let key = lab.client().keys.public.clone();
    let counters = || {
        let metrics = lab.node.metrics().expect("metrics");
        let names = ["forwarded_out", "flows_opened", "to_node"];
        names.map(|name| metrics.sum("peer_packets_total", &[("path", name)]))
    };
    let before = counters();
    let gateway = GATEWAY.to_string();
    let arguments = ["--from", &key[..8], "--to", &gateway, "--proto", "tcp", "--port", "80"];
    let report = described(&lab, &arguments.map(str::to_owned));
    assert_eq!((&report["verdict"], &report["uplink"]), (&json!("forwarded"), &json!("eth0")));
    assert_eq!((&report["rule"]["id"], &report["rule"]["action"]), (&json!(1), &json!("accept")));
    assert_eq!((&report["peer_key"], &report["route"]), (&json!(key), &json!(LAN)));
    assert_eq!(report["nat"]["address"], json!(peer_tests::lab::NODE_LAN));
    let done = run(&mut lab.node.trace_command(&arguments)).expect("trace");
    assert!(done.stdout.contains("rule 1: ") && done.stdout.contains("redirected out of eth0"), "{}", done.stdout);
    assert_eq!(counters(), before, "nothing was sent and nothing opened");
    assert_eq!(lab.gateway.http_clients().len(), 0);

    // The real one gets the port that was said.
    assert!(page(lab.client(), GATEWAY).contains("Hello"));
    let http = run(&mut lab.node.flows_command(&["--json", "--protocol", "tcp"])).expect("flows").stdout;
    let flow: Value = serde_json::from_str(http.lines().next().expect("a flow")).expect("JSON");
    let sport = flow["peer"]["port"].to_string();
    let known = described(
        &lab,
        &[&arguments[..], &["--sport", &sport]].concat().iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(),
    );
    assert_eq!(known["nat"], flow["nat"], "its flow is known by now");
    assert!(known["stages"][1]["text"].as_str().is_some_and(|text| text.starts_with("known")), "{known:#}");

    for (arguments, fix) in [
        (vec!["--from", "zzzz", "--to", &gateway, "--port", "80"], "from: `zzzz`"),
        (vec!["--from", &key[..8], "--to", &gateway, "--proto", "udp"], "port: ``"),
        (vec!["--from", &key[..8], "--to", "198.51.100.0/24"], "to: `198.51.100.0/24`"),
    ] {
        let refused = run(&mut lab.node.trace_command(&arguments)).expect("trace");
        assert!(refused.status.code() == Some(2) && refused.stderr.contains(fix), "{arguments:?}: {}", refused.stderr);
    }
}

#[test]
fn both_directions_are_followed_by_one_at_a_time_for_as_long_as_somebody_looks() {
    let lab = lab(&Plan::default());
    let gateway = GATEWAY.to_string();
    let mut live = follow(&lab, &["--to", &gateway, "--proto", "tcp", "--port", &HTTP_PORT.to_string()]);
    page(lab.client(), GATEWAY);
    let of = |live: &Process, program: &str, verdict: &str| {
        traced(live).into_iter().find(|report| report["program"] == program && report["verdict"] == verdict)
    };
    let both = || of(&live, "wt0_ingress", "forwarded").zip(of(&live, "uplink_ingress", "to_mesh"));
    assert!(wait_for(SECOND * 5, || both().is_some()), "{}", live.log());
    let (out, back) = both().expect("both");
    assert_eq!((&out["peer"], &out["destination"], &out["nat"]), (&back["peer"], &back["destination"], &back["nat"]));
    assert_eq!((&out["rule"]["id"], &out["destination"]["port"]), (&json!(1), &json!(HTTP_PORT)));
    assert!(answered(&flow(lab.client(), GATEWAY), b"not followed"));
    assert!(traced(&live).iter().all(|report| report["protocol"] == "tcp"), "{}", live.log());

    let busy = run(&mut lab.node.trace_command(&["--live"])).expect("trace");
    assert!(busy.status.code() == Some(2) && busy.stderr.contains("somebody else follows"), "{}", busy.stderr);
    lab.node.namespace.exec("kill", &["-INT", &live.pid().to_string()]).expect("a signal");
    becomes(Some(0), || live.ended().expect("a status").and_then(|status| status.code()));
    let forgotten = follow(&lab, &["--seconds", "600"]);
    drop(forgotten);
    // It was killed: the next one need not wait for ten minutes.
    let begins = || run(&mut lab.node.trace_command(&["--live", "--seconds", "1"])).expect("trace").status.success();
    assert!(wait_for(PATIENCE, begins), "a trace that nobody looks at ends");
    let _ = flood(&lab.client().namespace, GATEWAY, ECHO_PORT..ECHO_PORT + 1, 1).expect("traffic goes on");
}
