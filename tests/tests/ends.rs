//! A flow that dies says so: connections that a change has ended are reset at both ends, and members are told what cannot be
//! reached. By the kernel's own TCP on both sides.

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::streams::{PORT, SILENCE, connect, drain, patient, pour, serve};
use common::{SECOND, answered, flow, lab, page};
use peer_common::DropReason;
use peer_tests::lab::{
    GATEWAY, GATEWAY6, HTTP_PORT, IcmpListener, IcmpMessage, LAN, LAN6, Lab, NODE_OVERLAY, NODE_OVERLAY6, Namespace,
    OVERLAY, OVERLAY6, Plan, RuleEntry, add_address, wait_for,
};

fn forbid(lab: &mut Lab) -> Vec<RuleEntry> {
    let before =
        std::mem::replace(&mut lab.node.config.rules, vec![RuleEntry::new("accept", "icmp", &[LAN, LAN6], &[])]);
    lab.node.reload().expect("reload");
    before
}

fn permit(lab: &mut Lab, rules: Vec<RuleEntry>) {
    lab.node.config.rules = rules;
    lab.node.reload().expect("reload");
}

/// The permission is away under a download, and for longer than any segment is repeated: nobody hangs.
#[test]
fn a_download_whose_permission_is_taken_away_is_reset_at_both_ends_and_a_new_one_works() {
    let mut lab = lab(&Plan::default());
    for service in [GATEWAY, GATEWAY6] {
        page(lab.client(), service);
        let server = serve(&lab.gateway.namespace, service, pour);
        let mut stream = connect(&lab.client().namespace, service);
        stream.read_exact(&mut vec![0; 1 << 20]).expect("it is under way");
        let rules = forbid(&mut lab);
        let taken = Instant::now();
        assert_eq!(drain(stream), ErrorKind::ConnectionReset, "the member is told");
        assert_eq!(server.join().expect("no panic"), ErrorKind::ConnectionReset, "and the server");
        assert!(taken.elapsed() < SECOND * 5, "at once: {:?}", taken.elapsed());
        permit(&mut lab, rules);
        let server = serve(&lab.gateway.namespace, service, |mut stream| stream.write_all(b"again").expect("write"));
        let mut told = String::new();
        connect(&lab.client().namespace, service).read_to_string(&mut told).expect("a new download");
        assert_eq!(told, "again");
        server.join().expect("no panic");
    }
    assert!(lab.node.metric("peer_packets_total", &[("path", "resets_sent")]).expect("metrics") >= 4.0);
}

/// Neither end sends while the permission is away; whoever speaks first afterwards, or meanwhile, is told, and the other too.
#[test]
fn an_idle_connection_is_reset_by_the_first_word_of_either_end() {
    let mut lab = lab(&Plan::default());
    for service in [GATEWAY, GATEWAY6] {
        for member_speaks in [true, false] {
            let (say, said) = std::sync::mpsc::channel::<()>();
            let server = serve(&lab.gateway.namespace, service, move |mut stream| {
                stream.write_all(b"hello").expect("write");
                if said.recv().is_ok() {
                    stream.write_all(b"word").expect("taken by the kernel");
                }
                drain(stream)
            });
            let mut stream = connect(&lab.client().namespace, service);
            stream.read_exact(&mut [0; 5]).expect("it stands");
            let rules = forbid(&mut lab);
            if member_speaks {
                stream.write_all(b"word").expect("taken by the kernel");
                drop(say);
            } else {
                say.send(()).expect("it listens");
            }
            assert_eq!(drain(stream), ErrorKind::ConnectionReset, "member speaks: {member_speaks}");
            assert_eq!(server.join().expect("no panic"), ErrorKind::ConnectionReset, "member speaks: {member_speaks}");
            permit(&mut lab, rules);
        }
    }
}

/// Flows that the daemon has removed because the rules do not permit them any more.
fn revoked(lab: &Lab) -> f64 {
    lab.node.metric("peer_flows_closed_total", &[("reason", "policy_revoked")]).expect("metrics")
}

/// A permission that is away while nobody speaks costs nothing.
#[test]
fn an_idle_connection_outlives_a_permission_that_comes_back() {
    let mut lab = lab(&Plan::default());
    for service in [GATEWAY, GATEWAY6] {
        let server = serve(&lab.gateway.namespace, service, |mut stream| {
            stream.write_all(b"hello").expect("write");
            let mut word = [0; 4];
            stream.read_exact(&mut word).expect("a word");
            stream.write_all(&word).expect("write");
        });
        let out = || lab.node.metric("peer_packets_total", &[("path", "forwarded_out")]).expect("metrics");
        let before = out();
        let mut stream = connect(&lab.client().namespace, service);
        stream.read_exact(&mut [0; 5]).expect("it stands");
        // SYN and two acknowledgements: nothing is on the way any more.
        assert!(wait_for(SECOND * 5, || out() >= before + 3.0));
        // A datagram's flow beside it says when the scan has passed that removes what is not permitted any more.
        assert!(answered(&flow(lab.client(), service), b"beside"));
        let before = revoked(&lab);
        let rules = forbid(&mut lab);
        assert!(wait_for(SECOND * 15, || revoked(&lab) > before));
        permit(&mut lab, rules);
        stream.write_all(b"word").expect("write");
        stream.read_exact(&mut [0; 4]).expect("its echo");
        server.join().expect("no panic");
    }
}

