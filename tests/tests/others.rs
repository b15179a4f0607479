//! The node is not ours alone: programs, filters, rules and settings of others.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use common::{PATIENCE, SECOND, answered, answered_within, flow, lab, page};
use peer_tests::lab::{
    Behaviour, Binaries, Client, ECHO_PORT, EchoSocket, ForeignProgram, GATEWAY, GATEWAY6, Hook, Lab, LegacyFilter,
    NODE_LAN, Namespace, Plan, ping,
};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What doctor finds by a check, and what to do about it; `None`: nothing.
fn finding(lab: &Lab, check: &str) -> Option<(String, String)> {
    let report = lab.node.doctor().expect("doctor");
    let findings = report["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["check"] == check)?;
    Some((found.to_string(), found["remedy"].as_str().expect("a text").to_owned()))
}

fn prepared() -> Lab {
    Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab")
}

/// Pings of the LAN to the node itself, which are not ours.
fn not_ours(lab: &Lab) {
    assert!(ping(&lab.gateway.namespace, NODE_LAN, 3, SECOND).expect("ping").all_answered());
}

#[test]
fn t01_tail_program_sees_misses_and_none_of_ours() {
    let lab = lab(&Plan::default());
    let tail = ForeignProgram::attach(&lab.node.namespace, "eth0").expect("attach");
    page(lab.client(), GATEWAY);
    page(lab.client(), GATEWAY6);
    assert!(answered(&flow(lab.client(), GATEWAY), b"ours"));
    not_ours(&lab);
    let seen = [ICMP, TCP, UDP].map(|protocol| tail.ipv4(protocol).expect("read"));
    assert_eq!(seen, [3, 0, 0], "ICMP, TCP, UDP");
    assert_eq!(tail.ipv6(TCP).expect("read"), 0);
}

#[test]
fn t02_order_and_flows_stay_over_updates_of_a_foreign_program() {
    let mut lab = prepared();
    let mut foreign = ForeignProgram::attach(&lab.node.namespace, "eth0").expect("attach");
    lab.up().expect("up");
    let chain = || ForeignProgram::chain(&lab.node.namespace, "eth0").expect("query");
    let socket = flow(lab.client(), GATEWAY);
    assert!(answered(&socket, b"first"));
    let [ours, theirs] = chain()[..] else { panic!("two programs: {:?}", chain()) };
    for _ in 0..3 {
        foreign.update(Behaviour::CountAndPass).expect("update");
        assert!(answered(&socket, b"updated"));
        not_ours(&lab);
        assert_eq!((foreign.ipv4(UDP).expect("read"), foreign.ipv4(ICMP).expect("read")), (0, 3));
        assert_eq!(chain().first(), Some(&ours), "the order stays");
        assert_ne!(chain().last(), Some(&theirs), "the program is another one");
    }
    drop(foreign);
    assert_eq!(chain(), [ours]);
    let foreign = ForeignProgram::attach(&lab.node.namespace, "eth0").expect("attach");
    assert!(answered(&socket, b"attached again"));
    assert_eq!((chain().len(), chain()[0], foreign.ipv4(UDP).expect("read")), (2, ours, 0));
    let senders = [&b"first"[..], b"attached again"].map(|content| lab.gateway.senders_of(content)[0]);
    assert_eq!(senders[0], senders[1], "the mapping stays");
}

#[test]
fn t03_a_wipe_of_all_legacy_filters_harms_nothing() {
    let lab = lab(&Plan::default());
    let socket = flow(lab.client(), GATEWAY);
    assert!(answered(&socket, b"before"));
    for device in ["eth0", "wt0"] {
        let node = &lab.node.namespace;
        // A qdisc may be ours or not; filters are wiped in both directions.
        let _ = node.exec("tc", &["qdisc", "add", "dev", device, "clsact"]);
        for direction in ["ingress", "egress"] {
            node.exec("tc", &["filter", "delete", "dev", device, direction]).expect("wipe");
        }
    }
    assert!(answered(&socket, b"after"));
    page(lab.client(), GATEWAY);
    assert_eq!(lab.gateway.senders_of(b"before"), lab.gateway.senders_of(b"after"));
}

#[test]
fn t04_a_legacy_filter_behind_us_sees_misses_and_none_of_ours() {
    let lab = lab(&Plan::default());
    let filter = LegacyFilter::attach(&lab.node.namespace, "eth0").expect("tc");
    assert!(answered(&flow(lab.client(), GATEWAY), b"ours"));
    page(lab.client(), GATEWAY);
    not_ours(&lab);
    let seen = [ICMP, TCP, UDP].map(|protocol| filter.ipv4(protocol).expect("read"));
    assert_eq!(seen, [3, 0, 0], "ICMP, TCP, UDP");
    LegacyFilter::wipe(&lab.node.namespace, "eth0").expect("tc");
    not_ours(&lab);
    assert_eq!(filter.ipv4(ICMP).expect("read"), 3, "it is gone");
    page(lab.client(), GATEWAY);
}

#[test]
fn t04_as_legacy_filters_we_forward_live_on_and_go() {
    let mut lab = prepared();
    lab.node.arguments = ["--attach", "clsact", "--keep-dataplane"].map(str::to_owned).to_vec();
    lab.up().expect("up");
    let socket = flow(lab.client(), GATEWAY);
    for round in ["at first", "after kill -9", "after a clean restart"] {
        match round {
            "after kill -9" => lab.node.kill().expect("kill"),
            "after a clean restart" => assert!(lab.node.stop().expect("stop").success()),
            _ => {}
        }
        if round != "at first" {
            lab.node.start().expect("start");
        }
        // A page repeats what is lost until the new session stands, milliseconds after the start; a datagram does not.
        for service in [GATEWAY, GATEWAY6] {
            page(lab.client(), service);
            assert!(ping(&lab.client().namespace, service, 1, SECOND).expect("ping").all_answered(), "{round}");
        }
        assert!(answered(&socket, round.as_bytes()), "{round}");
    }
    let senders = [&b"at first"[..], b"after a clean restart"].map(|content| lab.gateway.senders_of(content)[0]);
    assert_eq!(senders[0], senders[1], "the mapping stays");
    assert_eq!(lab.node.kernel_forwarded().expect("counters"), 0);
    assert_eq!(ForeignProgram::chain_length(&lab.node.namespace, "eth0").expect("query"), 0, "no TCX program");
    lab.node.kill().expect("kill");
    lab.node.arguments.retain(|argument| argument != "--keep-dataplane");
    lab.node.start().expect("start");
    lab.node.stop().expect("stop");
    assert_eq!(lab.node.pins().expect("pins"), Vec::<std::path::PathBuf>::new());
    let filters = lab.node.namespace.exec("tc", &["filter", "show", "dev", "eth0", "ingress"]).expect("tc");
    assert_eq!(filters.trim(), "");
}

#[test]
fn t05_ports_below_the_trackers_range_are_left_alone_and_ports_above_are_lost() {
    for (ports, expected) in [(None, true), (Some("40000-40999"), false)] {
        let mut lab = prepared();
        if let Some(ports) = ports {
            lab.node.arguments = vec!["--nat-ports".to_owned(), ports.to_owned()];
        }
        let node = &lab.node.namespace;
        let attach = |hook, what| ForeignProgram::attach_as(node, "eth0", "tracker", hook, what).expect("attach");
        let tracker = [
            attach(Hook::EgressTail, Behaviour::ChangeHighSource),
            attach(Hook::IngressTail, Behaviour::RestoreHighDestination),
        ];
        lab.up().expect("up");
        page(lab.client(), GATEWAY);
        let socket = flow(lab.client(), GATEWAY);
        assert_eq!(socket.ask(b"tracked?", SECOND).expect("send"), expected, "{ports:?}");
        assert_eq!(lab.gateway.senders_of(b"tracked?").len(), 1, "it always arrives; the answer is what gets lost");
        drop(tracker);
    }
}

#[test]
fn t06_what_leaves_has_no_mark_no_queue_and_no_tc_index() {
    let lab = lab(&Plan::default());
    let node = &lab.node.namespace;
    let strict = ForeignProgram::attach_as(node, "eth0", "strict", Hook::EgressTail, Behaviour::DropMarked);
    let strict = strict.expect("attach");
    page(lab.client(), GATEWAY);
    page(lab.client(), GATEWAY6);
    assert!(answered(&flow(lab.client(), GATEWAY), b"clean"));
    assert!(ping(&lab.client().namespace, GATEWAY, 3, SECOND).expect("ping").all_answered());
    let (clean, marked) = (strict.ipv4(0).expect("read"), strict.ipv4(1).expect("read"));
    assert_eq!(marked, 0);
    assert!(clean > 10, "{clean} packets passed it");
}

#[test]
fn t07_untracked_packets_are_translated_all_the_same() {
    let lab = lab(&Plan::default());
    let rules = "table ip raw {
        chain in { type filter hook prerouting priority raw; notrack; }
        chain out { type filter hook output priority raw; notrack; }
    }
    table ip nat {
        chain after { type nat hook postrouting priority srcnat; }
    }";
    nft(&lab.node.namespace, rules);
    assert_eq!(page(lab.client(), GATEWAY), format!("Hello from the LAN, {NODE_LAN}\n"));
    assert!(answered(&flow(lab.client(), GATEWAY), b"untracked"));
    assert!(ping(&lab.client().namespace, GATEWAY, 3, SECOND).expect("ping").all_answered());
}

