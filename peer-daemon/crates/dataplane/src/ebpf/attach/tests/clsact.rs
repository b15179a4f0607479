//! Legacy filters, as on kernels without TCX.

use std::os::fd::AsFd as _;

use super::lab::{Foreign, Lab, at, chain, in_lab, run};
use crate::ebpf::Attach;
use crate::sys::{self, TcxHook};
use crate::tc::{Filter, Tc};
use crate::{Dataplane as _, Error};

fn filters(device: &str, hook: TcxHook) -> Vec<Filter> {
    let index = sys::ifindex(device).expect("the device");
    Tc::connect().and_then(|mut tc| tc.filters(index, hook)).expect("filters")
}

fn names(device: &str) -> Vec<String> {
    filters(device, TcxHook::Ingress).into_iter().map(|filter| filter.name.unwrap_or(filter.kind)).collect()
}

/// A filter of somebody else's.
fn foreign(name: &str, priority: u16, handle: u32) -> Filter {
    let filter = Filter { priority, handle, kind: "bpf".into(), name: Some(name.into()), program: None };
    let index = sys::ifindex("eth0").expect("eth0");
    let program = sys::lab::program("foreign", 0).expect("loaded");
    let mut tc = Tc::connect().expect("a socket");
    tc.add_clsact(index).expect("a qdisc");
    tc.set_filter(index, TcxHook::Ingress, &filter, program.as_fd(), false).expect("a filter");
    filter
}

fn has_clsact(device: &str) -> bool {
    let output = std::process::Command::new("tc").args(["qdisc", "show", "dev", device]).output().expect("tc");
    String::from_utf8_lossy(&output.stdout).contains("clsact")
}

fn clsact(lab: &mut Lab) {
    lab.options.attach = Attach::Clsact;
}

#[test]
fn filters_are_set_kept_over_a_restart_and_removed() {
    in_lab(|lab| {
        clsact(lab);
        let peer = lab.up();
        assert_eq!(chain("eth0", TcxHook::Ingress), [], "no TCX");
        let first = filters("eth0", TcxHook::Ingress);
        assert_eq!((first.len(), first[0].priority), (1, 1));
        assert_eq!(first[0].name.as_deref(), Some("peer_uplink_in/wt0"));
        assert_eq!(filters("wt0", TcxHook::Egress)[0].name.as_deref(), Some("peer_wt0_out/wt0"));
        assert_eq!((at(&peer, "eth0").position, at(&peer, "eth0").unreached()), (Some(0), None));
        assert!(peer.mode().why.contains("clsact"));
        drop(peer);
        let again = lab.up();
        let second = filters("eth0", TcxHook::Ingress);
        assert_eq!((second.len(), second[0].handle), (1, first[0].handle), "in place");
        assert_ne!(second[0].program, first[0].program);
        lab.down(again, false);
        assert_eq!(names("eth0"), [""; 0]);
        assert!(!has_clsact("eth0") && !has_clsact("wt0"), "the qdiscs were ours");
        assert!(lab.pins().is_empty(), "{:?}", lab.pins());
    });
}

#[test]
fn what_others_have_stays() {
    in_lab(|lab| {
        clsact(lab);
        foreign("somebody", 1, 3);
        foreign("cil_from_netdev-eth0", 2, 1);
        let peer = lab.up();
        assert_eq!(names("eth0"), ["peer_uplink_in/wt0", "somebody", "cil_from_netdev-eth0"]);
        lab.down(peer, false);
        assert_eq!(names("eth0"), ["somebody", "cil_from_netdev-eth0"]);
        assert!(has_clsact("eth0") && !has_clsact("wt0"));
    });
}

