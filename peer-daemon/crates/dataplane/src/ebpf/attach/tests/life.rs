//! Restarts, upgrades and rollbacks.

use std::fs;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use peer_common::layout::ABI;

use super::lab::{at, chain, in_lab, mend};
use crate::Dataplane as _;
use crate::ebpf::EbpfDataplane;
use crate::sys::{self, TcxHook};

fn link(peer: &EbpfDataplane, program: &str) -> u32 {
    let attachments = peer.stats().expect("figures").attachments;
    attachments.iter().find(|attachment| attachment.program == program).expect("attached").link_id
}

#[test]
fn a_restart_updates_links_in_place() {
    in_lab(|lab| {
        let first = lab.up();
        let links = ["peer_wt0_in", "peer_wt0_out", "peer_uplink_in"].map(|program| link(&first, program));
        let programs = chain("eth0", TcxHook::Ingress);
        // As after a kill: nothing of ours runs on the way out.
        drop(first);
        assert_eq!(chain("eth0", TcxHook::Ingress), programs, "it goes on");
        let second = lab.up();
        assert_eq!(["peer_wt0_in", "peer_wt0_out", "peer_uplink_in"].map(|program| link(&second, program)), links);
        assert_ne!(chain("eth0", TcxHook::Ingress), programs);
        lab.down(second, true);
        assert_eq!(chain("eth0", TcxHook::Ingress).len(), 1, "kept");
        lab.down(lab.up(), false);
        assert_eq!(chain("eth0", TcxHook::Ingress), []);
        assert!(lab.pins().is_empty(), "{:?}", lab.pins());
    });
}

#[test]
fn another_program_in_our_place_is_reported_and_replaced() {
    in_lab(|lab| {
        let mut peer = lab.up();
        assert_eq!(at(&peer, "eth0").unreached(), None);
        let programs = chain("eth0", TcxHook::Ingress);
        let pin = lab.bpffs().join(format!("peer/wt0/v{ABI}/links/peer_uplink_in-eth0"));
        // As a peer of a release without the lock does, from another network namespace.
        let other = sys::lab::program("other", 0).expect("loaded");
        sys::link_at(&pin).expect("readable").expect("pinned").update(other.as_fd()).expect("updated");
        assert!(at(&peer, "eth0").unreached().is_some_and(|why| why.contains("is in its place")));
        mend(&mut peer, Instant::now());
        assert_eq!((at(&peer, "eth0").unreached(), chain("eth0", TcxHook::Ingress)), (None, programs));
        lab.down(peer, false);
    });
}

#[test]
fn another_version_is_taken_over_without_a_gap_and_then_removed() {
    in_lab(|lab| {
        let old = lab.up();
        let key = old.tables.config().expect("the config").hash_key;
        let (wt0, uplink) = (link(&old, "peer_wt0_in"), link(&old, "peer_uplink_in"));
        let programs = chain("eth0", TcxHook::Ingress);
        drop(old);
        // What a build with other layouts has left.
        let (root, current) = (lab.bpffs().join("peer/wt0"), format!("v{ABI}"));
        fs::rename(root.join(&current), root.join("v99")).expect("renamed");

        let mut new = lab.up();
        assert_eq!(new.tables.config().expect("the config").hash_key, key, "the same ports for the same flows");
        assert_eq!(link(&new, "peer_wt0_in"), wt0, "updated in place");
        assert_ne!(link(&new, "peer_uplink_in"), uplink);
        assert_eq!(at(&new, "eth0").position, Some(0));
        let both = chain("eth0", TcxHook::Ingress);
        assert_eq!(both[1..], programs, "the old one still knows the old flows");
        assert_eq!(chain("wt0", TcxHook::Ingress).len(), 2);
        let soon = Instant::now() + Duration::from_secs(30);
        mend(&mut new, soon);
        assert_eq!(chain("eth0", TcxHook::Ingress), both);
        mend(&mut new, soon + Duration::from_secs(31));
        assert!(!root.join("v99").exists());
        assert_eq!(chain("eth0", TcxHook::Ingress), both[..1]);
        assert_eq!((at(&new, "eth0").position, at(&new, "wt0").position), (Some(0), Some(0)));
        lab.down(new, false);
        assert!(lab.pins().is_empty(), "{:?}", lab.pins());
        assert_eq!((chain("eth0", TcxHook::Ingress), chain("wt0", TcxHook::Egress)), (vec![], vec![]));
    });
}

#[test]
fn killed_in_the_middle_of_a_takeover_and_rolled_back() {
    in_lab(|lab| {
        let (root, current) = (lab.bpffs().join("peer/wt0"), format!("v{ABI}"));
        drop(lab.up());
        fs::rename(root.join(&current), root.join("v99")).expect("renamed");
        drop(lab.up());
        // The older version comes back before what it left was removed.
        fs::rename(root.join(&current), root.join("v98")).expect("renamed");
        fs::rename(root.join("v99"), root.join(&current)).expect("renamed");
        let back = lab.up();
        assert_eq!((at(&back, "eth0").position, at(&back, "wt0").position), (Some(0), Some(0)));
        assert_eq!(chain("wt0", TcxHook::Ingress).len(), 2);
        lab.down(back, false);
        assert_eq!(chain("eth0", TcxHook::Ingress), [], "of no version");
        assert!(lab.pins().is_empty(), "{:?}", lab.pins());
    });
}
