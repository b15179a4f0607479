//! Whose programs are whose, with the deployed capabilities.

use std::fs;
use std::os::fd::AsFd as _;

use caps::{CapSet, Capability};

use super::lab::{Foreign, at, in_lab, run};
use crate::chain::Owner;
use crate::doctor::{Check, Severity, Subject, examine};
use crate::ebpf::EbpfDataplane;
use crate::sys;
use crate::{Dataplane as _, Error};

fn keep_only(kept: &[Capability]) {
    caps::set(None, CapSet::Effective, &kept.iter().copied().collect()).expect("capabilities can be given up");
}

#[test]
fn cilium_is_known_by_its_pins_and_the_rest_is_unknown() {
    in_lab(|lab| {
        let mut peer = lab.up();
        let cilium = Foreign::attach("cil_from_netdev", "eth0", true);
        let _unknown = Foreign::attach("nobody", "eth0", true);
        let links = lab.bpffs().join("cilium/devices/eth0/links");
        fs::create_dir_all(&links).expect("a directory");
        sys::pin(cilium.link.as_fd(), &links.join("cil_from_netdev")).expect("pinned");
        keep_only(&[Capability::CAP_NET_ADMIN, Capability::CAP_BPF]);
        let owners = |peer: &_| at(peer, "eth0").ahead.into_iter().map(|neighbour| neighbour.owner).collect::<Vec<_>>();
        assert_eq!(owners(&peer), [Owner::Unknown(None), Owner::Cilium("cil_from_netdev".into())]);
        peer.reconcile().expect("mended");
        assert_eq!(owners(&peer), [], "ahead of Cilium, and so of all");
        keep_only(&caps::read(None, CapSet::Permitted).expect("own capabilities").into_iter().collect::<Vec<_>>());
        lab.down(peer, false);
    });
}

#[test]
fn two_peers_share_an_uplink() {
    in_lab(|lab| {
        let first = lab.up();
        let path = lab.bpffs().join("peer/other:1/v1/links");
        fs::create_dir_all(&path).expect("a directory");
        let other = Foreign::attach("peer_uplink_in", "eth0", true);
        sys::pin(other.link.as_fd(), &path.join("peer_uplink_in-eth0")).expect("pinned");
        let attachment = at(&first, "eth0");
        assert_eq!(attachment.ahead[0].owner, Owner::Peer("other.1".into()));
        assert_eq!(attachment.unreached(), None);
        lab.down(first, false);
        assert_eq!(lab.pins().len(), 1, "the other's stays: {:?}", lab.pins());
        fs::remove_dir_all(lab.bpffs().join("peer")).expect("removed");
    });
}

#[test]
fn doctor_sees_the_same_with_the_deployed_capabilities() {
    in_lab(|lab| {
        let peer = lab.up();
        let found = |severity, check| {
            let (intent, node) = (lab.intent(), lab.node());
            let subject = Subject {
                bpffs: lab.bpffs().to_owned(),
                wt0: "wt0".into(),
                nat_ports: crate::DEFAULT_NAT_PORTS,
                nat_bounds: Vec::new(),
                uplinks: vec!["lan0".into(), "eth9".into()],
                intent: Some(&intent),
                addresses: Vec::new(),
                listen_port: None,
                probe: true,
                configuration: crate::Configuration::File,
            };
            let found = examine(&subject, &node);
            found.into_iter().filter(move |f| (f.severity, f.check) == (severity, check)).collect::<Vec<_>>()
        };
        let kept = [Capability::CAP_NET_ADMIN, Capability::CAP_BPF];
        keep_only(&kept);
        for check in [Check::Kernel, Check::Order, Check::Bpffs, Check::Tun, Check::Offloads] {
            for severity in [Severity::Problem, Severity::Warning, Severity::Unknown] {
                assert_eq!(found(severity, check), [], "with the deployed capabilities");
            }
        }
        assert_eq!(found(Severity::Note, Check::Capabilities).len(), 1, "hardened");
        assert_eq!(found(Severity::Problem, Check::Uplinks)[0].subject.as_deref(), Some("eth9"));
        keep_only(&[]);
        let missing = found(Severity::Problem, Check::Capabilities);
        assert!(missing[0].what.contains("CAP_BPF and CAP_NET_ADMIN"), "{missing:?}");
        assert!(!found(Severity::Unknown, Check::Kernel).is_empty());
        assert!(!found(Severity::Unknown, Check::Order).is_empty());
        keep_only(&caps::read(None, CapSet::Permitted).expect("own capabilities").into_iter().collect::<Vec<_>>());
        lab.down(peer, false);
    });
}

