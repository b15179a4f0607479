//! Management as a peer meets it: how it lets in, tells, pushes, refuses and forgets.

mod common;

use std::time::SystemTime;

use common::{Bench, SECOND, next, next_map};
use peer_test_control::account::{Action, Network, Policy, Protocol, RemovalError, Routers, SetupKey};
use peer_test_control::map::Shape;
use peer_test_control::member::{Management, meta};
use peer_test_control::proto::management::{HostConfig, NetbirdConfig, PeerSystemMeta, SyncResponse};
use peer_test_control::sealed::seal_bytes;
use peer_test_control::server::Faults;
use peer_test_control::{Account, KeyPair, Options, Turns, turn};
use tokio::time::{sleep, timeout};
use tonic::Code;

fn plain(_: &mut Options, _: &mut Account) {}

#[test]
fn lets_in_by_setup_key_once_and_knows_the_peer_from_then_on() {
    let bench = Bench::start(plain);
    bench.runtime.block_on(async {
        let keys = KeyPair::generate();
        let mut management = bench.management(&keys).await;
        let refused = management.login(&meta("node"), "").await.expect_err("unknown");
        assert_eq!(refused.code(), Code::PermissionDenied);
        let refused =
            management.login(&meta("node"), "00000000-0000-0000-0000-000000000000").await.expect_err("no key");
        assert_eq!(refused.code(), Code::NotFound);
        assert_eq!(refused.message(), "couldn't add peer: setup key is invalid");
        let answer = management.login(&meta("node"), &bench.setup_key.to_lowercase()).await.expect("registered");
        let own = answer.peer_config.expect("a configuration");
        assert_eq!(own.fqdn, "node.netbird.selfhosted");
        assert_eq!(own.address_v6.len(), 17);
        let config = answer.netbird_config.expect("servers");
        let address = bench.server.address().to_string();
        assert_eq!(config.signal.expect("signal").uri, address);
        assert_eq!(config.relay.expect("relay").urls, [format!("rel://{address}")]);
        let again = management.login(&meta("node"), "").await.expect("known");
        assert_eq!(again.peer_config.expect("a configuration"), own);
        assert_eq!(bench.server.look(|account| account.peers[keys.public()].logins), 2);
    });
    let seen = bench.server.seen();
    assert_eq!((seen.logins, seen.setup_keys), (4, 2));
}

#[test]
fn refuses_what_it_cannot_read_and_whom_it_does_not_know() {
    let bench = Bench::start(plain);
    bench.runtime.block_on(async {
        let (mut stranger, keys) = (bench.management(&KeyPair::generate()).await, KeyPair::generate());
        assert_eq!(stranger.sync(&meta("x")).await.err().map(|status| status.code()), Some(Code::PermissionDenied));
        assert_eq!(stranger.logout().await.expect_err("unknown").code(), Code::NotFound);
        // Sealed for the key of another start.
        let body = seal_bytes(&keys, KeyPair::generate().public(), &[]).expect("sealed");
        for (name, body) in [(keys.public(), body), (keys.public(), vec![0; 10]), ("no key", vec![0; 64])] {
            let refused = stranger.login_raw(name, body).await.expect_err("unreadable");
            assert_eq!(refused.code(), Code::InvalidArgument);
        }
    });
}

#[test]
fn pushes_what_changes_and_nothing_else() {
    let bench = Bench::start(plain);
    bench.runtime.block_on(async {
        let (mut one, keys) = bench.member("one").await;
        let mut syncs = one.sync(&meta("one")).await.expect("a stream");
        let first = next(&mut syncs).await;
        assert!(first.netbird_config.is_some(), "the first message has everything");
        let map = first.network_map.expect("a map");
        assert!(map.remote_peers_is_empty && map.firewall_rules_is_empty && map.routes_firewall_rules_is_empty);
        let (_, other) = bench.member("other").await;
        let message = next(&mut syncs).await;
        assert!(message.netbird_config.is_none(), "changes carry no configuration");
        let later = message.network_map.expect("a map");
        assert!(later.serial > map.serial);
        assert_eq!(later.remote_peers.len(), 1);
        assert_eq!(later.remote_peers[0].wg_pub_key, other.public());
        assert_eq!(later.remote_peers[0].allowed_ips.len(), 2);
        assert_eq!(later.firewall_rules.len(), 4, "both families, both directions");
        assert!(!later.remote_peers_is_empty && !later.firewall_rules_is_empty);
        bench.server.edit(|_| ());
        assert!(timeout(SECOND / 2, syncs.next()).await.is_err(), "nothing that this peer is told has changed");
        bench.server.edit(|account| {
            let prefix = "198.51.100.0/24".parse().expect("valid");
            account.networks.push(Network::of_prefix("lan", prefix, Routers::Peer(keys.public().to_owned())));
            let policy = Policy::new("lan", Action::Accept, Protocol::Tcp, &["All"], &["lan"]).on_ports(&[80, 443]);
            account.policies.push(policy);
        });
        let map = next_map(&mut syncs).await;
        assert_eq!(map.routes.len(), 1);
        assert!(map.routes[0].masquerade && map.routes[0].keep_route && map.routes[0].peer == keys.public());
        assert_eq!(map.routes_firewall_rules.len(), 2, "one for each port");
        assert_eq!(map.routes_firewall_rules[0].source_ranges.len(), 1, "the router itself is no source");
    });
}

