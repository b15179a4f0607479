//! Ready means that packets can flow: programs alone and in place, enough routes served, and counts that agree.

mod common;

use std::net::IpAddr;

use common::{PATIENCE, SECOND, lab, page};
use peer_tests::lab::{
    BEHIND, BEHIND6, Behaviour, Binaries, ECHO_PORT, End, ForeignProgram, GATEWAY, GATEWAY6, Hook, Lab, NODE_LAN6,
    Namespace, Plan, RouteEntry, Udp, add_address, page_within, wait_for, wire,
};

const OTHER_BPFFS: &str = "/run/lab/other-bpffs";
/// Behind a second uplink.
const OTHER: [&str; 2] = ["192.168.77.0/24", "fd77::/64"];
/// Two windows of ten seconds, one that had begun, and the look that follows.
const NOTICED: std::time::Duration = std::time::Duration::from_secs(45);

fn is_ready(lab: &Lab) -> bool {
    lab.node.probe("/readyz").is_ok_and(|(status, _)| status == 200)
}

/// Waits until that part is not ready for a reason with these words; all who tell of it say the same.
#[track_caller]
fn not_ready(lab: &Lab, limit: std::time::Duration, part: &str, words: &[&str]) {
    let mut body = String::new();
    let has = |body: &str| {
        let line = body.lines().find(|line| line.starts_with(&format!("{part}: not ready: ")));
        line.is_some_and(|line| words.iter().all(|word| line.contains(word)))
    };
    let there = wait_for(limit, || {
        let Ok((status, answer)) = lab.node.probe("/readyz") else { return false };
        body = answer;
        status == 503 && has(&body)
    });
    assert!(there, "{part} is not ready, with {words:?}:\n{body}");
    let metric = || lab.node.metric("peer_ready_part", &[("part", part)]).expect("metrics");
    assert!(wait_for(PATIENCE, || metric() < 1.0), "the metric says so");
    let status = lab.node.status_text(&["-d"]).expect("status");
    let doctor = lab.node.doctor().expect("doctor");
    for word in words {
        assert!(status.contains(word), "status says {word:?}:\n{status}");
        assert!(doctor["findings"].to_string().contains(word), "doctor says {word:?}: {doctor}");
    }
    assert_eq!(doctor["ready"], false, "{doctor}");
}

/// A lab with a second uplink and one route of each family there; whatever `change` makes of it, it is up.
fn two_uplinks(change: impl FnOnce(&mut Lab)) -> (Lab, Namespace) {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    let host = Namespace::new("other").expect("namespace");
    let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
    wire(
        &End {
            namespace: &lab.node.namespace,
            device: "eth1",
            addresses: &[(parse("192.168.77.1"), 24), (parse("fd77::1"), 64)],
        },
        &End { namespace: &host, device: "eth0", addresses: &[(parse("192.168.77.2"), 24), (parse("fd77::2"), 64)] },
    )
    .expect("wire");
    change(&mut lab);
    lab.up().expect("up");
    (lab, host)
}

#[test]
fn an_uplink_without_carrier_or_down_with_three_of_four_routes_is_not_ready() {
    for family in [0, 1] {
        let (lab, _host) = two_uplinks(|lab| {
            let near = lab.node.config.routes.iter().filter(|route| route.destination.contains(':') == (family == 1));
            let mut routes: Vec<_> = near.cloned().collect();
            routes.push(RouteEntry::masqueraded(["10.66.0.0/16", "fd66::/32"][family]));
            for route in &mut routes {
                route.uplink = "eth0".to_owned();
            }
            routes.push(RouteEntry::masqueraded(OTHER[family]));
            lab.node.config.routes = routes;
        });
        assert!(is_ready(&lab));
        let gateway = lab.gateway.namespace.clone();
        gateway.exec("ip", &["link", "set", "eth0", "down"]).expect("ip");
        not_ready(&lab, PATIENCE, "routes", &["1 of 4 routes served", "eth0 has no carrier", "bring their uplinks up"]);
        gateway.exec("ip", &["link", "set", "eth0", "up"]).expect("ip");
        assert!(wait_for(PATIENCE, || is_ready(&lab)));
        lab.node.namespace.exec("ip", &["link", "set", "eth0", "down"]).expect("ip");
        not_ready(&lab, PATIENCE, "routes", &["1 of 4 routes served", "eth0 is down"]);
        lab.node.namespace.exec("ip", &["link", "set", "eth0", "up"]).expect("ip");
        if family == 1 {
            // The kernel takes IPv6 addresses of a device that goes down away.
            add_address(&lab.node.namespace, "eth0", NODE_LAN6, 64).expect("ip");
        }
        assert!(wait_for(PATIENCE, || is_ready(&lab)));
    }
}

