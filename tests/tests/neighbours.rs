//! Neighbours on the LAN: one that is scanned, one that moves, and others beside.

mod common;

use std::net::IpAddr;

use common::{PATIENCE, SECOND, answered, becomes, flow, goes_on, lab, page, pair, tell};
use peer_common::DropReason;
use peer_tests::lab::{
    Binaries, Datagram, ECHO_PORT, GATEWAY, GATEWAY6, Lab, NODE_LAN6, Namespace, Plan, RouteEntry, RuleEntry,
    add_address, forge, forge_bytes, ping, wait_for,
};

/// A wide network on the node's own link.
const WIDE: &str = "192.168.0.0/16";
const WIDE_NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 1));
/// More than the kernel's table of neighbours holds (1024 by default).
const SCANNED: u16 = 4000;
/// What the kernel may have asked for: the first at once, then 32 a second, those of this member and of its neighbour.
const ASKED_AT_ONCE: usize = 64;

fn scanned_lab() -> Lab {
    let mut lab =
        Lab::prepare(&Plan { clients: 2, ..Plan::default() }, &Binaries::find().expect("programs")).expect("lab");
    lab.node.config.routes.push(RouteEntry::masqueraded(WIDE));
    lab.node.config.rules.push(RuleEntry::new("accept", "any", &[WIDE], &[]));
    add_address(&lab.node.namespace, "eth0", WIDE_NODE, 16).expect("ip");
    lab.up().expect("up");
    for client in &lab.clients {
        client.namespace.exec("ip", &["route", "add", WIDE, "dev", "wg0"]).expect("ip");
    }
    lab
}

/// Addresses on the node's link that nobody has.
fn silent(v4: bool) -> impl Iterator<Item = IpAddr> {
    let IpAddr::V6(lan6) = NODE_LAN6 else { panic!("an address of IPv6") };
    (0..SCANNED).map(move |number| {
        if v4 {
            return [192, 168, 100 + (number >> 8) as u8, number as u8].into();
        }
        let mut segments = lan6.segments();
        (segments[6], segments[7]) = (0x5ca, number);
        IpAddr::V6(segments.into())
    })
}

/// Neighbours of the node that the kernel has asked for without an answer.
fn unanswered(node: &Namespace) -> usize {
    let shown = node.exec("ip", &["neighbour", "show", "dev", "eth0", "nud", "incomplete", "nud", "failed"]);
    shown.expect("ip").lines().count()
}

#[test]
fn a_scan_of_the_lan_fills_no_table_of_neighbours_and_hurts_nobody_else() {
    let lab = scanned_lab();
    let (scanner, other) = (&lab.clients[0], &lab.clients[1]);
    for client in &lab.clients {
        page(client, GATEWAY);
    }
    let scan: Vec<Vec<u8>> = [true, false]
        .into_iter()
        .flat_map(silent)
        .map(|to| {
            let from = if to.is_ipv4() { scanner.overlay() } else { scanner.overlay6() };
            Datagram::udp((from, 4000), (to, 9), b"is anybody there?").bytes().expect("one family")
        })
        .collect();
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        let scanning = scope.spawn(|| forge_bytes(&scanner.namespace, "wg0", &scan).expect("send"));
        goes_on(other, GATEWAY);
        scanning.join().expect("the scan");
    });
    let refused = || lab.node.dropped(DropReason::SilentNeighbours).expect("metrics");
    assert!(wait_for(SECOND * 10, || refused() > 0.0), "the scan is limited");
    let unanswered = unanswered(&lab.node.namespace);
    let seconds = started.elapsed().as_secs() as usize + 1;
    tell(&format!(
        "{unanswered} of {} neighbours asked for in {seconds} s, {} packets refused",
        2 * SCANNED,
        refused()
    ));
    assert!(unanswered <= ASKED_AT_ONCE + 32 * seconds, "{unanswered} after {seconds} s");
    // Hosts that nobody has spoken to are reached by the other member at once.
    let fresh: IpAddr = "192.168.3.3".parse().expect("an address");
    add_address(&lab.gateway.namespace, "eth0", fresh, 16).expect("ip");
    assert!(answered(&flow(other, GATEWAY6), b"beside the scan"));
    let pings = ping(&other.namespace, fresh, 3, SECOND * 2).expect("ping");
    assert!(pings.all_answered(), "a host that is asked for the first time");
}