#[test]
fn a_newer_stream_ends_the_older_one() {
    let bench = Bench::start(plain);
    bench.runtime.block_on(async {
        let (mut management, _) = bench.member("one").await;
        let mut older = management.sync(&meta("one")).await.expect("a stream");
        next(&mut older).await;
        let mut newer = management.sync(&meta("one")).await.expect("a stream");
        next(&mut newer).await;
        let end = timeout(SECOND * 5, older.next()).await.expect("in time");
        assert!(matches!(end, Ok(None)), "{end:?}");
        bench.member("two").await;
        next(&mut newer).await;
    });
}

#[test]
fn a_deleted_peer_is_told_an_empty_map_and_must_register_again() {
    let bench = Bench::start(plain);
    bench.runtime.block_on(async {
        let (mut management, keys) = bench.member("one").await;
        let mut syncs = management.sync(&meta("one")).await.expect("a stream");
        next(&mut syncs).await;
        bench.server.delete_peer(keys.public()).expect("deleted");
        let last = next_map(&mut syncs).await;
        assert!(last.remote_peers_is_empty && last.firewall_rules_is_empty && last.peer_config.is_none());
        assert!(matches!(timeout(SECOND * 5, syncs.next()).await.expect("in time"), Ok(None)));
        let refused = management.sync(&meta("one")).await.err().expect("unknown");
        assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "peer is not registered"));
    });
}

#[test]
fn an_ephemeral_peer_goes_when_it_stays_away_and_not_when_it_comes_back() {
    let mut ephemeral = String::new();
    let bench = Bench::start(|options, account| {
        options.ephemeral_after = SECOND / 2;
        ephemeral = account.add_setup_key(SetupKey { ephemeral: true, ..SetupKey::reusable() });
    });
    bench.runtime.block_on(async {
        let keys = KeyPair::generate();
        let mut management = bench.management(&keys).await;
        management.login(&meta("one"), &ephemeral).await.expect("registered");
        for _ in 0..2 {
            let mut syncs = management.sync(&meta("one")).await.expect("a stream");
            next(&mut syncs).await;
            drop(syncs);
            // Half of the time after which it would be gone.
            sleep(SECOND / 4).await;
        }
        let mut syncs = management.sync(&meta("one")).await.expect("it came back in time");
        next(&mut syncs).await;
        // Twice that time.
        sleep(SECOND).await;
        assert!(bench.server.look(|account| account.peers.contains_key(keys.public())), "it is there");
        drop(syncs);
        let gone = async {
            while bench.server.look(|account| account.peers.contains_key(keys.public())) {
                sleep(SECOND / 50).await;
            }
        };
        timeout(SECOND * 10, gone).await.expect("it has gone");
    });
}

#[test]
fn logout_deletes_unless_a_network_names_the_peer() {
    let bench = Bench::start(plain);
    bench.runtime.block_on(async {
        let (mut management, keys) = bench.member("one").await;
        bench.server.edit(|account| {
            let prefix = "198.51.100.0/24".parse().expect("valid");
            account.networks.push(Network::of_prefix("lan", prefix, Routers::Peer(keys.public().to_owned())));
        });
        let refused = management.logout().await.expect_err("named");
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::FailedPrecondition, "peer is linked to a network router")
        );
        assert_eq!(bench.server.delete_peer(keys.public()), Err(RemovalError::Router));
        bench.server.edit(|account| account.networks.clear());
        management.logout().await.expect("deleted");
        assert!(bench.server.look(|account| account.peers.is_empty()));
    });
}