#[test]
fn test_4_beside_cilium_at_priority_1_it_is_refused_unless_allowed() {
    in_lab(|lab| {
        clsact(lab);
        let cilium = foreign("cil_from_netdev-eth0", 1, 1);
        let mut refused = lab.open();
        let error = lab.follow(&mut refused).expect_err("unsafe");
        let text = error.to_string();
        assert!(matches!(error, Error::Order { .. }), "{text}");
        assert!(text.contains("bpf-filter-priority") && text.contains("--allow-unsafe-order"), "{text}");
        lab.down(refused, false);
        assert_eq!(names("eth0"), ["cil_from_netdev-eth0"]);
        assert!(lab.pins().is_empty(), "{:?}", lab.pins());
        lab.options.allow_unsafe_order = true;
        let mut peer = lab.up();
        assert_eq!(names("eth0"), ["peer_uplink_in/wt0", "cil_from_netdev-eth0"]);
        // Cilium deletes its own and makes it anew: the newest is first.
        let index = sys::ifindex("eth0").expect("eth0");
        let mut tc = Tc::connect().expect("a socket");
        tc.remove_filter(index, TcxHook::Ingress, &cilium).expect("removed");
        foreign("cil_from_netdev-eth0", 1, 1);
        assert!(at(&peer, "eth0").unreached().is_some_and(|why| why.contains("cil_from_netdev-eth0")));
        peer.reconcile().expect("mended");
        assert_eq!(names("eth0"), ["peer_uplink_in/wt0", "cil_from_netdev-eth0"]);
        lab.down(peer, false);
        assert_eq!(names("eth0"), ["cil_from_netdev-eth0"]);
    });
}

#[test]
fn beside_cilium_by_tcx_a_filter_would_never_run() {
    in_lab(|lab| {
        clsact(lab);
        lab.options.allow_unsafe_order = true;
        let _cilium = Foreign::attach("cil_from_netdev", "eth0", false);
        let mut refused = lab.open();
        let error = lab.follow(&mut refused).expect_err("dead code").to_string();
        assert!(error.contains("attached by TCX"), "{error}");
        lab.down(refused, false);
    });
}

#[test]
fn nobodys_filter_is_overwritten() {
    in_lab(|lab| {
        clsact(lab);
        let peer = lab.up();
        let own = filters("eth0", TcxHook::Ingress)[0].clone();
        lab.down(peer, false);
        foreign("somebody", own.priority, own.handle);
        let mut refused = lab.open();
        let error = lab.follow(&mut refused).expect_err("taken").to_string();
        assert!(error.contains("somebody"), "{error}");
        lab.down(refused, false);
        assert_eq!(names("eth0"), ["somebody"]);
        run("tc", "qdisc del dev eth0 clsact");
        run("tc", "qdisc add dev eth0 ingress");
        let mut refused = lab.open();
        let error = lab.follow(&mut refused).expect_err("another qdisc").to_string();
        assert!(error.contains("ingress"), "{error}");
        lab.down(refused, false);
    });
}

#[test]
fn a_filter_that_was_wiped_is_set_again() {
    in_lab(|lab| {
        clsact(lab);
        let mut peer = lab.up();
        run("tc", "filter del dev eth0 ingress");
        assert_eq!(at(&peer, "eth0").position, None);
        peer.reconcile().expect("mended");
        assert_eq!(at(&peer, "eth0").position, Some(0));
        lab.down(peer, false);
    });
}

#[test]
fn from_filters_to_links_and_back_nothing_is_left() {
    in_lab(|lab| {
        for attach in [Attach::Clsact, Attach::Tcx, Attach::Clsact, Attach::Tcx] {
            lab.options.attach = attach;
            let peer = lab.up();
            let (links, count) = (chain("eth0", TcxHook::Ingress).len(), names("eth0").len());
            assert_eq!((links, count), if attach == Attach::Tcx { (1, 0) } else { (0, 1) });
            drop(peer);
        }
        assert!(!has_clsact("eth0"));
        lab.down(lab.up(), false);
        assert!(lab.pins().is_empty(), "{:?}", lab.pins());
    });
}

#[test]
fn test_3_wiping_all_legacy_filters_does_not_touch_links() {
    in_lab(|lab| {
        let mut peer = lab.up();
        foreign("somebody", 1, 3);
        run("tc", "filter del dev eth0 ingress");
        peer.reconcile().expect("nothing to mend");
        assert_eq!((at(&peer, "eth0").position, peer.stats().expect("figures").repairs.attached), (Some(0), 0));
        lab.down(peer, false);
    });
}