#[test]
fn t08_rules_of_the_nodes_firewall_do_not_matter_to_forwarding() {
    let lab = lab(&Plan::default());
    let rules = "table inet strict {
        chain forward { type filter hook forward priority filter; policy drop; meta mark == 0x1bd10 accept; }
        chain mangle { type filter hook prerouting priority mangle; meta mark set meta mark & 0xfffeffff; }
        chain leave { type filter hook postrouting priority mangle; ip saddr 100.64.0.0/10 drop; }
    }";
    nft(&lab.node.namespace, rules);
    for service in [GATEWAY, GATEWAY6] {
        page(lab.client(), service);
        assert!(answered(&flow(lab.client(), service), b"past the firewall"));
    }
    assert_eq!(lab.node.kernel_forwarded().expect("counters"), 0);
}

fn nft(namespace: &Namespace, rules: &str) {
    namespace.write("/run/lab/rules.nft".as_ref(), rules).expect("write");
    namespace.exec("nft", &["-f", "/run/lab/rules.nft"]).expect("nft");
}

#[test]
fn t09_no_sysctl_changes() {
    let mut lab = prepared();
    let before = sysctls(&lab.node.namespace);
    assert!(before.len() > 100, "{} sysctls", before.len());
    for key in ["conf/all/src_valid_mark", "conf/all/rp_filter", "conf/eth0/rp_filter", "ip_local_reserved_ports"] {
        assert!(before.contains_key(&format!("/proc/sys/net/ipv4/{key}")), "{key}");
    }
    lab.up().expect("up");
    page(lab.client(), GATEWAY);
    page(lab.client(), GATEWAY6);
    let during = sysctls(&lab.node.namespace);
    assert_eq!(different(&before, &during), BTreeMap::new());
    lab.node.stop().expect("stop");
    assert_eq!(different(&before, &sysctls(&lab.node.namespace)), BTreeMap::new());
}