#[test]
fn a_restart_brings_a_new_key_and_keeps_the_account() {
    let mut bench = Bench::start(plain);
    let (mut management, keys, key, mut syncs) = bench.runtime.block_on(async {
        let (mut management, keys) = bench.member("one").await;
        let key = management.server_key().await.expect("a key");
        let mut syncs = management.sync(&meta("one")).await.expect("a stream");
        next(&mut syncs).await;
        (management, keys, key, syncs)
    });
    bench.server.kill();
    bench.runtime.block_on(async {
        let end = timeout(SECOND * 5, syncs.next()).await.expect("in time");
        assert!(!matches!(end, Ok(Some(_))), "{end:?}");
        assert!(Management::connect(&bench.server.url(), keys.clone()).await.is_err(), "nobody listens");
    });
    bench.server.resume().expect("started");
    bench.runtime.block_on(async {
        assert_ne!(management.server_key().await.expect("a key"), key);
        management.login(&meta("one"), "").await.expect("known");
    });
}

#[test]
fn tokens_are_renewed_before_they_expire() {
    let bench = Bench::start(|options, _| options.token_ttl = SECOND * 2);
    bench.runtime.block_on(async {
        let (mut management, _) = bench.member("one").await;
        let mut syncs = management.sync(&meta("one")).await.expect("a stream");
        let first = next(&mut syncs).await.netbird_config.and_then(|config| config.relay).expect("a token");
        let renewal = next(&mut syncs).await;
        assert!(renewal.network_map.is_none());
        let config = renewal.netbird_config.expect("a configuration");
        assert!(config.signal.is_none());
        assert!(config.relay.expect("a token").token_payload > first.token_payload);
    });
}

#[test]
fn faults_are_as_ordered() {
    let bench = Bench::start(plain);
    bench.runtime.block_on(async {
        let (mut management, keys) = bench.member("one").await;
        let refusal = Some((Code::Unavailable, "not now".to_owned()));
        bench.server.set_faults(Faults { refuse_login: refusal.clone(), ..Faults::default() });
        assert_eq!(management.login(&meta("one"), "").await.expect_err("refused").code(), Code::Unavailable);
        bench.server.set_faults(Faults { refuse_sync: refusal, slow: SECOND / 2, ..Faults::default() });
        assert!(timeout(SECOND / 4, management.login(&meta("one"), "")).await.is_err(), "slow");
        assert_eq!(management.sync(&meta("one")).await.err().map(|status| status.code()), Some(Code::Unavailable));
        bench.server.set_faults(Faults::default());
        let mut syncs = management.sync(&meta("one")).await.expect("a stream");
        next(&mut syncs).await;
        let crafted = SyncResponse { netbird_config: Some(NetbirdConfig::default()), ..SyncResponse::default() };
        assert!(bench.server.push(keys.public(), &crafted));
        assert_eq!(next(&mut syncs).await, crafted);
        assert!(bench.server.push_plaintext(keys.public(), vec![0xff; 9]));
        assert_eq!(syncs.next().await.expect_err("no message").code(), Code::DataLoss);
        assert!(bench.server.push_body(keys.public(), vec![0xff; 90]));
        assert_eq!(syncs.next().await.expect_err("not sealed").code(), Code::DataLoss);
        bench.server.drop_streams();
        assert!(matches!(timeout(SECOND * 5, syncs.next()).await.expect("in time"), Ok(None)));
    });
}

#[test]
fn older_versions_say_it_their_way() {
    let bench = Bench::start(|_, account| {
        account.add_peer("CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=", &meta("two"), false, None).expect("added");
    });
    bench.runtime.block_on(async {
        let (mut management, _) = bench.member("one").await;
        let mut syncs = management.sync(&meta("one")).await.expect("a stream");
        assert!(next(&mut syncs).await.remote_peers.is_empty(), "beside the map nothing");
        bench.server.set_shape(Shape::V0_66);
        let message = next(&mut syncs).await;
        assert_eq!(message.remote_peers.len(), 1);
        let map = message.network_map.expect("a map");
        assert!(map.firewall_rules.iter().all(|rule| rule.source_prefixes.is_empty() && !rule.peer_ip.contains(':')));
        assert!(map.peer_config.expect("own").address_v6.is_empty());
        bench.server.set_shape(Shape::Ancient);
        let map = next_map(&mut syncs).await;
        assert!(map.firewall_rules.is_empty() && !map.firewall_rules_is_empty);
        bench.server.set_shape(Shape::V0_74_0);
        let config = next(&mut syncs).await.netbird_config.expect("with metrics alone");
        assert!(config.metrics.is_some() && config.relay.is_none() && config.signal.is_none());
    });
}

