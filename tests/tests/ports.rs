//! Ports of source NAT towards one service: short connections without end, and one member that wants them all.

mod common;

use std::net::SocketAddr;
use std::time::Instant;

use common::{SECOND, alone, becomes, goes_on, page, tell};
use peer_common::Counter;
use peer_tests::lab::{
    Answering, Baseline, Binaries, Connections, Datagram, GATEWAY, GATEWAY6, Lab, Namespace, Plan, allow_many,
    connect_many, find_wireguard_go, forge,
};

/// Where the service is that all want.
const PORT: u16 = 8443;
/// Ports of the NAT in the lab: the default range of earlier versions. Its largest prime is what is used.
const RANGE: &str = "20480-29999";
const USED: u64 = 9511;
const SYN: u8 = 2;

fn lab_with(arguments: &[&str], clients: u8) -> Lab {
    let plan = Plan { clients, ..Plan::default() };
    let mut lab = Lab::prepare(&plan, &Binaries::find().expect("programs")).expect("lab");
    lab.node.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    lab.up().expect("up");
    lab
}

fn load(client: &Namespace, gateway: &Namespace, to: SocketAddr, count: u64, until: Option<Instant>) -> Connections {
    allow_many(client).expect("sysctl");
    let _service = Answering::start(gateway, to).expect("service");
    connect_many(client, to, count, until).expect("connections")
}

/// By the default range: they outlive the minute.
#[test]
fn twelve_thousand_short_connections_in_a_minute_and_none_fails() {
    let _alone = alone();
    let lab = lab_with(&[], 1);
    page(lab.client(), GATEWAY);
    let to = (GATEWAY, PORT).into();
    let found = load(&lab.client().namespace, &lab.gateway.namespace, to, 12_000, None);
    tell(&format!(
        "12 000 short connections: {} answered in {:?}, {:.0} a second",
        found.answered,
        found.took,
        found.rate()
    ));
    assert_eq!((found.answered, found.failed), (12_000, 0), "{:?}", found.errors);
    assert!(found.took < SECOND * 60, "{:?}", found.took);
}

/// A minute of connections over IPv4, with the members' clients closing first, and twice as many as ports over IPv6: ports
/// serve again. Beside, in the same run, the twin with nft's masquerade. `PEER_TEST_PORTS_SECONDS` lets each of them go on
/// for so long.
#[test]
fn connections_that_clients_close_first_never_run_out_of_ports() {
    let _alone = alone();
    let lab = lab_with(&["--nat-ports", RANGE], 1);
    page(lab.client(), GATEWAY);
    let wanted: Option<u32> = std::env::var("PEER_TEST_PORTS_SECONDS").ok().map(|text| text.parse().expect("a number"));
    let until = |seconds: Option<u32>| seconds.map(|seconds| Instant::now() + SECOND * seconds);
    let rounds = [(GATEWAY, Some(wanted.unwrap_or(60))), (GATEWAY6, wanted)];
    for (to, seconds) in rounds {
        let reused =
            || lab.node.metric("peer_packets_total", &[("path", Counter::PortsReused.name())]).expect("metrics");
        let before = reused();
        let service = (to, PORT).into();
        let found = load(&lab.client().namespace, &lab.gateway.namespace, service, 2 * USED, until(seconds));
        tell(&format!("to {to}: {} answered, {} failed, {:.0} a second", found.answered, found.failed, found.rate()));
        assert_eq!(found.failed, 0, "{:?}", found.errors);
        assert!(reused() > before, "ports were scarce, and served again");
        assert!(found.rate() >= 1000.0, "{:.0} a second", found.rate());
    }
    drop(lab);
    let twin = Baseline::start_with_nft(&find_wireguard_go().expect("wireguard-go")).expect("baseline");
    let to = (GATEWAY, PORT).into();
    let found = load(&twin.client.namespace, &twin.gateway.namespace, to, 2 * USED, until(Some(wanted.unwrap_or(10))));
    tell(&format!(
        "nft masquerade: {} answered, {} failed, {:.0} a second",
        found.answered,
        found.failed,
        found.rate()
    ));
}

/// 9 520 SYNs, none of which will ever be answered by its own sender: the other member does not notice.
#[test]
fn a_flood_of_syns_of_one_member_leaves_the_service_to_others() {
    let lab = lab_with(&["--nat-ports", RANGE], 2);
    for service in [GATEWAY, GATEWAY6] {
        let [hostile, other] = [&lab.clients[0], &lab.clients[1]];
        page(hostile, GATEWAY);
        let _service = Answering::start(&lab.gateway.namespace, (service, PORT).into()).expect("service");
        let source = if service.is_ipv4() { hostile.overlay() } else { hostile.overlay6() };
        let opened = || lab.node.metric("peer_packets_total", &[("path", "flows_opened")]).expect("metrics");
        let before = opened();
        let syns: Vec<_> =
            (0..9520).map(|number| Datagram::tcp((source, 10_000 + number), (service, PORT), 1, SYN)).collect();
        for some in syns.chunks(200) {
            forge(&hostile.namespace, "wg0", some).expect("send");
        }
        // Three quarters of the ports, and the rest by its own again or refused.
        becomes(true, || opened() - before >= (USED * 3 / 4) as f64);
        allow_many(&other.namespace).expect("sysctl");
        let started = Instant::now();
        let found = connect_many(&other.namespace, (service, PORT).into(), 20, None).expect("connections");
        assert_eq!((found.answered, found.failed), (20, 0), "{:?}", found.errors);
        assert!(started.elapsed() < SECOND * 5, "at once: {:?}", started.elapsed());
        goes_on(other, service);
    }
}