#[test]
fn the_rule_says_how_many_routes_must_be_served() {
    for (rule, ready) in [("any", true), ("16%", true), ("all", false)] {
        let (lab, _host) = two_uplinks(|lab| {
            lab.node.arguments = vec!["--ready-routes".to_owned(), rule.to_owned()];
            lab.node.config.routes.extend(OTHER.map(RouteEntry::masqueraded));
        });
        lab.node.namespace.exec("ip", &["link", "set", "eth1", "down"]).expect("ip");
        let unserved = || lab.node.metric("peer_routes", &[("state", "unserved")]).expect("metrics");
        assert!(wait_for(PATIENCE, || unserved() >= 1.0), "{rule}");
        if ready {
            assert!(is_ready(&lab), "{rule}");
        } else {
            not_ready(&lab, PATIENCE, "routes", &["wants all", "192.168.77.0/24: eth1 is down"]);
        }
    }
}

/// After an update that mounts another bpffs; `attach` is how the new programs are attached.
fn moved(attach: &str) -> Lab {
    let mut lab = lab(&Plan::default());
    page(lab.client(), GATEWAY);
    lab.node.kill().expect("kill");
    lab.node.namespace.mount_bpffs(OTHER_BPFFS.as_ref()).expect("a second bpffs");
    lab.node.bpffs = OTHER_BPFFS.into();
    lab.node.arguments = vec!["--attach".to_owned(), attach.to_owned()];
    lab.node.launch().expect("launch");
    lab
}

#[test]
fn old_programs_of_ours_on_an_uplink_behind_or_ahead_are_not_ready_until_their_pins_are_gone() {
    // TCX programs run before any filter, and the latest at the head before those that were there.
    for attach in ["tcx", "clsact"] {
        let lab = moved(attach);
        let words = ["peer_uplink_in on eth0", "of an earlier life", "rm -r BPFFS/peer/DEVICE"];
        not_ready(&lab, PATIENCE, "links", &words);
        lab.node.namespace.exec("rm", &["-r", "/run/lab/bpffs/peer"]).expect("rm");
        assert!(wait_for(PATIENCE * 2, || is_ready(&lab)), "{attach}: its remedy helps");
        for service in [GATEWAY, GATEWAY6] {
            page_within(PATIENCE, &lab.client().namespace, service).expect("a page");
        }
    }
}

#[test]
fn old_programs_are_still_known_after_another_restart() {
    let mut lab = moved("tcx");
    not_ready(&lab, PATIENCE, "links", &["of an earlier life"]);
    lab.node.kill().expect("kill");
    lab.node.launch().expect("launch");
    not_ready(&lab, PATIENCE, "links", &["of an earlier life"]);
    assert_eq!(ForeignProgram::chain(&lab.node.namespace, "eth0").expect("query").len(), 2, "the new one was adopted");
}

/// Sends to the service until `done`, so that every window has packets.
fn sending(lab: &Lab, service: IpAddr, done: impl Fn() -> bool) -> bool {
    let member = if service.is_ipv4() { lab.client().overlay() } else { lab.client().overlay6() };
    let member = Udp::bind(&lab.client().namespace, member, 7700).expect("socket");
    wait_for(NOTICED, || {
        for _ in 0..20 {
            let _ = member.send_to(&[0x5a; 400], (service, ECHO_PORT).into());
        }
        done()
    })
}

#[test]
fn an_intruder_that_takes_packets_between_us_and_the_uplink_is_not_ready_with_both_figures() {
    // Behind a gateway: without it there is no service, whoever asks.
    for service in [BEHIND, BEHIND6] {
        let lab = lab(&Plan::default());
        page(lab.client(), GATEWAY);
        let node = &lab.node.namespace;
        let intruder = ForeignProgram::attach_as(node, "eth0", "intruder", Hook::EgressTail, Behaviour::Swallow);
        let intruder = intruder.expect("attach");
        assert!(sending(&lab, service, || !is_ready(&lab)), "noticed");
        not_ready(
            &lab,
            PATIENCE,
            "traffic",
            &["we redirected ", " packets (", "to eth0 in ", "and it sent ", "egress"],
        );
        drop(intruder);
        assert!(sending(&lab, service, || is_ready(&lab)), "one good window ends it");
    }
}

#[test]
fn a_neighbour_that_does_not_answer_is_no_intruder() {
    let lab = lab(&Plan::default());
    for silent in ["198.51.100.200", "2001:db8:2::200"] {
        let silent: IpAddr = silent.parse().expect("an address");
        let sent = || lab.node.metric("peer_packets_total", &[("path", "forwarded_out")]).expect("metrics");
        let before = sent();
        let windows = std::time::Instant::now();
        let alarmed = sending(&lab, silent, || !is_ready(&lab) || windows.elapsed() > SECOND * 25);
        assert!(alarmed && is_ready(&lab), "{:?}", lab.node.probe("/readyz"));
        assert!(sent() - before > 100.0, "enough was redirected to tell");
        let findings = lab.node.metric("peer_doctor_findings", &[("check", "traffic")]).expect("metrics");
        assert_eq!(findings, 0.0);
    }
}
