//! The daemon joins a mesh by the in-tree control plane, and a member reaches the LAN through the relay.

mod common;

use std::iter::repeat_with;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{SECOND, joined, tell};
use ipnet::IpNet;
use peer_test_control::account::{Action, Peer, Policy, Protocol};
use peer_test_control::member::Habits;
use peer_test_control::server::Certificates;
use peer_test_control::{Account, KeyPair, Options};
use peer_tests::lab::{
    Binaries, Download, GATEWAY, GATEWAY6, HTTP_PORT, MEMBERS, Member, Mesh, MeshPlan, NODE_LAN, NODE_LAN6, ROUTERS,
    SERVERS, SERVICES, page_within, ping, wait_for,
};

/// From both in both maps to the first page. WireGuard by itself would wait for 5 s whenever a first message is lost.
const FIRST_PAGE: Duration = Duration::from_secs(3);

#[test]
fn a_member_fetches_a_page_through_the_relay() {
    let mut mesh = Mesh::prepare(&MeshPlan::default(), &Binaries::find().expect("programs")).expect("mesh");
    mesh.join(Habits::default()).expect("a member");
    assert!(wait_for(SECOND * 10, || mesh.member().heard().map.is_some()));
    let environment = &mut mesh.node.joining.as_mut().expect("joins").environment;
    environment.push(("NB_LOG_LEVEL".to_owned(), "debug".to_owned()));
    mesh.node.start().expect("start");
    let both = Instant::now();
    let page = page_within(SECOND * 10, &mesh.member().namespace, GATEWAY).expect("page");
    let took = both.elapsed();
    tell(&format!("the first page came {:.2} s after the node was ready", took.as_secs_f64()));
    assert_eq!(page, format!("Hello from the LAN, {NODE_LAN}\n"));
    assert!(took < FIRST_PAGE, "{took:?}:\n{}", mesh.node.daemon().expect("it runs").log());
    let page = page_within(SECOND * 5, &mesh.member().namespace, GATEWAY6).expect("page");
    assert_eq!(page, format!("Hello from the LAN, {NODE_LAN6}\n"));
    let download = Download::start(&mesh.member().namespace, GATEWAY, 10_000_000).expect("download");
    download.finish().expect("whole");
    for target in [GATEWAY, GATEWAY6] {
        assert!(ping(&mesh.member().namespace, target, 3, SECOND).expect("ping").all_answered(), "{target}");
    }
    assert_eq!(mesh.node.kernel_forwarded().expect("counters"), 0);
    for program in ["iptables-save", "ip6tables-save"] {
        assert_eq!(mesh.node.namespace.exec(program, &[]).expect(program).trim(), "");
    }
    assert_eq!(mesh.node.namespace.exec("nft", &["list", "ruleset"]).expect("nft").trim(), "");
    let seen = mesh.server.seen();
    assert_eq!(seen.setup_keys, 2, "each of the two showed its key once");
    assert!(mesh.server.relay_frames() > 0);
}

#[test]
fn the_node_says_what_it_is() {
    let mesh = joined(&MeshPlan::default());
    let peer = node(&mesh);
    let meta = &peer.meta;
    assert_eq!((meta.hostname.as_str(), meta.go_os.as_str(), meta.kernel.as_str()), ("node", "linux", "Linux"));
    let mut version = meta.netbird_version.split('.').map(|part| part.parse::<u32>().expect("a number"));
    assert!((version.next(), version.next()) >= (Some(0), Some(60)), "{}", meta.netbird_version);
    assert_eq!(meta.capabilities, [1, 2], "prefixes in rules, and IPv6");
    assert_eq!(meta.sync_message_version, 0, "maps of the older kind");
    let networks = meta.network_addresses.iter().map(|address| address.net_ip.parse::<IpNet>());
    let addresses: Vec<_> = networks.map(|network| network.expect("a prefix").addr()).collect();
    assert!(addresses.contains(&NODE_LAN) && addresses.contains(&NODE_LAN6), "{addresses:?}");
    assert!(!addresses.iter().any(IpAddr::is_loopback), "{addresses:?}");
    assert!(!addresses.contains(&peer.address.into()), "{addresses:?}");
    assert!(peer.address6.is_some_and(|address| !addresses.contains(&address.into())), "{addresses:?}");
}

