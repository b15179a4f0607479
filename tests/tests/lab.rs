//! The lab itself, shown to work with the twin that needs no daemon: a scenario that fails then speaks of the daemon.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use peer_tests::lab::{
    BEHIND, BEHIND6, Baseline, Datagram, Direction, Download, ECHO_PORT, EchoSocket, ForeignProgram, GATEWAY, GATEWAY6,
    HTTP_PORT, NODE_LAN, NODE_LAN6, NODE_OVERLAY, Namespace, Relay, Udp, find_wireguard_go, flood, forge, get, iperf,
    ping, wait_for,
};

const SECOND: Duration = Duration::from_secs(1);

fn baseline() -> Baseline {
    Baseline::start(&find_wireguard_go().expect("wireguard-go")).expect("baseline")
}

#[test]
fn members_reach_the_service_by_nat_only() {
    let mut lab = baseline();
    let member = &lab.client.namespace;
    for (service, node) in [(GATEWAY, NODE_LAN), (GATEWAY6, NODE_LAN6), (BEHIND, NODE_LAN), (BEHIND6, NODE_LAN6)] {
        let (status, page) = get(member, SocketAddr::new(service, HTTP_PORT), "/").expect("page");
        assert_eq!((status, page), (200, format!("Hello from the LAN, {node}\n")));
        assert!(ping(member, service, 3, SECOND).expect("ping").all_answered(), "{service}");
    }
    assert_eq!(lab.gateway.http_clients().keys().copied().collect::<Vec<_>>(), [NODE_LAN, NODE_LAN6]);
    assert!(ping(&lab.gateway.namespace, lab.client.overlay(), 1, SECOND / 5).is_err(), "no route back to the mesh");
    let download = Download::start(member, GATEWAY, 5_000_000).expect("download");
    let longest = download.finish().expect("whole");
    assert!(longest < SECOND, "{longest:?}");
    lab.gateway.start_iperf().expect("iperf3 server");
    for direction in [Direction::Upload, Direction::Download] {
        let figure = iperf(&lab.client.namespace, GATEWAY, direction, 1).expect("iperf3");
        assert!(figure.bits_per_second > 1e6, "{figure:?}");
    }
}

#[test]
fn floods_are_answered_flow_by_flow() {
    let mut lab = baseline();
    for port in ECHO_PORT + 1..ECHO_PORT + 5 {
        lab.gateway.open_echo(GATEWAY, port).expect("echo");
    }
    let result = flood(&lab.client.namespace, GATEWAY, ECHO_PORT..ECHO_PORT + 5, 20).expect("flood");
    assert_eq!((result.flows, result.answered), (100, 100));
    let result = flood(&lab.client.namespace, GATEWAY, ECHO_PORT + 4..ECHO_PORT + 6, 1).expect("flood");
    assert_eq!((result.flows, result.answered), (2, 1), "nobody is at the second port");
}

#[test]
fn forged_packets_arrive_as_they_are() {
    let lab = baseline();
    let member = &lab.client.namespace;
    for (service, source) in [(GATEWAY, lab.client.overlay()), (GATEWAY6, lab.client.overlay6())] {
        let content = format!("forged for {service}");
        let packet = Datagram::udp((source, 4000), (service, ECHO_PORT), content.as_bytes());
        forge(member, "wg0", &[packet]).expect("send");
        assert!(wait_for(SECOND * 3, || lab.gateway.senders_of(content.as_bytes()).len() == 1), "{content}");
    }
}

#[test]
fn a_relay_shows_and_repeats_outer_datagrams() {
    let lab = baseline();
    let relay = Relay::start(&lab.client.namespace, lab.client.node_endpoint()).expect("relay");
    lab.client.configure(relay.address()).expect("configure");
    let socket = EchoSocket::open(&lab.client.namespace, (GATEWAY, ECHO_PORT).into()).expect("socket");
    assert!(socket.ask(b"by relay", SECOND * 5).expect("send"));
    let data = relay.captured().into_iter().rfind(|datagram| datagram[0] == 4).expect("a transport datagram");
    relay.send(&data).expect("send");
    assert!(socket.ask(b"after it", SECOND).expect("send"));
    assert_eq!(lab.gateway.senders_of(b"by relay").len(), 1);
}

#[test]
fn foreign_programs_count_what_reaches_them_and_let_it_pass() {
    const UDP: u8 = 17;
    const ICMP: u8 = 1;
    let lab = baseline();
    let program = ForeignProgram::attach(&lab.node, "eth0").expect("attach");
    assert_eq!(ForeignProgram::chain_length(&lab.node, "eth0").expect("query"), 1);
    assert!(ping(&lab.gateway.namespace, NODE_LAN, 3, SECOND).expect("ping").all_answered());
    assert!(ping(&lab.client.namespace, NODE_OVERLAY, 2, SECOND).expect("ping").all_answered());
    let socket = EchoSocket::open(&lab.gateway.namespace, (NODE_LAN6, 9).into()).expect("socket");
    assert!(!socket.ask(b"nobody is there", SECOND / 10).expect("send"));
    assert_eq!((program.ipv4(ICMP).expect("map"), program.ipv4(UDP).expect("map")), (3, 0));
    assert_eq!((program.ipv6(UDP).expect("map"), program.ipv6(6).expect("map")), (1, 0));
    drop(program);
    assert_eq!(ForeignProgram::chain_length(&lab.node, "eth0").expect("query"), 0);
}

/// Found on a busy machine: `t13_upload_arrives_whole` came while the server was busy with the measurement before.
#[test]
fn who_measures_waits_for_who_measures_before() {
    let mut lab = baseline();
    lab.gateway.start_iperf().expect("iperf3 server");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| iperf(&lab.client.namespace, GATEWAY, Direction::Upload, 1).expect("iperf3"));
        }
    });
}

/// A child has copies of all descriptors until it becomes another program. Found in CI: `t02` saw a program that was gone.
#[test]
fn what_is_closed_is_closed_though_others_start_programs() {
    let lab = baseline();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    lab.client.namespace.exec("true", &[]).expect("true");
                }
            });
        }
        let left = (0..100).find_map(|_| {
            drop(ForeignProgram::attach(&lab.node, "eth0").expect("attach"));
            let programs = ForeignProgram::chain_length(&lab.node, "eth0").expect("query");
            let open_and_close = || Udp::bind(&lab.node, NODE_LAN, 7000).and_then(Udp::close);
            let socket = open_and_close().and_then(|()| open_and_close()).err();
            (programs != 0 || socket.is_some()).then_some((programs, socket))
        });
        done.store(true, Ordering::Relaxed);
        assert!(left.is_none(), "{left:?}");
    });
}

#[test]
fn nothing_is_left() {
    let lab = baseline();
    let namespaces = [&lab.client.namespace, &lab.node, &lab.gateway.namespace];
    let ids = namespaces.map(|namespace| namespace.id().expect("id"));
    assert!(ids.iter().all(|&id| Namespace::exists(id).expect("/proc")));
    assert_eq!(Namespace::processes_in(ids[0]).expect("/proc"), [lab.client.process().expect("wireguard-go").pid()]);
    drop(lab);
    assert!(ids.iter().all(|&id| !Namespace::exists(id).expect("/proc")));
}
