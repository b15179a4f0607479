//! Devices that come, go, and are made of others.

use peer_core::desired::UplinkChoice;

use super::lab::{Lab, at, chain, in_lab, ip};
use crate::Dataplane as _;
use crate::ebpf::EbpfDataplane;
use crate::sys::TcxHook;

fn named(name: &str) -> UplinkChoice {
    UplinkChoice::Named(name.into())
}

fn unserved(peer: &EbpfDataplane) -> Option<String> {
    peer.stats().expect("figures").routes[0].unserved.clone()
}

fn uplinks(peer: &EbpfDataplane) -> Vec<String> {
    peer.stats().expect("figures").routes.iter().flat_map(|route| route.uplinks.clone()).collect()
}

#[test]
fn test_20_a_device_that_was_made_anew_gets_a_new_link() {
    in_lab(|lab| {
        let mut peer = lab.up();
        let old = at(&peer, "eth0");
        ip("link del eth0");
        lab.follow(&mut peer).expect("applied");
        assert!(unserved(&peer).is_some());
        lab.add_eth0();
        lab.follow(&mut peer).expect("applied");
        let new = at(&peer, "eth0");
        assert_ne!((new.ifindex, new.link_id), (old.ifindex, old.link_id));
        assert_eq!((new.position, unserved(&peer)), (Some(0), None));
        lab.down(peer, false);
        assert!(lab.pins().is_empty(), "{:?}", lab.pins());
    });
}

#[test]
fn test_20_while_the_daemon_was_away() {
    in_lab(|lab| {
        let old = lab.up();
        let links = [at(&old, "eth0").link_id, at(&old, "wt0").link_id];
        drop(old);
        ip("link del eth0");
        ip("link del wt0");
        lab.add_eth0();
        lab.add_wt0();
        let peer = lab.up();
        assert!(!links.contains(&at(&peer, "eth0").link_id) && !links.contains(&at(&peer, "wt0").link_id));
        assert_eq!((at(&peer, "eth0").position, at(&peer, "wt0").position), (Some(0), Some(0)));
        lab.down(peer, false);
        assert!(lab.pins().is_empty(), "{:?}", lab.pins());
    });
}

#[test]
fn an_uplink_may_come_late() {
    in_lab(|lab| {
        lab.routes = vec![("10.0.0.0/8", named("late0"))];
        let mut peer = lab.up();
        assert!(unserved(&peer).is_some_and(|why| why.contains("no device late0")));
        ip("link add late0 type veth peer name late1");
        ip("addr add 10.0.0.1/24 dev late0");
        ip("link set late0 up");
        ip("link set late1 up");
        lab.follow(&mut peer).expect("applied");
        assert_eq!((unserved(&peer), at(&peer, "late0").position), (None, Some(0)));
        lab.down(peer, false);
    });
}

/// A route by `name` is served; the ports of it refuse to be named, with the advice to name it.
fn check(lab: &mut Lab, name: &'static str, port: Option<&'static str>) {
    lab.routes = vec![("10.0.0.0/8", named(name))];
    let mut peer = lab.up();
    assert_eq!((unserved(&peer), at(&peer, name).position), (None, Some(0)), "{name}");
    if let Some(port) = port {
        lab.routes = vec![("10.0.0.0/8", named(port))];
        lab.follow(&mut peer).expect("applied");
        assert_eq!(unserved(&peer), Some(format!("{port} belongs to {name}: name that one")));
        assert_eq!(chain(port, TcxHook::Ingress), []);
    }
    lab.down(peer, false);
    assert!(lab.pins().is_empty(), "{:?}", lab.pins());
}

#[test]
#[ignore = "needs a kernel with VLAN devices (CONFIG_VLAN_8021Q): run it there with --ignored"]
fn test_23_a_vlan_is_an_uplink() {
    in_lab(|lab| {
        ip("link add link eth0 name eth0.100 type vlan id 100");
        ip("addr add 10.0.0.1/24 dev eth0.100");
        ip("link set eth0.100 up");
        check(lab, "eth0.100", None);
    });
}

/// No pin can have such a name as it is.
#[test]
fn test_23_a_device_with_the_name_of_a_vlan_is_an_uplink() {
    in_lab(|lab| {
        ip("link add eth0.100 type veth peer name other");
        ip("addr add 10.0.0.1/24 dev eth0.100");
        ip("link set eth0.100 up");
        ip("link set other up");
        check(lab, "eth0.100", None);
    });
}

#[test]
fn test_23_a_bridge_is_an_uplink_and_its_port_is_none() {
    in_lab(|lab| {
        ip("link add br0 type bridge");
        ip("link add port0 type veth peer name port1");
        ip("link set port1 up");
        ip("link set port0 master br0 up");
        ip("addr add 10.0.0.1/24 dev br0");
        ip("link set br0 up");
        check(lab, "br0", Some("port0"));
    });
}

#[test]
#[ignore = "needs a kernel with bond devices (CONFIG_BONDING): run it there with --ignored"]
fn test_23_a_bond_is_an_uplink_and_its_slave_is_none() {
    in_lab(|lab| {
        ip("link add bond0 type bond");
        ip("link add slave0 type veth peer name slave1");
        ip("link set slave0 master bond0");
        ip("link set slave1 up");
        ip("addr add 10.0.0.1/24 dev bond0");
        ip("link set bond0 up");
        check(lab, "bond0", Some("slave0"));
    });
}

#[test]
fn an_uplink_that_is_down_or_without_carrier_serves_nothing_and_keeps_its_program() {
    in_lab(|lab| {
        lab.routes = vec![("10.0.0.0/8", named("eth0"))];
        let mut peer = lab.up();
        assert_eq!(unserved(&peer), None);
        for (command, why) in [
            ("link set lan0 down", Some("eth0 has no carrier")),
            ("link set eth0 down", Some("eth0 is down")),
            ("link set lan0 up", Some("eth0 is down")),
            ("link set eth0 up", None),
        ] {
            ip(command);
            lab.follow(&mut peer).expect("applied");
            assert_eq!(unserved(&peer).as_deref(), why, "{command}");
            assert_eq!(at(&peer, "eth0").position, Some(0), "{command}");
        }
        lab.down(peer, false);
    });
}

#[test]
fn test_24_several_uplinks_are_attached_each() {
    in_lab(|lab| {
        ip("link add eth1 type veth peer name lan1");
        ip("addr add 203.0.113.1/24 dev eth1");
        ip("link set eth1 up");
        ip("link set lan1 up");
        lab.routes = vec![("198.51.100.0/24", UplinkChoice::Auto), ("203.0.113.0/24", UplinkChoice::Auto)];
        let mut peer = lab.up();
        assert_eq!(uplinks(&peer), ["eth0", "eth1"]);
        assert_eq!((at(&peer, "eth0").position, at(&peer, "eth1").position), (Some(0), Some(0)));
        lab.routes.pop();
        lab.follow(&mut peer).expect("applied");
        assert_eq!(chain("eth1", TcxHook::Ingress), [], "an uplink that is none any more");
        lab.down(peer, false);
    });
}

#[test]
fn a_device_without_ethernet_is_refused_with_the_reason() {
    in_lab(|lab| {
        ip("tuntap add dev tun7 mode tun");
        ip("addr add 10.0.0.1/24 dev tun7");
        ip("link set tun7 up");
        lab.routes = vec![("10.0.0.0/8", named("tun7"))];
        let peer = lab.up();
        assert!(unserved(&peer).is_some_and(|why| why.contains("no Ethernet header")), "{:?}", unserved(&peer));
        lab.down(peer, false);
    });
}
