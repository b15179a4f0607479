//! Direct paths between two nodes, with NAT boxes of every kind between them.

mod common;

use std::thread;
use std::time::Duration;

use common::{SECOND, alone, tell};
use peer_tests::lab::{Met, NatKind, Peers, Site, ping, wait_for};

/// From both in both maps to the first echo.
const FIRST_ECHO: Duration = Duration::from_secs(10);
/// Until a direct path that can be found is found.
const FOUND: Duration = Duration::from_secs(15);

const OPEN: Site = Site::Open;
const FULL_CONE: Site = Site::Behind(NatKind::EndpointIndependent);
const RESTRICTED: Site = Site::Behind(NatKind::PortRestricted);
const SYMMETRIC: Site = Site::Behind(NatKind::Symmetric);
const BLOCKED: Site = Site::Behind(NatKind::UdpBlocked);

/// Whether theory allows a direct path (RFC 4787 §4.1, §5): a mapping that differs by destination cannot be foreseen, and a
/// box that filters by port lets in only what it foresees.
fn can_be_direct(one: Site, other: Site) -> bool {
    match (one, other) {
        (Site::Behind(NatKind::UdpBlocked), _) | (_, Site::Behind(NatKind::UdpBlocked)) => false,
        (Site::Behind(NatKind::Symmetric), other) | (other, Site::Behind(NatKind::Symmetric)) => {
            matches!(other, Site::Open | Site::Behind(NatKind::EndpointIndependent | NatKind::AddressRestricted))
        }
        _ => true,
    }
}

fn cell(one: Site, other: Site) -> (Met, String) {
    let mut peers = Peers::prepare([one, other]).expect("two nodes");
    let met = peers.meet(FIRST_ECHO).unwrap_or_else(|error| panic!("{one:?} and {other:?}: {error:#}"));
    let mut last = String::new();
    let wanted = if can_be_direct(one, other) { "P2P" } else { "Relayed" };
    let found = wait_for(FOUND, || {
        last = peers.connection(0).expect("status");
        last == wanted && peers.connection(1).expect("status") == wanted
    });
    assert!(found, "{one:?} and {other:?}: {last}, not {wanted}: {}", peers.peer(0).expect("status"));
    (met, last)
}

#[test]
fn both_open() {
    let _alone = alone();
    let (met, _) = cell(OPEN, OPEN);
    tell(&format!("both open: first echo after {:.2?}, {} then", met.first_echo, met.connection));
}

#[test]
fn behind_two_boxes_that_filter_by_port() {
    let _alone = alone();
    let (met, _) = cell(RESTRICTED, RESTRICTED);
    tell(&format!("both behind port-restricted NAT: first echo after {:.2?}, {} then", met.first_echo, met.connection));
}

#[test]
fn where_no_mapping_can_be_foreseen_the_relay_carries() {
    let _alone = alone();
    let (met, _) = cell(SYMMETRIC, RESTRICTED);
    tell(&format!("symmetric and port-restricted: first echo after {:.2?}, {} then", met.first_echo, met.connection));
}

#[test]
fn servers_that_are_gone_cost_a_direct_path_nothing() {
    let _alone = alone();
    let mut peers = Peers::prepare([OPEN, RESTRICTED]).expect("two nodes");
    peers.meet(FIRST_ECHO).expect("an echo");
    let direct = |peers: &Peers| (0..2).all(|of| peers.connection(of).expect("status") == "P2P");
    assert!(wait_for(FOUND, || direct(&peers)));
    peers.server.kill();
    let to = peers.overlay(1).expect("an address");
    // Longer than checks may stay unanswered.
    let pings = ping(&peers.nodes[0].namespace, to, 100, SECOND / 10).expect("ping");
    assert!(pings.all_answered(), "{} of {}", pings.round_trips.len(), pings.sent);
    assert!(direct(&peers));
    peers.server.resume().expect("resume");
}

#[test]
fn a_mapping_that_the_box_forgets_is_followed() {
    let _alone = alone();
    let mut peers = Peers::prepare([OPEN, RESTRICTED]).expect("two nodes");
    peers.meet(FIRST_ECHO).expect("an echo");
    assert!(wait_for(FOUND, || (0..2).all(|of| peers.connection(of).expect("status") == "P2P")));
    let before = peers.peer(0).expect("status")["iceCandidateEndpoint"]["remote"].clone();
    peers.boxes[1].as_mut().expect("a box").forget().expect("nft");
    let to = peers.overlay(0).expect("an address");
    // Its next packet has another source, which its session proves.
    let echoed = || ping(&peers.nodes[1].namespace, to, 1, SECOND / 5).is_ok_and(|pings| pings.all_answered());
    assert!(wait_for(SECOND * 2, echoed), "its own packets lead us there");
    let moved = || peers.peer(0).expect("status")["iceCandidateEndpoint"]["remote"] != before;
    assert!(wait_for(SECOND * 10, moved), "{}", peers.peer(0).expect("status"));
    assert!(wait_for(FOUND, || (0..2).all(|of| peers.connection(of).expect("status") == "P2P")));
}

/// All pairs of kinds, with the time to the first echo.
#[test]
#[ignore = "by hand: 25 cells of up to half a minute"]
fn the_whole_matrix() {
    let sites = [OPEN, FULL_CONE, RESTRICTED, SYMMETRIC, BLOCKED];
    let mut lines = Vec::new();
    for one in sites {
        for other in sites {
            let (met, then) = thread::spawn(move || cell(one, other)).join().expect("a cell");
            lines.push(format!(
                "{:<32} {:<32} {then:<8} {:.2?}",
                format!("{one:?}"),
                format!("{other:?}"),
                met.first_echo
            ));
        }
    }
    tell(&lines.join("\n  "));
}
