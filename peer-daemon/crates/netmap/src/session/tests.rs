use std::sync::Arc;

use zeroize::Zeroizing;

use super::*;
use crate::model::{RemotePeer, Rules};

const OWN: PublicKey = PublicKey([1; 32]);

fn own(v4: &str, v6: Option<&str>) -> OwnConfig {
    let addresses =
        crate::model::OwnAddresses { v4: v4.parse().ok(), v6: v6.map(|text| text.parse().expect("an IPv6 prefix")) };
    OwnConfig { addresses, ..OwnConfig::default() }
}

fn map(serial: u64, own: Option<OwnConfig>) -> Update {
    Update { map: Some(NetworkMap { serial, own, ..NetworkMap::default() }), ..Update::default() }
}

fn relay(url: &str) -> Relay {
    Relay { urls: vec![url.into()], token_payload: "1".into(), token_signature: Zeroizing::new("s".into()) }
}

fn servers(update: ServersUpdate) -> Update {
    Update { servers: Some(update), ..Update::default() }
}

#[test]
fn an_older_map_is_dropped_and_an_equal_one_taken() {
    let mut session = Session::new(OWN);
    let verdicts = [5, 4, 5, 7, 6].map(|serial| session.update(map(serial, None)).map);
    let accepted = |serial| MapVerdict::Accepted { serial };
    let stale = |serial, last| MapVerdict::Stale { serial, last };
    assert_eq!(verdicts, [accepted(5), stale(4, 5), accepted(5), accepted(7), stale(6, 7)]);
    assert_eq!(session.stale_maps(), 2);
    assert_eq!(session.map().map(|map| map.serial), Some(7));
}

#[test]
fn an_address_changes_whatever_the_serial() {
    let mut session = Session::new(OWN);
    assert!(!session.update(map(5, Some(own("100.64.0.1/16", None)))).readdressed, "the first is no change");
    assert!(!session.update(map(5, Some(own("100.64.0.1/16", None)))).readdressed);
    let applied = session.update(map(3, Some(own("100.64.0.2/16", None))));
    assert_eq!((applied.readdressed, applied.map), (true, MapVerdict::Accepted { serial: 3 }));
    let applied = session.update(map(2, Some(own("100.64.0.2/16", None))));
    assert_eq!((applied.readdressed, applied.map), (false, MapVerdict::Stale { serial: 2, last: 3 }));
    assert!(session.update(map(3, Some(own("100.64.0.2/24", None)))).readdressed, "the network counts");
    let own = session.own().expect("known");
    assert_eq!(own.addresses.v4, "100.64.0.2/24".parse().ok());
}

#[test]
fn an_ipv6_address_comes_and_goes() {
    let mut session = Session::new(OWN);
    session.update(map(1, Some(own("100.64.0.1/16", Some("fd00::1/64")))));
    assert!(!session.update(map(2, None)).readdressed, "nothing is said of addresses");
    assert!(session.update(map(3, Some(own("100.64.0.1/16", None)))).readdressed);
    assert!(session.update(map(4, Some(own("100.64.0.1/16", Some("fd00::1/64"))))).readdressed);
    assert!(session.update(map(5, Some(own("100.64.0.1/16", Some("fd00::2/64"))))).readdressed);
}

#[test]
fn a_text_that_is_no_address_leaves_the_old_one() {
    let mut session = Session::new(OWN);
    session.update(map(1, Some(own("100.64.0.1/16", None))));
    assert!(!session.update(map(2, Some(own("none", None)))).readdressed);
    assert_eq!(session.own().expect("known").addresses.v4, "100.64.0.1/16".parse().ok());
}

#[test]
fn a_configuration_that_names_no_server_changes_none() {
    let mut session = Session::new(OWN);
    let full = ServersUpdate {
        stuns: vec!["stun:a:1".into()],
        turns: vec![Turn { uri: "turn:a:2".into(), user: "u".into(), password: Zeroizing::new("p".into()) }],
        signal: Some(Signal { authority: "a:3".into(), tls: true }),
        relay: Some(relay("rels://a:4")),
    };
    let applied = session.update(servers(full.clone()));
    assert!(applied.ice && applied.relay && applied.signal);
    let before = session.servers().clone();
    assert_eq!(session.update(servers(ServersUpdate::default())), Applied::default());
    assert_eq!(session.update(Update::default()), Applied::default());
    assert_eq!(session.update(servers(full)), Applied::default());
    assert_eq!(*session.servers(), before);
}

#[test]
fn new_credentials_of_the_relay_keep_the_rest() {
    let mut session = Session::new(OWN);
    let full = ServersUpdate { stuns: vec!["stun:a:1".into()], relay: Some(relay("rel://a")), ..Default::default() };
    session.update(servers(full));
    let mut renewed = relay("rel://a");
    renewed.token_payload = "2".into();
    let applied = session.update(servers(ServersUpdate { relay: Some(renewed.clone()), ..Default::default() }));
    assert_eq!(applied, Applied { relay: true, ..Applied::default() });
    assert_eq!(
        (&session.servers().stuns[..], &session.servers().relay),
        (&["stun:a:1".to_owned()][..], &Some(renewed))
    );
}

#[test]
fn servers_without_a_relay_switch_relays_off() {
    let mut session = Session::new(OWN);
    session.update(servers(ServersUpdate { relay: Some(relay("rel://a")), ..Default::default() }));
    let stuns = vec!["stun:a:1".into()];
    let applied = session.update(servers(ServersUpdate { stuns, ..Default::default() }));
    assert_eq!((applied.relay, session.servers().relay.as_ref()), (true, None));
}

#[test]
fn posture_checks_come_with_maps_only() {
    let mut session = Session::new(OWN);
    let checks = vec!["/bin/a".to_owned()];
    let mut first = map(1, None);
    first.checks.clone_from(&checks);
    assert!(session.update(first.clone()).checks);
    assert!(!session.update(first).checks);
    assert!(!session.update(servers(ServersUpdate::default())).checks, "a message without a map drops none");
    assert_eq!(session.checks(), checks);
    assert!(session.update(map(2, None)).checks);
    assert!(session.checks().is_empty());
}

#[test]
fn own_key_is_no_remote_peer() {
    let mut session = Session::new(OWN);
    let peer = |byte| {
        let (fqdn, agent_version) = (String::new(), String::new());
        Arc::new(RemotePeer { key: PublicKey([byte; 32]), allowed_ips: Arc::default(), fqdn, agent_version })
    };
    let peers = vec![peer(1), peer(2)];
    session
        .update(Update { map: Some(NetworkMap { peers: peers.into(), ..NetworkMap::default() }), ..Update::default() });
    let map = session.map().expect("a map");
    assert_eq!((map.peers.len(), map.peers[0].key, map.skipped.peers), (1, PublicKey([2; 32]), 1));
}

#[test]
fn a_login_says_first_what_the_stream_says_later() {
    let mut session = Session::new(OWN);
    let login = Login {
        servers: Some(ServersUpdate { relay: Some(relay("rel://a")), ..Default::default() }),
        own: Some(own("100.64.0.1/16", None)),
        checks: vec!["/bin/a".into()],
    };
    let applied = session.login(login);
    assert!(applied.relay && applied.own && applied.checks && !applied.readdressed);
    assert!(session.update(map(1, Some(own("100.64.0.2/16", None)))).readdressed);
    assert_eq!(session.map().map(|map| map.peer_rules.clone()), Some(Rules::List(Vec::new())));
}