/// All settings of the namespace's network but those of wt0 itself, which comes and goes.
fn sysctls(namespace: &Namespace) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![std::path::PathBuf::from("/proc/sys/net")];
    namespace.enter(|| {
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    directories.push(path);
                } else if let Ok(value) = fs::read_to_string(&path) {
                    found.insert(path.display().to_string(), value);
                }
            }
        }
    });
    // Lifetimes count down, and the number of tracked connections goes with the traffic.
    found.retain(|path, _| !path.contains("/wt0/") && !path.ends_with("_count") && !path.contains("/netfilter/"));
    found
}

fn different(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> BTreeMap<String, [String; 2]> {
    let keys = one.keys().chain(other.keys());
    let pair = |key: &String| [one, other].map(|map| map.get(key).cloned().unwrap_or_default());
    keys.map(|key| (key.clone(), pair(key))).filter(|(_, [one, other])| one != other).collect()
}

#[test]
fn t11_forwards_ahead_of_a_cilium_program_on_wt0() {
    let mut lab = lab(&Plan::default());
    let node = lab.node.namespace.clone();
    let name = "cil_from_netdev";
    assert_eq!(finding(&lab, "cilium_device"), None);
    let cilium = ForeignProgram::attach_as(&node, "wt0", name, Hook::IngressTail, Behaviour::CountAndPass);
    let cilium = cilium.expect("attach");
    cilium.pin_as_cilium(&node, "wt0", name).expect("pin");
    let (what, remedy) = finding(&lab, "cilium_device").expect("doctor reports it");
    assert!(what.contains(name) && remedy.contains("devices=eth0"), "{what}; {remedy}");
    let socket = flow(lab.client(), GATEWAY);
    assert!(answered(&socket, b"first"));
    page(lab.client(), GATEWAY);
    // And when it took the device while the daemon was away.
    lab.node.kill().expect("kill");
    let chain = ForeignProgram::chain(&lab.node.namespace, "wt0").expect("query");
    lab.node.start().expect("start");
    // Its session has gone with the daemon: the member makes another.
    assert!(answered_within(PATIENCE, &socket, b"second"));
    let now = ForeignProgram::chain(&lab.node.namespace, "wt0").expect("query");
    assert_eq!((now.len(), now.last()), (3, chain.last()), "ours first, theirs untouched");
}

#[test]
fn t12_a_redirect_without_link_header_shows_in_the_counters() {
    let lab = lab(&Plan::default());
    let node = &lab.node.namespace;
    let socket = flow(lab.client(), GATEWAY);
    assert!(answered(&socket, b"warm"));
    let moved = |count: usize| {
        let before = (forwarded(&lab), sent(node));
        for length in 1..=count {
            // Each longer than the one before: nothing is joined on the way.
            socket.send(&vec![0; length]).expect("send");
        }
        // Packets that are too many, or come late, are looked for as well.
        thread::sleep(SECOND / 5);
        (forwarded(&lab) - before.0, sent(node) - before.1)
    };
    let (by_us, by_device) = moved(100);
    assert_eq!(by_us, 100);
    assert!((100..105).contains(&by_device), "{by_device} left the device");
    // The fault: what the daemon's program does, but for the header.
    let index = node.exec("cat", &["/sys/class/net/eth0/ifindex"]).expect("cat").trim().parse().expect("a number");
    let bare = Behaviour::RedirectBare(index);
    let fault = ForeignProgram::attach_as(node, "wt0", "fault", Hook::IngressHead, bare).expect("attach");
    let (_, by_device) = moved(100);
    assert_eq!(fault.ipv4(0).expect("read"), 100, "the fault redirected all of them");
    assert!(by_device < 5, "the kernel freed them in silence, but {by_device} left");
}

fn forwarded(lab: &Lab) -> u64 {
    lab.node.metric("peer_packets_total", &[("path", "forwarded_out")]).expect("metrics") as u64
}

fn sent(node: &Namespace) -> u64 {
    node.exec("cat", &["/sys/class/net/eth0/statistics/tx_packets"]).expect("cat").trim().parse().expect("a number")
}

#[test]
fn t28_another_first_program_is_reported_and_not_fought() {
    let mut lab = lab(&Plan::default());
    let socket = flow(lab.client(), GATEWAY);
    assert!(answered(&socket, b"before"));
    let node = lab.node.namespace.clone();
    let other = ForeignProgram::attach_as(&node, "eth0", "other", Hook::IngressHead, Behaviour::CountAndNext);
    let other = other.expect("attach");
    assert!(answered(&socket, b"behind one that lets pass"));
    assert!(other.ipv4(UDP).expect("read") >= 1, "it sees our answers first");
    let chain = ForeignProgram::chain(&node, "eth0").expect("query");
    assert_eq!(chain.len(), 2);
    let (what, remedy) = finding(&lab, "order").expect("doctor reports it");
    assert!(what.contains("eth0") && remedy.contains("not fought"), "{what}; {remedy}");
    // Longer than the daemon waits between two looks.
    let conflicts = lab.node.await_metric(SECOND * 15, 1.0, "peer_doctor_findings", &[("check", "order")]);
    assert_eq!(conflicts.expect("metrics"), 1.0, "and so do metrics");
    let position = lab.node.metric("peer_program_position", &[("device", "eth0")]).expect("metrics");
    assert_eq!(position, 1.0);
    assert_eq!(ForeignProgram::chain(&node, "eth0").expect("query"), chain, "nothing was moved");
    assert!(answered(&socket, b"and nothing was lost"));
    drop(other);
    let first = Client::overlay(lab.client());
    let shadow = ForeignProgram::attach_as(&node, "eth0", "shadow", Hook::IngressHead, Behaviour::CountAndPass);
    let shadow = shadow.expect("attach");
    let socket = EchoSocket::open(&lab.client().namespace, (GATEWAY, ECHO_PORT).into()).expect("socket");
    assert!(!socket.ask(b"in the shadow", SECOND / 2).expect("send"), "{first} gets no answer behind an OK");
    drop(shadow);
    assert!(answered(&socket, b"in the light"));
    assert!(lab.node.daemon().expect("daemon").ended().expect("status").is_none());
}
