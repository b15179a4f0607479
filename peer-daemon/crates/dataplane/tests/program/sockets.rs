//! Sockets of the node on ports of the NAT range (RFC 4787 §4.2.2 leaves it to the NAT; a NAT that is also a host must not
//! take its own sockets' replies).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use peer_common::Counter;

use crate::bench::with_bench;
use crate::lab::{PEER, PEER6};
use crate::packet::{read, tcp, udp};
use crate::{Bench, REDIRECT};

/// The uplink's address of this test is the namespace's own loopback address: sockets can be there.
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const OWN6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const PORT: u16 = 21000;

/// One server and its uplink in each family.
const PLACES: [(IpAddr, IpAddr, IpAddr); 2] = [(PEER, crate::lab::SERVER, OWN), (PEER6, crate::lab::SERVER6, OWN6)];

fn with_sockets(test: impl FnOnce(&mut Bench) + Send + 'static) {
    with_bench(|bench| {
        crate::sys::loopback_up().expect("the namespace's own device");
        bench.uplink_addrs(OWN, OWN6);
        test(bench);
    });
}

/// The port that a packet of the peer's leaves with.
fn port(bench: &mut Bench, frame: &[u8]) -> u16 {
    let (verdict, frame) = bench.arrive_from_mesh(frame);
    assert_eq!(verdict, REDIRECT, "drops: {:?}", bench.all_drops());
    read(&frame).src.1
}

#[test]
fn a_bound_udp_socket_is_avoided() {
    with_sockets(|bench| {
        for (peer, server, own) in PLACES {
            let socket = UdpSocket::bind((own, PORT)).expect("bind");
            assert_ne!(port(bench, &udp((peer, PORT), (server, 53))), PORT);
            assert_eq!(port(bench, &tcp((peer, PORT), (server, 80), true)), PORT, "another protocol is another port");
            drop(socket);
            assert_eq!(port(bench, &udp((peer, PORT), (server, 54))), PORT);
        }
        assert_eq!(bench.counter(Counter::PortSockets), 2);
    });
}

#[test]
fn a_socket_bound_to_every_address_is_avoided() {
    with_sockets(|bench| {
        let _socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("bind");
        for (peer, server, _) in PLACES {
            assert_ne!(port(bench, &udp((peer, PORT), (server, 53))), PORT);
        }
    });
}

#[test]
fn a_tcp_listener_is_avoided() {
    with_sockets(|bench| {
        for (peer, server, own) in PLACES {
            let _listener = TcpListener::bind((own, PORT)).expect("bind");
            assert_ne!(port(bench, &tcp((peer, PORT), (server, 80), true)), PORT);
        }
        assert_eq!(bench.counter(Counter::PortSockets), 2);
    });
}

#[test]
fn a_connection_blocks_its_own_remote_only() {
    with_sockets(|bench| {
        for (peer, server, own) in PLACES {
            // A host route of the test's: the server is the namespace itself.
            let listener = TcpListener::bind((own, 80)).expect("bind");
            let to = SocketAddr::new(own, 80);
            let client = TcpStream::connect(to).expect("connect");
            let used = client.local_addr().expect("an address").port();
            bench.config(|config| (config.nat_port_min, config.nat_port_count) = (used - 1, 3));
            bench.route(own, if own.is_ipv4() { 32 } else { 128 }, 8, peer_common::route::Route::MASQUERADE);
            assert_ne!(port(bench, &tcp((peer, used), (own, 80), true)), used, "the connection's own remote");
            assert_eq!(port(bench, &tcp((peer, used), (server, 80), true)), used, "any other one");
            drop((client, listener));
        }
    });
}

#[test]
fn ports_that_sockets_have_can_exhaust_the_range() {
    with_sockets(|bench| {
        bench.config(|config| (config.nat_port_min, config.nat_port_count) = (PORT, 3));
        let _sockets = [0, 1, 2].map(|offset| UdpSocket::bind((OWN, PORT + offset)).expect("bind"));
        assert!(bench.refuses(&udp((PEER, 4000), (crate::lab::SERVER, 53))));
        assert_eq!(bench.drops(peer_common::DropReason::PortsExhausted), 1);
        assert_eq!(bench.counter(Counter::PortSockets), 32 + 128, "and those of the search for one to take over");
    });
}