/// A connection with the node itself, which its own stack ends.
#[test]
fn a_connection_with_the_node_is_reset_at_both_ends() {
    let mut lab = lab(&Plan::default());
    let with_node = RuleEntry::new("accept", "tcp", &[OVERLAY, OVERLAY6], &[]);
    lab.node.config.rules.push(with_node);
    lab.node.reload().expect("reload");
    for node in [NODE_OVERLAY, NODE_OVERLAY6] {
        let listener = lab.node.namespace.enter(|| TcpListener::bind((node, PORT))).expect("bind");
        let server = thread::spawn(move || drain(patient(listener.accept().expect("accept").0)));
        let mut stream = connect(&lab.client().namespace, node);
        stream.write_all(b"hello").expect("write");
        let rules = forbid(&mut lab);
        stream.write_all(b"word").expect("taken by the kernel");
        assert_eq!(drain(stream), ErrorKind::ConnectionReset);
        assert_eq!(server.join().expect("no panic"), ErrorKind::ConnectionReset);
        permit(&mut lab, rules);
    }
}

/// How a connection to `to` fails, and how long that takes.
fn refusal(from: &Namespace, to: SocketAddr) -> (ErrorKind, Duration) {
    let started = Instant::now();
    let error = from.enter(|| TcpStream::connect_timeout(&to, SILENCE)).expect_err("nobody is there");
    (error.kind(), started.elapsed())
}

/// As a router of Linux tells it, once it has asked in vain; and when the host comes, it is reached.
#[test]
fn a_host_that_does_not_answer_is_told_to_members_until_it_does() {
    let lab = lab(&Plan::default());
    let member = &lab.client().namespace;
    for (absent, length) in [("198.51.100.77", 24), ("2001:db8:2::77", 64)] {
        let absent: IpAddr = absent.parse().expect("an address");
        let to = SocketAddr::new(absent, HTTP_PORT);
        let (first, took) = refusal(member, to);
        assert_eq!(first, ErrorKind::HostUnreachable, "after {took:?}");
        assert!(took < SECOND * 16, "{took:?}");
        let (next, took) = refusal(member, to);
        assert_eq!(next, ErrorKind::HostUnreachable);
        assert!(took < SECOND, "it is known by now: {took:?}");
        add_address(&lab.gateway.namespace, "eth0", absent, length).expect("the host comes");
        let reached = || member.enter(|| TcpStream::connect_timeout(&to, SECOND / 2)).is_ok();
        assert!(wait_for(SECOND * 5, reached), "it is reached");
    }
    assert!(lab.node.dropped(DropReason::HostUnreachable).expect("metrics") >= 2.0);
}

#[test]
fn what_no_route_covers_is_told_at_once() {
    let mut lab = Lab::prepare(&Plan::default(), &peer_tests::lab::Binaries::find().expect("programs")).expect("lab");
    lab.node.config.routes.retain(|route| route.destination != LAN && route.destination != LAN6);
    lab.up().expect("up");
    for service in [GATEWAY, GATEWAY6] {
        let (found, took) = refusal(&lab.client().namespace, (service, HTTP_PORT).into());
        assert_eq!(found, ErrorKind::NetworkUnreachable);
        assert!(took < SECOND, "{took:?}");
    }
}

#[test]
fn what_the_policy_refuses_is_silent_or_answered_as_the_operator_says() {
    let binaries = peer_tests::lab::Binaries::find().expect("programs");
    for reject in [false, true] {
        let mut lab = Lab::prepare(&Plan::default(), &binaries).expect("lab");
        lab.node.config.rules = vec![RuleEntry::new("accept", "icmp", &[LAN, LAN6], &[])];
        lab.node.arguments.push(format!("--reject={reject}"));
        lab.up().expect("up");
        for service in [GATEWAY, GATEWAY6] {
            let member = &lab.client().namespace;
            let before = lab.node.dropped(DropReason::PolicyDefault).expect("metrics");
            let error = member.enter(|| TcpStream::connect_timeout(&(service, HTTP_PORT).into(), SECOND));
            let kind = error.expect_err("refused").kind();
            assert_eq!(kind, if reject { ErrorKind::ConnectionRefused } else { ErrorKind::TimedOut });
            let listener = IcmpListener::open(member, service.is_ipv6()).expect("listen");
            assert!(!flow(lab.client(), service).ask_within(b"refused", SECOND / 2).expect("send"));
            let error = listener.next(IcmpMessage::errors(service.is_ipv6()), SECOND / 10).expect("well-formed");
            let prohibited = if service.is_ipv6() { (1, 1) } else { (3, 13) };
            assert_eq!(error.map(|error| (error.kind, error.code)), reject.then_some(prohibited));
            assert!(lab.node.dropped(DropReason::PolicyDefault).expect("metrics") >= before + 2.0);
        }
    }
}
