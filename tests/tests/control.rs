//! The in-tree control plane brings together those who know nothing of it: official clients and its own member.

mod common;

use std::process::ExitCode;

use common::{SECOND, official, tell};
use peer_test_control::account::SetupKey;
use peer_test_control::member::Habits;
use peer_test_control::{Account, Options, Server};
use peer_tests::lab::{
    Internet, Joining, Member, Namespace, Official, OfficialClient, OfficialServer, Paths, SERVERS, Tunnel, ping,
    wait_for,
};
use peer_tests::scenarios;
use peer_tests::suite::Suite;

const PORT: u16 = 8080;

fn main() -> ExitCode {
    Suite::default()
        .always(scenarios![two_members_reach_each_other_through_the_relay])
        .needing(
            official,
            scenarios![
                two_official_clients_reach_each_other_through_the_relay,
                a_member_routes_for_nobody_but_an_official_client_pings_it,
                a_member_and_an_official_client_meet_at_official_servers,
            ],
        )
        .run()
}

fn two_members_reach_each_other_through_the_relay((): ()) {
    let (internet, server, setup_key) = server();
    let join = |number: u8, habits| {
        let namespace = party(&internet, number);
        let joining = joining(&server, &setup_key, number, habits);
        Member::join(namespace, &Tunnel::find().expect("wireguard-go"), joining).expect("a member")
    };
    let one = join(1, Habits::default());
    let other = join(2, Habits { lazy: true, repeats: true });
    assert!(wait_for(SECOND * 10, || one.is_connected(other.keys.public())), "{:?}", one.heard());
    let target = other.overlay().expect("an address");
    assert!(wait_for(SECOND * 10, || ping(&one.namespace, target, 1, SECOND).is_ok_and(|pings| pings.all_answered())));
    assert!(server.relay_frames() > 0);
}

fn two_official_clients_reach_each_other_through_the_relay(official: &'static Official) {
    let (internet, server, setup_key) = server();
    let join = |number: u8| {
        let joining = joining(&server, &setup_key, number, Habits::default());
        OfficialClient::join(party(&internet, number), official, &joining, Paths::Relay).expect("an official client")
    };
    let (one, other) = (join(1), join(2));
    let target = other.overlay().expect("an address");
    let answered = || ping(&one.namespace, target, 1, SECOND).is_ok_and(|pings| pings.all_answered());
    assert!(wait_for(SECOND * 20, answered), "{}", one.process().expect("it runs").log());
    let key = other.key().expect("a key");
    let connection = || one.connection(&key).expect("status");
    assert!(wait_for(SECOND * 5, || connection().as_deref() == Some("Relayed")), "{:?}", connection());
    assert!(server.relay_frames() > 0);
    let known = server.look(|account| account.peers.len());
    assert_eq!(known, 2);
    tell(&format!("official clients {} met through the in-tree servers", official.version));
}

fn a_member_routes_for_nobody_but_an_official_client_pings_it(official: &'static Official) {
    let (internet, server, setup_key) = server();
    let member = {
        let joining = joining(&server, &setup_key, 1, Habits::default());
        Member::join(party(&internet, 1), &Tunnel::find().expect("wireguard-go"), joining).expect("a member")
    };
    let joining = joining(&server, &setup_key, 2, Habits::default());
    let client =
        OfficialClient::join(party(&internet, 2), official, &joining, Paths::Relay).expect("an official client");
    assert!(wait_for(SECOND * 10, || member.overlay().is_ok()));
    let (target, back) = (member.overlay().expect("an address"), client.overlay().expect("an address"));
    for (from, to) in [(&client.namespace, target), (&member.namespace, back)] {
        let answered = || ping(from, to, 1, SECOND).is_ok_and(|pings| pings.all_answered());
        assert!(wait_for(SECOND * 20, answered), "{:?}", member.heard());
    }
}

fn a_member_and_an_official_client_meet_at_official_servers(official: &'static Official) {
    let internet = Internet::new().expect("a wire");
    let server = OfficialServer::start(internet.clone(), official, PORT).expect("official servers");
    let api = server.set_up().expect("an account");
    let setup_key = api.setup_key("everybody", false, &[]).expect("a key");
    let joining = |number: u8| Joining {
        url: server.url(),
        setup_key: setup_key.clone(),
        hostname: format!("party{number}"),
        habits: Habits::default(),
    };
    let tunnel = Tunnel::find().expect("wireguard-go");
    let member = Member::join(party(&internet, 1), &tunnel, joining(1)).expect("a member");
    let client =
        OfficialClient::join(party(&internet, 2), official, &joining(2), Paths::Relay).expect("an official client");
    assert!(wait_for(SECOND * 10, || member.overlay().is_ok()), "{:?}", member.heard());
    let (target, back) = (member.overlay().expect("an address"), client.overlay().expect("an address"));
    for (from, to) in [(&client.namespace, target), (&member.namespace, back)] {
        let answered = || ping(from, to, 1, SECOND).is_ok_and(|pings| pings.all_answered());
        assert!(wait_for(SECOND * 20, answered), "{:?}", member.heard());
    }
    let map = member.heard().map.expect("a map");
    assert!(map.dns_config.is_some() && map.firewall_rules.len() == 4, "{map:?}");
}

fn server() -> (Internet, Server, String) {
    let internet = Internet::new().expect("a wire");
    let mut account = Account::default();
    let setup_key = account.add_setup_key(SetupKey::reusable());
    let options = Options::new(&format!("{SERVERS}:{PORT}"));
    let server = Server::start(options, account, internet.listener(PORT)).expect("servers");
    (internet, server, setup_key)
}

fn party(internet: &Internet, number: u8) -> Namespace {
    let namespace = Namespace::new(&format!("party{number}")).expect("a namespace");
    internet.attach(&namespace, "eth0", number).expect("a wire");
    namespace
}

fn joining(server: &Server, setup_key: &str, number: u8, habits: Habits) -> Joining {
    Joining { url: server.url(), setup_key: setup_key.to_owned(), hostname: format!("party{number}"), habits }
}
