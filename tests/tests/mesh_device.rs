//! The mesh device while somebody else changes it, and on nodes that refuse it an address.

mod common;

use std::net::IpAddr;

use common::{PATIENCE, SECOND, page};
use peer_tests::lab::{
    Binaries, GATEWAY, GATEWAY6, Lab, Mesh, MeshPlan, NODE_OVERLAY, NODE_OVERLAY6, OVERLAY, OVERLAY6, Plan, RuleEntry,
    page_within, ping, sysctl, wait_for,
};

/// What somebody does to the device; counters that tell.
type Meddling = (&'static [&'static [&'static str]], &'static [&'static str]);

const MEDDLING: [Meddling; 6] = [
    (&[&["link", "set", "wt0", "down"]], &["down", "address"]),
    (&[&["link", "set", "wt0", "down"], &["link", "set", "wt0", "up"]], &["address"]),
    (&[&["address", "flush", "dev", "wt0"]], &["address"]),
    (&[&["-4", "route", "flush", "dev", "wt0"]], &["route"]),
    (&[&["-6", "route", "flush", "dev", "wt0"]], &["route"]),
    (&[&["link", "set", "wt0", "mtu", "1200"]], &["mtu"]),
];

/// A lab whose members may reach the node itself as well.
fn prepared() -> Lab {
    let mut lab = Lab::prepare(&Plan::default(), &Binaries::find().expect("programs")).expect("lab");
    lab.node.config.rules.push(RuleEntry::new("accept", "any", &[OVERLAY, OVERLAY6], &[]));
    lab
}

fn lab() -> Lab {
    let mut lab = prepared();
    lab.up().expect("up");
    lab
}

fn answers(lab: &Lab, address: IpAddr) -> bool {
    ping(&lab.client().namespace, address, 1, SECOND).is_ok_and(|pings| pings.all_answered())
}

/// The node and what is behind it, in both families.
#[track_caller]
fn everything_answers(lab: &Lab, after: &str) {
    for address in [NODE_OVERLAY, NODE_OVERLAY6, GATEWAY, GATEWAY6] {
        assert!(wait_for(PATIENCE, || answers(lab, address)), "{address} after {after}");
    }
}

fn is_ready(lab: &Lab) -> bool {
    lab.node.probe("/readyz").is_ok_and(|(status, _)| status == 200)
}

#[test]
fn what_somebody_changes_about_the_mesh_device_is_put_back() {
    let mut lab = lab();
    everything_answers(&lab, "the start");
    for (commands, counters) in MEDDLING {
        let count = |what: &str| lab.node.metric("peer_mesh_device_repairs_total", &[("what", what)]).expect("metric");
        let before: Vec<f64> = counters.iter().map(|what| count(what)).collect();
        for command in commands {
            lab.node.namespace.exec("ip", command).expect("ip");
        }
        for (what, before) in counters.iter().zip(before) {
            assert!(wait_for(PATIENCE, || count(what) > before), "{commands:?} is counted as {what}");
        }
        everything_answers(&lab, &format!("{commands:?}"));
        assert!(wait_for(PATIENCE, || is_ready(&lab)), "after {commands:?}");
    }
    // The kernel reports no change of a sysctl: the next look finds it.
    sysctl(&lab.node.namespace, "net/ipv4/conf/wt0/forwarding", "0").expect("sysctl");
    let forwarding = || lab.node.namespace.read("/proc/sys/net/ipv4/conf/wt0/forwarding").expect("sysctl");
    assert!(wait_for(PATIENCE, || forwarding().trim() == "1"));
    page(lab.client(), GATEWAY);
    let log = lab.node.daemon().expect("it runs").log();
    let lines = log.lines().filter(|line| line.contains("another program changed it")).count();
    assert!((1..=6).contains(&lines), "each kind of change has one line:\n{log}");
}

#[test]
fn a_program_that_fights_for_the_mesh_device_keeps_the_node_from_being_ready() {
    let lab = lab();
    let down = || lab.node.namespace.exec("ip", &["link", "set", "wt0", "down"]).expect("ip");
    // Three repairs follow at once. After these only the looks repair, and the node says what is wrong meanwhile.
    let mut answer = (200, String::new());
    let not_ready = wait_for(SECOND * 20, || {
        down();
        std::thread::sleep(SECOND / 5);
        answer = lab.node.probe("/readyz").expect("an answer");
        answer.0 == 503
    });
    assert!(not_ready && answer.1.contains("mesh_device: not ready") && answer.1.contains("it is down"), "{answer:?}");
    let repairs = lab.node.metric("peer_mesh_device_repairs_total", &[("what", "down")]).expect("metric");
    assert!(repairs <= 6.0, "{repairs} repairs: no busy loop");
    assert!(wait_for(PATIENCE, || is_ready(&lab)), "the next look puts it right");
    everything_answers(&lab, "the fight");
}

#[test]
fn without_ipv6_a_file_s_node_serves_ipv4_and_ipv6_comes_when_it_is_switched_on() {
    let mut lab = prepared();
    sysctl(&lab.node.namespace, "net/ipv6/conf/default/disable_ipv6", "1").expect("sysctl");
    lab.up().expect("up");
    page(lab.client(), GATEWAY);
    let remedy = lab.node.doctor().expect("doctor").to_string();
    for part in ["mesh_addresses", "disable_ipv6", "NB_DISABLE_IPV6=true"] {
        assert!(remedy.contains(part), "doctor names {part}: {remedy}");
    }
    let finding = || lab.node.metric("peer_doctor_findings", &[("check", "mesh_addresses")]).expect("metric");
    assert!(wait_for(PATIENCE, || finding() > 0.0));
    assert!(lab.node.status_text(&["-d"]).expect("status").contains("IPv6 is off"));
    sysctl(&lab.node.namespace, "net/ipv6/conf/wt0/disable_ipv6", "0").expect("sysctl");
    assert!(wait_for(PATIENCE * 2, || answers(&lab, NODE_OVERLAY6)), "the next look adds the address");
    page(lab.client(), GATEWAY6);
    assert!(wait_for(PATIENCE, || finding() < 1.0), "the finding ends");
    let log = lab.node.daemon().expect("it runs").log();
    assert_eq!(log.lines().filter(|line| line.contains("WARN") && line.contains("IPv6 is off")).count(), 1, "{log}");
}

#[test]
fn without_ipv6_a_node_of_a_network_with_ipv6_serves_ipv4() {
    let binaries = Binaries::find().expect("programs");
    let mut mesh = Mesh::prepare(&MeshPlan::default(), &binaries).expect("mesh");
    for which in ["all", "default"] {
        sysctl(&mesh.node.namespace, &format!("net/ipv6/conf/{which}/disable_ipv6"), "1").expect("sysctl");
    }
    mesh.node.start().expect("it starts, and is ready");
    mesh.join(Default::default()).expect("a member");
    page_within(PATIENCE, &mesh.member().namespace, GATEWAY).expect("a page");
    assert!(mesh.node.status_text(&["-d"]).expect("status").contains("IPv6 is off"));
}
