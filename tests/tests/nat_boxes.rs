//! The NAT boxes of the lab, shown to do what their kinds say, and what tests change about them.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use peer_test_control::stun;
use peer_tests::lab::{
    Dependence, Fragmenting, Hairpin, Internet, Namespace, NatBehaviour, NatBox, NatKind, Probe, SERVERS, SERVERS6,
    Udp, wait_for,
};

const SECOND: Duration = Duration::from_secs(1);
/// For what should not come.
const SHORT: Duration = Duration::from_millis(150);
const PORT: u16 = 51820;

/// A host behind a box.
struct Behind {
    namespace: Namespace,
    address: IpAddr,
    nat: NatBox,
}

fn behind(internet: &Internet, kind: NatKind, number: u8) -> Behind {
    let nat = NatBox::new(&internet.wire(), kind, number).expect("box");
    let namespace = Namespace::new("host").expect("namespace");
    let addresses = nat.inside().attach(&namespace, "eth0", 2).expect("attach");
    Behind { namespace, address: addresses[0], nat }
}

fn expected(kind: NatKind) -> Option<NatBehaviour> {
    use Dependence::{Address, AddressAndPort, EndpointIndependent};
    let (mapping, filtering) = match kind {
        NatKind::EndpointIndependent => (EndpointIndependent, EndpointIndependent),
        NatKind::AddressRestricted => (EndpointIndependent, Address),
        NatKind::PortRestricted | NatKind::Double | NatKind::Forgetful | NatKind::Ipv6Only => {
            (EndpointIndependent, AddressAndPort)
        }
        NatKind::Symmetric => (AddressAndPort, AddressAndPort),
        NatKind::UdpBlocked => return None,
    };
    let preserves_port = kind != NatKind::Symmetric;
    let translates = kind != NatKind::Ipv6Only;
    Some(NatBehaviour { mapping, filtering, translates, preserves_port, hairpin: Hairpin::None })
}