#[test]
fn a_neighbour_gets_another_link_address_and_flows_go_on() {
    let lab = lab(&Plan::default());
    let service = pair(&lab, GATEWAY, 7410);
    let ask = |content: &[u8]| {
        service.member.send(content).expect("send");
        service.service.receive(SECOND).expect("receive").is_some_and(|(got, _)| got == content)
    };
    assert!(ask(b"before"));
    let updates = || lab.node.metric("peer_next_hop_updates_total", &[]).expect("metrics");
    let before = updates();
    // Said to the node without being asked, as a virtual address that moves does.
    let gateway = &lab.gateway.namespace;
    gateway.exec("ip", &["link", "set", "eth0", "address", "02:00:00:00:77:01"]).expect("ip");
    let moved = std::time::Instant::now();
    let IpAddr::V4(v4) = GATEWAY else { panic!("an address of IPv4") };
    let arrived = wait_for(PATIENCE, || {
        peer_tests::lab::announce(gateway, "eth0", v4).expect("announce");
        ask(b"after")
    });
    tell(&format!("a neighbour's new link address is used after {} ms", moved.elapsed().as_millis()));
    assert!(arrived);
    assert!(wait_for(SECOND * 2, || updates() > before), "the entry was rewritten");
}

#[test]
fn the_uplink_gets_another_link_address_and_next_hops_have_it() {
    let lab = lab(&Plan::default());
    let service = pair(&lab, GATEWAY, 7411);
    let ask = |content: &[u8]| {
        service.member.send(content).expect("send");
        service.service.receive(SECOND / 10).expect("receive").is_some_and(|(got, _)| got == content)
    };
    assert!(wait_for(PATIENCE, || ask(b"before")));
    let updates = || lab.node.metric("peer_next_hop_updates_total", &[]).expect("metrics");
    let before = updates();
    lab.node.namespace.exec("ip", &["link", "set", "eth0", "address", "02:00:00:00:77:02"]).expect("ip");
    // Sooner than the look every ten seconds would see it. Packets go on meanwhile: where the kernel's answer about the neighbour and
    // the change came together, the entry had no header yet, and the next packet is what asks for one.
    let rewritten = wait_for(SECOND * 4, || {
        ask(b"between");
        updates() > before
    });
    assert!(rewritten, "the entry was rewritten");
    assert!(wait_for(PATIENCE, || ask(b"after")));
}

#[test]
fn a_flood_of_first_fragments_costs_another_member_none_of_its_own() {
    let lab = lab(&Plan { clients: 2, ..Plan::default() });
    let (flooder, other) = (&lab.clients[0], &lab.clients[1]);
    // To nobody: a host that is there would lose others' fragments itself, out of its own memory.
    let nobody: IpAddr = "198.51.100.200".parse().expect("an address");
    let flood: Vec<Vec<u8>> = (0..30_000_u16)
        .map(|id| {
            let whole = Datagram::udp((flooder.overlay(), 4000), (nobody, 9), &[0; 64]);
            whole.fragments(32, id)[0].bytes().expect("one family")
        })
        .collect();
    let socket = flow(other, GATEWAY);
    assert!(socket.ask(b"before", SECOND * 5).expect("send"));
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| forge_bytes(&flooder.namespace, "wg0", &flood).expect("send"));
        for number in 0..50_u16 {
            let content = format!("fragmented {number} {}", "x".repeat(1300));
            let whole = Datagram::udp((other.overlay(), 4100), (GATEWAY, ECHO_PORT), content.as_bytes());
            forge(&other.namespace, "wg0", &whole.fragments(504, number)).expect("send");
            let arrived = || lab.gateway.senders_of(content.as_bytes()).len() == 1;
            assert!(wait_for(SECOND * 5, arrived), "datagram {number} was put together");
        }
        goes_on(other, GATEWAY);
        flooding.join().expect("the flood");
    });
    let tracked = lab.node.metric("peer_packets_total", &[("path", "fragments_tracked")]).expect("metrics");
    tell(&format!("{tracked} first fragments remembered"));
    becomes(true, || lab.node.probe("/livez").expect("answer").0 == 200);
}
