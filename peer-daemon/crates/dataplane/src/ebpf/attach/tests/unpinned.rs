//! Without a bpffs: programs end with the process that has loaded them.

use peer_core::desired::UplinkChoice;

use super::lab::{Foreign, Lab, at, chain, in_lab, ip, mend};
use crate::doctor::{Check, Severity};
use crate::ebpf::Attach;
use crate::sys::{self, TcxHook};
use crate::tc::Tc;
use crate::{Dataplane as _, Error};

/// No bpffs is there from now on.
fn without_bpffs(lab: &mut Lab, attach: Attach) {
    lab.options.bpffs = lab.bpffs().join("none");
    lab.options.require_pins = false;
    lab.options.attach = attach;
}

fn filters(device: &str) -> Vec<String> {
    let index = sys::ifindex(device).expect("the device");
    let filters = Tc::connect().and_then(|mut tc| tc.filters(index, TcxHook::Ingress)).expect("filters");
    filters.into_iter().filter_map(|filter| filter.name).collect()
}

#[test]
fn links_hold_their_places_as_long_as_the_peer_lives() {
    in_lab(|lab| {
        without_bpffs(lab, Attach::Tcx);
        let mut peer = lab.up();
        for attachment in peer.stats().expect("figures").attachments {
            assert_eq!((attachment.position.is_some(), attachment.unreached()), (true, None), "{attachment:?}");
        }
        assert_eq!((chain("eth0", TcxHook::Ingress).len(), chain("wt0", TcxHook::Ingress).len()), (1, 2));
        // A device that was made anew gets a new link, and the reconciliation has nothing against it.
        ip("link del eth0");
        lab.add_eth0();
        lab.follow(&mut peer).expect("applied");
        peer.reconcile().expect("nothing is missing");
        assert_eq!(at(&peer, "eth0").position, Some(0));
        let found = peer.examine(&lab.intent(), &lab.node());
        let told: Vec<_> = found.iter().filter(|finding| finding.check == Check::Bpffs).collect();
        assert!(
            told.len() == 1 && told[0].severity == Severity::Warning && told[0].what.contains("flows end"),
            "{found:?}"
        );
        assert!(found.iter().all(|finding| finding.check != Check::Order), "{found:?}");
        lab.down(peer, false);
        assert_eq!((chain("eth0", TcxHook::Ingress), chain("wt0", TcxHook::Ingress)), (vec![], vec![]));
        // A crash takes the programs along.
        drop(lab.up());
        assert_eq!(chain("eth0", TcxHook::Ingress), []);
        assert!(lab.pins().is_empty() && !lab.options.bpffs.exists());
    });
}

#[test]
fn the_head_is_taken_back_without_pins() {
    in_lab(|lab| {
        without_bpffs(lab, Attach::Tcx);
        let mut peer = lab.up();
        let cilium = Foreign::attach("cil_from_netdev", "eth0", true);
        assert_eq!(at(&peer, "eth0").position, Some(1));
        mend(&mut peer, std::time::Instant::now());
        assert_eq!(at(&peer, "eth0").position, Some(0));
        assert_eq!(chain("eth0", TcxHook::Ingress).len(), 2, "the other one stays");
        assert_ne!(chain("eth0", TcxHook::Ingress)[0], cilium.id());
        lab.down(peer, false);
        assert_eq!(chain("eth0", TcxHook::Ingress), [cilium.id()]);
    });
}

#[test]
fn filters_of_a_life_that_crashed_are_replaced_or_removed_by_their_names() {
    in_lab(|lab| {
        without_bpffs(lab, Attach::Clsact);
        ip("link add eth1 type veth peer name lan1");
        ip("addr add 203.0.113.1/24 dev eth1");
        ip("link set eth1 up");
        ip("link set lan1 up");
        lab.routes.push(("203.0.113.0/24", UplinkChoice::Auto));
        drop(lab.up());
        let own = ["peer_uplink_in/wt0".to_owned()];
        assert_eq!((filters("eth0"), filters("eth1")), (own.clone().into(), own.clone().into()), "filters outlive it");
        lab.routes.pop();
        let mut peer = lab.up();
        assert_eq!((filters("eth0"), filters("eth1")), (own.clone().into(), vec![]), "none where none is needed");
        peer.reconcile().expect("in place");
        assert_eq!(at(&peer, "eth0").unreached(), None);
        lab.down(peer, false);
        assert_eq!((filters("eth0"), filters("wt0")), (vec![], vec![]));
        // By links from now on: filters of before would judge once more.
        lab.options.attach = Attach::Clsact;
        drop(lab.up());
        lab.options.attach = Attach::Tcx;
        let peer = lab.up();
        assert_eq!((filters("eth0"), chain("eth0", TcxHook::Ingress).len()), (vec![], 1));
        lab.down(peer, false);
    });
}

#[test]
fn pins_that_are_required_are_missed() {
    in_lab(|lab| {
        without_bpffs(lab, Attach::Auto);
        lab.options.require_pins = true;
        let refused = crate::ebpf::EbpfDataplane::open(&lab.options, "wt0").err().expect("refused");
        assert!(matches!(refused, Error::NotBpffs { .. }), "{refused}");
    });
}