#[test]
fn a_policy_change_takes_less_than_two_seconds() {
    let mesh = joined(&MeshPlan::default());
    let from = &mesh.member().namespace;
    mesh.server.edit(|account| {
        account
            .policies
            .push(Policy::new("no-web", Action::Drop, Protocol::Tcp, &[MEMBERS], &[SERVICES]).on_ports(&[80]));
    });
    let start = Instant::now();
    assert!(wait_for(TOLD, || refused(&mesh)), "dropped");
    let dropped = start.elapsed();
    assert!(ping(from, GATEWAY, 1, SECOND).expect("ping").all_answered(), "the rest goes on");
    let start = Instant::now();
    mesh.server.edit(|account| account.policies.retain(|policy| policy.id != "no-web"));
    assert!(wait_for(TOLD, || !refused(&mesh)), "accepted again");
    tell(&format!("a policy took effect after {dropped:.2?} and ended after {:.2?}", start.elapsed()));
}

#[test]
fn a_route_change_takes_less_than_two_seconds() {
    let mesh = joined(&MeshPlan::default());
    let from = &mesh.member().namespace;
    let enable = |enabled| {
        mesh.server.edit(|account| account.networks[0].resources[0].enabled = enabled);
    };
    let kept = Download::start(from, GATEWAY6, 1 << 40).expect("download");
    enable(false);
    assert!(wait_for(TOLD, || mesh
        .node
        .status_text(&[])
        .is_ok_and(|text| !networks(&text).contains("198.51.100.0/24"))));
    enable(true);
    let start = Instant::now();
    assert!(wait_for(TOLD, || networks(&mesh.node.status_text(&[]).unwrap_or_default()).contains("198.51.100.0/24")));
    page_within(TOLD, from, GATEWAY).expect("the route is back");
    tell(&format!("a route took effect after {:.2?}", start.elapsed()));
    let stall = kept.stop().expect("the flow by the other route went on");
    assert!(stall < SECOND, "{stall:?}");
}

#[test]
fn rules_for_the_node_itself_hold() {
    let mesh = joined(&MeshPlan::default());
    let from = &mesh.member().namespace;
    let target = node(&mesh).address.into();
    assert!(!ping(from, target, 1, SECOND / 2).expect("ping").all_answered(), "nobody may");
    mesh.server.edit(|account| {
        account.policies.push(Policy::new("ping", Action::Accept, Protocol::Icmp, &[MEMBERS], &[ROUTERS]));
    });
    let answered = || ping(from, target, 1, SECOND / 2).expect("ping").all_answered();
    assert!(wait_for(TOLD, answered), "now they may");
    let back = mesh.member().overlay().expect("an address");
    assert!(ping(&mesh.node.namespace, back, 2, SECOND).expect("ping").all_answered(), "the other way, too");
}

#[test]
fn members_with_habits_of_official_clients() {
    let mut mesh = Mesh::prepare(&MeshPlan::default(), &Binaries::find().expect("programs")).expect("mesh");
    mesh.node.start().expect("start");
    for habits in [Habits { lazy: true, repeats: false }, Habits { lazy: false, repeats: true }] {
        let start = Instant::now();
        let member = mesh.join(habits).expect("a member");
        assert!(wait_for(SECOND * 10, || member.heard().map.is_some()));
        page_within(SECOND * 5, &member.namespace, GATEWAY).expect("page");
        tell(&format!("{habits:?}: a page {:.2?} after the start", start.elapsed()));
    }
}

