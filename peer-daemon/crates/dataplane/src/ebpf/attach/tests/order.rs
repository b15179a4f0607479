//! The head of the chain: taken, taken back where that is right, never fought over.

use std::time::{Duration, Instant};

use peer_common::layout::ABI;

use super::lab::{Foreign, at, chain, in_lab, mend};
use crate::Dataplane as _;
use crate::chain::Owner;
use crate::sys::TcxHook;

#[test]
fn we_are_first_whoever_was_there_before() {
    in_lab(|lab| {
        let cilium = Foreign::attach("cil_from_netdev", "eth0", false);
        let peer = lab.up();
        let programs = chain("eth0", TcxHook::Ingress);
        assert_eq!((programs.len(), programs[1]), (2, cilium.id()));
        assert_eq!(at(&peer, "eth0").position, Some(0));
        lab.down(peer, false);
        assert_eq!(chain("eth0", TcxHook::Ingress), [cilium.id()], "what is another's stays");
        assert!(lab.pins().is_empty(), "{:?}", lab.pins());
    });
}

#[test]
fn behind_cilium_we_go_ahead_three_times_then_wait() {
    in_lab(|lab| {
        let mut peer = lab.up();
        let start = Instant::now();
        for round in 0..3 {
            let cilium = Foreign::attach("cil_from_netdev", "eth0", true);
            let behind = at(&peer, "eth0");
            assert_eq!((behind.position, behind.ahead[0].program), (Some(1), cilium.id()));
            assert!(behind.unreached().is_some_and(|why| why.contains("cil_from_netdev")));
            mend(&mut peer, start + Duration::from_secs(10 * round));
            assert_eq!((at(&peer, "eth0").position, at(&peer, "eth0").unreached()), (Some(0), None));
        }
        let _cilium = Foreign::attach("cil_from_netdev", "eth0", true);
        let before = chain("eth0", TcxHook::Ingress);
        for seconds in [30, 40, 50] {
            mend(&mut peer, start + Duration::from_secs(seconds));
        }
        assert_eq!(chain("eth0", TcxHook::Ingress), before, "left alone");
        let repairs = peer.stats().expect("figures").repairs;
        assert_eq!((repairs.attached, repairs.reordered, repairs.given_up), (0, 3, 3));
        mend(&mut peer, start + Duration::from_secs(3600));
        assert_eq!(at(&peer, "eth0").position, Some(0), "later it is tried again");
        lab.down(peer, false);
    });
}

#[test]
fn test_28_another_user_of_the_head_is_reported_and_not_fought() {
    in_lab(|lab| {
        let mut peer = lab.up();
        let other = Foreign::attach("someone", "eth0", true);
        let before = chain("eth0", TcxHook::Ingress);
        for _ in 0..20 {
            peer.reconcile().expect("nothing to mend");
        }
        assert_eq!(chain("eth0", TcxHook::Ingress), before);
        let stats = peer.stats().expect("figures");
        assert_eq!(stats.repairs, crate::Repairs::default());
        let attachment = at(&peer, "eth0");
        assert_eq!((attachment.position, attachment.unreached()), (Some(1), None), "it may let us see packets");
        assert_eq!(attachment.ahead[0].owner, Owner::Unknown(Some("someone".into())));
        assert_eq!(attachment.ahead[0].program, other.id());
        let found = peer.examine(&lab.intent(), &lab.node());
        assert!(found.iter().any(|finding| finding.what.contains(&format!("program {}", other.id()))), "{found:#?}");
        lab.down(peer, false);
    });
}

#[test]
fn what_was_taken_out_of_its_chain_is_attached_again() {
    in_lab(|lab| {
        let mut peer = lab.up();
        let pin = lab.bpffs().join(format!("peer/wt0/v{ABI}/links/peer_wt0_in-wt0"));
        let link = crate::sys::link_at(&pin).expect("a link").expect("pinned");
        link.detach().expect("detached");
        drop(link);
        assert!(at(&peer, "wt0").unreached().is_some_and(|why| why.contains("not attached")));
        peer.reconcile().expect("mended");
        assert_eq!(at(&peer, "wt0").position, Some(0));
        assert_eq!(peer.stats().expect("figures").repairs.attached, 1);
        lab.down(peer, false);
        assert!(lab.pins().is_empty());
    });
}