#[test]
fn an_expired_login_is_told_to_others_as_offline() {
    let bench = Bench::start(plain);
    bench.runtime.block_on(async {
        let (mut one, _) = bench.member("one").await;
        let (mut two, keys) = bench.member("two").await;
        let mut syncs = one.sync(&meta("one")).await.expect("a stream");
        assert_eq!(next_map(&mut syncs).await.remote_peers.len(), 1);
        bench.server.edit(|account| {
            account.peers.get_mut(keys.public()).expect("registered").login_expired = true;
        });
        let map = next_map(&mut syncs).await;
        assert!(map.remote_peers.is_empty() && map.offline_peers.len() == 1);
        assert_eq!(two.login(&meta("two"), "").await.expect_err("expired").code(), Code::PermissionDenied);
    });
}

#[test]
fn meta_changes_reach_others() {
    let bench = Bench::start(plain);
    bench.runtime.block_on(async {
        let (mut one, _) = bench.member("one").await;
        let (mut two, _) = bench.member("two").await;
        let mut syncs = one.sync(&meta("one")).await.expect("a stream");
        assert_eq!(next_map(&mut syncs).await.remote_peers[0].agent_version, "0.77.1");
        two.sync_meta(&PeerSystemMeta { netbird_version: "0.99.0".to_owned(), ..meta("two") }).await.expect("taken");
        assert_eq!(next_map(&mut syncs).await.remote_peers[0].agent_version, "0.99.0");
    });
}

#[test]
fn hands_out_stun_and_turn_and_their_changes() {
    let turns = |uris: &[&str], secret: &str| Turns {
        uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
        secret: secret.to_owned(),
        ..Turns::default()
    };
    let first = turns(&["turn:192.0.2.1:3478?transport=udp", "turn:192.0.2.2:3478?transport=udp"], "one");
    let bench = Bench::start(|options, _| {
        options.stuns = vec!["stun:192.0.2.1:3478".to_owned()];
        options.turns = first;
    });
    bench.runtime.block_on(async {
        let (mut management, _) = bench.member("node").await;
        let mut syncs = management.sync(&meta("node")).await.expect("a stream");
        let config = next(&mut syncs).await.netbird_config.expect("servers");
        assert_eq!(uris(&config.stuns), ["stun:192.0.2.1:3478"]);
        let hosts: Vec<_> = config.turns.iter().filter_map(|turn| turn.host_config.clone()).collect();
        assert_eq!(uris(&hosts), ["turn:192.0.2.1:3478?transport=udp", "turn:192.0.2.2:3478?transport=udp"]);
        for turn in &config.turns {
            assert_eq!(turn.password, turn::credentials::password("one", &turn.user));
            assert!(turn::credentials::is_valid(&turn.user, SystemTime::now() + SECOND * 11 * 3600), "{turn:?}");
        }
        bench.server.set_turns(turns(&["turn:192.0.2.2:3478?transport=udp"], "two"));
        let update = next(&mut syncs).await;
        let config = update.netbird_config.expect("servers");
        assert_eq!((update.network_map, config.turns.len()), (None, 1));
        assert_eq!(config.turns[0].password, turn::credentials::password("two", &config.turns[0].user));
        assert_eq!(uris(&config.stuns), ["stun:192.0.2.1:3478"]);
        bench.server.set_stuns(vec!["stun:192.0.2.3:3478".to_owned()]);
        let config = next(&mut syncs).await.netbird_config.expect("servers");
        assert_eq!((uris(&config.stuns), config.turns.len()), (vec!["stun:192.0.2.3:3478"], 1));
        bench.server.set_turns(Turns { ttl: SECOND * 4, ..turns(&["turn:192.0.2.2:3478?transport=udp"], "two") });
        let old = next(&mut syncs).await.netbird_config.expect("servers").turns.remove(0);
        // After three quarters of the time: credentials alone, with a token for the relay.
        let renewed = next(&mut syncs).await.netbird_config.expect("credentials");
        assert!(renewed.turns[0].user > old.user && renewed.relay.is_some(), "{renewed:?}");
        assert!(renewed.stuns.is_empty() && renewed.signal.is_none());
    });
}

fn uris(hosts: &[HostConfig]) -> Vec<&str> {
    hosts.iter().map(|host| &host.uri[..]).collect()
}