#[test]
fn a_member_at_another_relay_is_reached_there() {
    let plan = MeshPlan { carriers_apart: true, ..MeshPlan::default() };
    let mut mesh = Mesh::prepare(&plan, &Binaries::find().expect("programs")).expect("mesh");
    // Management's own relay is there, too: it takes the same tokens.
    let other = format!("rel://{SERVERS}:8080");
    mesh.node.start().expect("start");
    let controls = node(&mesh).key;
    // The home of whoever has the greater key is where both meet. One key may be among the greatest, thousands are not.
    let keys = repeat_with(KeyPair::generate).take(50_000).find(|keys| keys.public() > controls.as_str());
    let keys = keys.expect("one that is greater");
    let (namespace, joining) = mesh.newcomer(Habits::default()).expect("a namespace");
    let member = Member::join_as(keys.clone(), namespace, &mesh.tunnel, joining).expect("a member");
    let registered = || mesh.server.look(|account| account.peers.contains_key(keys.public()));
    assert!(wait_for(SECOND * 10, registered));
    drop(member);
    let (namespace, joining) = mesh.newcomer(Habits::default()).expect("a namespace");
    mesh.server.edit(|account| {
        account.peers.get_mut(keys.public()).expect("registered").relays = Some(vec![other]);
    });
    let member = Member::join_as(keys, namespace, &mesh.tunnel, joining).expect("it comes again");
    page_within(SECOND * 10, &member.namespace, GATEWAY).expect("page");
    assert!(mesh.server.relay_frames() > 0, "by management's relay");
    assert!(mesh.server.has_relay(&controls), "where the node went for it");
}

#[test]
fn servers_with_tls_are_trusted_by_their_authority_alone() {
    let certificates = Certificates::generate(&[&SERVERS.to_string()]).expect("certificates");
    let authority = certificates.authority.clone();
    let binaries = Binaries::find().expect("programs");
    let change = |options: &mut Options, _: &mut Account| options.tls = Some(certificates);
    let mut mesh = Mesh::prepare_with(&MeshPlan::default(), &binaries, change).expect("mesh");
    mesh.node.launch().expect("launch");
    wait_for(SECOND * 3, || mesh.server.seen().logins > 0);
    assert_eq!(mesh.server.seen().logins, 0, "nobody vouches for this server");
    let (status, reason) = mesh.node.probe("/readyz").expect("an answer");
    assert_eq!(status, 503, "{reason}");
    mesh.node.kill().expect("kill");
    mesh.node.namespace.write("/run/lab/authority.pem".as_ref(), &authority).expect("written");
    let environment = &mut mesh.node.joining.as_mut().expect("joins").environment;
    environment.push(("NB_CA_FILE".to_owned(), "/run/lab/authority.pem".to_owned()));
    mesh.node.start().expect("start");
    let key = mesh.node_peer().expect("registered");
    assert!(wait_for(SECOND * 5, || mesh.server.has_signal(&key) && mesh.server.has_relay(&key)));
    let status = mesh.node.status_text(&["-d"]).expect("status");
    assert!(status.contains("[rels://192.0.2.254:8080] is Available"), "{status}");
}

/// What a change in management may take to be in force.
const TOLD: Duration = Duration::from_secs(2);

fn node(mesh: &Mesh) -> Peer {
    let key = mesh.node_peer().expect("registered");
    mesh.server.look(|account| account.peers[&key].clone())
}

/// Whether a page is not to be had: nobody answers within a moment.
fn refused(mesh: &Mesh) -> bool {
    let address = SocketAddr::new(GATEWAY, HTTP_PORT);
    mesh.member().namespace.enter(|| TcpStream::connect_timeout(&address, SECOND / 5)).is_err()
}

/// The line of the status that names served networks.
fn networks(status: &str) -> &str {
    status.lines().find(|line| line.starts_with("Networks:")).unwrap_or_default()
}