#[test]
fn each_kind_maps_and_filters_as_it_says() {
    let internet = Internet::new().expect("internet");
    let probe = Probe::start(&internet).expect("servers");
    let listeners =
        [SERVERS, SERVERS6].map(|at| internet.namespace.enter(|| TcpListener::bind((at, 7777))).expect("listener"));
    println!("{:<20} {:<20} {:<20} {:<8} {:<8} hairpin", "kind", "mapping", "filtering", "transl.", "port");
    let mut wrong = Vec::new();
    for (kind, number) in NatKind::ALL.into_iter().zip(10..) {
        let host = behind(&internet, kind, number);
        let found = probe.measure(&host.namespace, host.address).expect("probe");
        match found {
            Some(NatBehaviour { mapping, filtering, translates, preserves_port, hairpin }) => println!(
                "{:<20} {:<20} {:<20} {translates:<8} {preserves_port:<8} {hairpin:?}",
                format!("{kind:?}"),
                format!("{mapping:?}"),
                format!("{filtering:?}"),
            ),
            None => println!("{:<20} no UDP", format!("{kind:?}")),
        }
        if found != expected(kind) {
            wrong.push((kind, found));
        }
        let listener = &listeners[usize::from(host.address.is_ipv6())];
        let source = tcp_source(&host, listener);
        let seen = if kind == NatKind::Ipv6Only { host.address } else { host.nat.outside() };
        assert_eq!(source, seen, "{kind:?}: TCP passes");
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn an_open_host_is_seen_as_it_is() {
    let internet = Internet::new().expect("internet");
    let probe = Probe::start(&internet).expect("servers");
    let host = Namespace::new("host").expect("namespace");
    for address in internet.wire().attach(&host, "eth0", 10).expect("attach") {
        let found = probe.measure(&host, address).expect("probe").expect("UDP");
        assert_eq!(
            (found.mapping, found.filtering),
            (Dependence::EndpointIndependent, Dependence::EndpointIndependent)
        );
        assert!(!found.translates && found.preserves_port, "{found:?}");
    }
}

#[test]
fn hairpins_turn_around_where_they_are_on() {
    let internet = Internet::new().expect("internet");
    let probe = Probe::start(&internet).expect("servers");
    let kinds = [NatKind::EndpointIndependent, NatKind::AddressRestricted, NatKind::PortRestricted, NatKind::Double];
    for (kind, number) in kinds.into_iter().zip(10..) {
        let mut host = behind(&internet, kind, number);
        // The inner of two does not know the outer's address.
        let turned = if kind == NatKind::Double { Hairpin::None } else { Hairpin::External };
        for (on, hairpin) in [(true, turned), (false, Hairpin::None)] {
            host.nat.hairpin(on).expect("hairpin");
            let found = probe.measure(&host.namespace, host.address).expect("probe").expect("UDP");
            assert_eq!(found, NatBehaviour { hairpin, ..expected(kind).expect("UDP") }, "{kind:?} {on}");
        }
    }
    assert!(behind(&internet, NatKind::Symmetric, 20).nat.hairpin(true).is_err());
}

#[test]
fn a_mapping_forgotten_gets_another_port_and_lets_nobody_in() {
    let internet = Internet::new().expect("internet");
    let server = Udp::bind(&internet.namespace, SERVERS, 4001).expect("server");
    for (kind, number) in [NatKind::EndpointIndependent, NatKind::PortRestricted, NatKind::Symmetric, NatKind::Double]
        .into_iter()
        .zip(10..)
    {
        let mut host = behind(&internet, kind, number);
        let client = Udp::bind(&host.namespace, host.address, PORT).expect("client");
        let mut before = Vec::new();
        for round in 0..3 {
            let mapped = heard(&client, &server);
            assert!(!before.contains(&mapped), "{kind:?}, round {round}: {mapped}, {before:?}");
            assert_eq!(mapped.ip(), host.nat.outside(), "{kind:?}");
            server.send_to(b"back", mapped).expect("send");
            assert!(client.receive(SECOND).expect("receive").is_some(), "{kind:?}: the mapping works");
            before.push(mapped);
            host.nat.forget().expect("forget");
            server.send_to(b"late", mapped).expect("send");
            assert_eq!(client.receive(SHORT).expect("receive"), None, "{kind:?}: forgotten");
        }
    }
}

#[test]
fn after_a_shift_of_ports_a_box_is_of_the_same_kind() {
    let internet = Internet::new().expect("internet");
    let probe = Probe::start(&internet).expect("servers");
    let kinds = [NatKind::EndpointIndependent, NatKind::AddressRestricted, NatKind::PortRestricted];
    for (kind, number) in kinds.into_iter().zip(10..) {
        let mut host = behind(&internet, kind, number);
        host.nat.hairpin(true).expect("hairpin");
        host.nat.forget().expect("forget");
        let found = probe.measure(&host.namespace, host.address).expect("probe");
        let expected =
            NatBehaviour { preserves_port: false, hairpin: Hairpin::External, ..expected(kind).expect("UDP") };
        assert_eq!(found, Some(expected), "{kind:?}");
    }
}

#[test]
fn an_unused_mapping_is_forgotten_in_its_time() {
    let internet = Internet::new().expect("internet");
    let server = Udp::bind(&internet.namespace, SERVERS, 4001).expect("server");
    let host = behind(&internet, NatKind::Forgetful, 10);
    let own = |namespace: &Namespace| {
        namespace.read("/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream").expect("sysctl").trim().to_owned()
    };
    assert_eq!((own(&host.nat.namespace), own(&host.namespace)), ("30".to_owned(), "120".to_owned()));
    let mut host = host;
    host.nat.set_udp_timeout(SECOND).expect("timeout");
    let client = Udp::bind(&host.namespace, host.address, PORT).expect("client");
    let mapped = heard(&client, &server);
    assert_eq!(host.nat.udp_mappings().expect("count"), 1);
    server.send_to(b"in time", mapped).expect("send");
    assert!(client.receive(SECOND).expect("receive").is_some());
    assert!(wait_for(SECOND * 10, || host.nat.udp_mappings().expect("count") == 0));
    server.send_to(b"late", mapped).expect("send");
    assert_eq!(client.receive(SHORT).expect("receive"), None);
}

#[test]
fn udp_can_be_blocked_and_opened_at_run_time() {
    let internet = Internet::new().expect("internet");
    let servers = [SERVERS, SERVERS6].map(|at| internet.stun_server((at, 3478).into()).expect("server"));
    for (kind, number) in [NatKind::PortRestricted, NatKind::Ipv6Only].into_iter().zip(10..) {
        let mut host = behind(&internet, kind, number);
        let server = &servers[usize::from(host.address.is_ipv6())];
        let client = Udp::bind(&host.namespace, host.address, PORT).expect("client");
        for blocked in [false, true, false] {
            host.nat.block_udp(blocked).expect("nft");
            assert_eq!(answers(&client, server.address()), !blocked, "{kind:?}, blocked {blocked}");
        }
    }
}

#[test]
fn a_small_mtu_is_reported_in_both_directions_unless_icmp_is_lost() {
    let internet = Internet::new().expect("internet");
    for (kind, number) in
        [NatKind::PortRestricted, NatKind::EndpointIndependent, NatKind::Ipv6Only].into_iter().zip(10..)
    {
        for lost in [true, false] {
            let mut host = behind(&internet, kind, number + if lost { 20 } else { 0 });
            host.nat.set_mtu(1300).expect("mtu");
            host.nat.lose_icmp(lost).expect("nft");
            let at = if host.address.is_ipv6() { SERVERS6 } else { SERVERS };
            let client = Udp::bind(&host.namespace, host.address, PORT).expect("client");
            let server = Udp::bind(&internet.namespace, at, 4001).expect("server");
            let mapped = heard(&client, &server);
            client.connect(server.address().expect("address")).expect("connect");
            server.connect(mapped).expect("connect");
            for (from, to) in [(&client, &server), (&server, &client)] {
                from.fragmenting(Fragmenting::Forbidden).expect("option");
                from.send(&[0; 1200]).expect("send");
                assert!(to.receive(SECOND).expect("receive").is_some(), "{kind:?}: what fits arrives");
                from.send(&[0; 1400]).expect("send");
                let error = from.error(if lost { SHORT } else { SECOND }).expect("wait");
                assert_eq!(to.receive(SHORT).expect("receive"), None, "{kind:?}");
                let mtu = if lost { 1500 } else { 1300 };
                assert_eq!((error.is_some(), from.path_mtu().expect("mtu")), (!lost, mtu), "{kind:?} {lost}");
                if !lost {
                    let refused = from.send(&[0; 1400]).map_err(|error| error.raw_os_error());
                    assert_eq!(refused, Err(Some(libc::EMSGSIZE)), "{kind:?}");
                }
            }
            server.close().expect("close");
        }
    }
}

#[test]
fn a_turn_server_relays_for_hosts_on_the_internet() {
    let internet = Internet::new().expect("internet");
    let turn = internet.turn_server((SERVERS, 3478).into(), &[SERVERS], "t").expect("server");
    let host = behind(&internet, NatKind::Symmetric, 10);
    let client = Udp::bind(&host.namespace, host.address, PORT).expect("client");
    // It answers Binding requests, too; what it does as a TURN server is shown where it lives.
    assert!(answers(&client, turn.address()));
    assert_eq!(turn.uri(), "turn:192.0.2.254:3478?transport=udp");
}

#[test]
fn nothing_is_left() {
    let internet = Internet::new().expect("internet");
    let host = behind(&internet, NatKind::Double, 10);
    let ids = [&internet.namespace, &host.namespace, &host.nat.namespace].map(|space| space.id().expect("id"));
    assert!(ids.iter().all(|&id| Namespace::exists(id).expect("/proc")));
    drop((host, internet));
    assert!(ids.iter().all(|&id| !Namespace::exists(id).expect("/proc")));
}

/// Sends a datagram and returns where the server heard it from.
fn heard(client: &Udp, server: &Udp) -> SocketAddr {
    client.send_to(b"out", server.address().expect("address")).expect("send");
    loop {
        let received = server.receive(SECOND * 3).expect("receive");
        let (datagram, from) = received.unwrap_or_else(|| panic!("{:?} does not arrive", client.address()));
        if datagram == b"out" {
            return from;
        }
    }
}

fn answers(client: &Udp, server: SocketAddr) -> bool {
    let request = stun::request();
    client.send_to(&request, server).expect("send");
    let answer = client.receive(SHORT * 4).expect("receive");
    answer.is_some_and(|(answer, _)| stun::mapped_address(&answer, &request).is_some())
}

/// Who a server takes for the sender of a host's connection.
fn tcp_source(host: &Behind, listener: &TcpListener) -> IpAddr {
    let to = listener.local_addr().expect("address");
    let mut stream =
        host.namespace.enter(|| TcpStream::connect_timeout(&to, SECOND * 5)).expect("TCP passes every box");
    let (accepted, from) = listener.accept().expect("accept");
    drop(accepted);
    stream.set_read_timeout(Some(SECOND * 5)).expect("timeout");
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0)), "closed");
    from.ip()
}