#[test]
fn test_11_a_mesh_device_that_cilium_took_is_reported_and_we_go_on_ahead() {
    in_lab(|lab| {
        let cilium = Foreign::attach("cil_from_netdev", "wt0", false);
        let links = lab.bpffs().join("cilium/devices/wt0/links");
        fs::create_dir_all(&links).expect("a directory");
        sys::pin(cilium.link.as_fd(), &links.join("cil_from_netdev")).expect("pinned");
        let peer = lab.up();
        assert_eq!(at(&peer, "wt0").position, Some(0));
        let found = peer.examine(&lab.intent(), &lab.node());
        let taken = found.iter().find(|finding| finding.check == Check::CiliumDevice).expect("reported");
        assert_eq!((taken.owner.as_deref(), taken.subject.as_deref()), (Some("Cilium"), Some("wt0")));
        assert!(taken.remedy.contains("devices=eth0"), "{taken:?}");
        lab.down(peer, false);
        let left = sys::link_at(&links.join("cil_from_netdev")).expect("a link").expect("Cilium's pin stays");
        assert_eq!(left.info().expect("its state").ifindex, sys::ifindex("wt0").expect("wt0"));
    });
}

#[test]
fn without_capabilities_nothing_is_opened_and_the_missing_ones_are_named() {
    in_lab(|lab| {
        for (kept, missing) in [
            (&[Capability::CAP_NET_ADMIN][..], "CAP_BPF"),
            (&[Capability::CAP_BPF], "CAP_NET_ADMIN"),
            (&[], "CAP_BPF and CAP_NET_ADMIN"),
        ] {
            keep_only(kept);
            let error = EbpfDataplane::open(&lab.options, "wt0").err().expect("refused");
            assert!(matches!(&error, Error::Capabilities { missing: named, .. } if named == missing), "{error}");
            assert!(error.to_string().contains("securityContext.capabilities.add"), "{error}");
            assert!(!lab.bpffs().join("peer").exists());
        }
        keep_only(&caps::read(None, CapSet::Permitted).expect("own capabilities").into_iter().collect::<Vec<_>>());
    });
}

#[test]
fn a_bpffs_that_cannot_be_written_says_so() {
    in_lab(|lab| {
        let at = lab.bpffs().to_str().expect("a path").to_owned();
        run("mount", &format!("-o remount,ro {at}"));
        let error = EbpfDataplane::open(&lab.options, "wt0").err().expect("refused");
        assert!(matches!(error, Error::BpffsReadOnly { .. }) && error.to_string().contains("readOnly"), "{error}");
        let node = lab.node();
        let subject = Subject {
            bpffs: lab.bpffs().to_owned(),
            wt0: "wt0".into(),
            nat_ports: crate::DEFAULT_NAT_PORTS,
            nat_bounds: Vec::new(),
            uplinks: Vec::new(),
            intent: None,
            addresses: Vec::new(),
            listen_port: None,
            probe: false,
            configuration: crate::Configuration::File,
        };
        let found = examine(&subject, &node);
        assert!(found.iter().any(|f| f.check == Check::Bpffs && f.severity == Severity::Problem), "{found:#?}");
    });
}

#[test]
fn what_fails_to_load_leaves_no_pins() {
    in_lab(|lab| {
        // More memory than the kernel gives to one map.
        lab.options.flows = u32::MAX;
        assert!(EbpfDataplane::open(&lab.options, "wt0").is_err());
        assert!(!lab.bpffs().join("peer").exists(), "{:?}", lab.pins());
    });
}
