use proptest::prelude::*;
use prost::Message as _;
use serde_json::Value;

use super::*;
use crate::proto::management::{HostConfig, NetworkMap, RemotePeerConfig};
use crate::testdata;

mod json;

fn decode_sync(bytes: &[u8]) -> Result<SyncResponse, DecodeError> {
    SyncMessage::new(Zeroizing::new(bytes.to_vec())).and_then(|message| message.decode())
}

const MESSAGES: [&str; 6] = [
    "management/sync-initial.json",
    "management/sync-push-3.json",
    "management/sync-push-4.json",
    "management/sync-push-8.json",
    "management-0.66/sync-initial.json",
    "management-0.66/sync-push-8.json",
];

#[test]
fn recorded_maps_decode_field_by_field() {
    for name in MESSAGES {
        let vector = testdata::read(name);
        let message = decode_sync(&vector.bytes).expect(name);
        assert_eq!(json::sync(&message), without_unused(vector.json), "{name}");
    }
}

#[test]
fn recorded_logins_decode_field_by_field() {
    for name in ["management/login-response.json", "management-0.66/login-response.json"] {
        let vector = testdata::read(name);
        let message = decode_login(&vector.bytes).expect(name);
        assert_eq!(json::login(&message), without_unused(vector.json), "{name}");
    }
}

#[test]
fn unknown_values_are_kept_apart_from_known_ones() {
    let bytes = testdata::read("management/sync-push-8.json").bytes;
    let mut message = decode_sync(&bytes).expect("a message");
    let rules = &mut message.network_map.as_mut().expect("a map").routes_firewall_rules;
    rules[0].protocol = 99;
    let again = decode_sync(&message.encode_to_vec()).expect("no error");
    let rule = &again.network_map.expect("a map").routes_firewall_rules[0];
    assert_eq!((rule.protocol, rule.protocol().as_str_name()), (99, "UNKNOWN"));
}

#[test]
fn secrets_are_not_printed() {
    let bytes = testdata::read("management/login-response.json").bytes;
    let text = format!("{:?}", decode_login(&bytes).expect("a message"));
    assert!(text.contains("rel://10.99.0.1:8080") && !text.contains("fb8HhSvJS10kYExWHwP"), "{text}");
}

#[test]
fn ten_thousand_peers_are_no_problem_a_million_empty_ones_are() {
    let peer = RemotePeerConfig { allowed_ips: vec!["100.64.0.1/32".to_owned()], ..RemotePeerConfig::default() };
    let map = NetworkMap { remote_peers: vec![peer; 10_000], ..NetworkMap::default() };
    let message = SyncResponse { network_map: Some(map), ..SyncResponse::default() };
    decode_sync(&message.encode_to_vec()).expect("within bounds");

    // Two bytes each: field 3 of the map (field 5), empty.
    let peers = [0x1a, 0].repeat(1_000_000);
    let mut message = vec![0x2a];
    prost::encode_length_delimiter(peers.len(), &mut message).expect("room");
    message.extend(peers);
    let error = decode_sync(&message).expect_err("too many");
    assert_eq!(error, DecodeError::TooManyEntries { entries: 1_000_000, limit: MAX_ENTRIES });
}

#[test]
fn servers_are_exchanged_and_the_rest_stays() {
    let config = |uri: &str| {
        let signal = Some(HostConfig { uri: uri.to_owned(), protocol: 0 });
        Some(NetbirdConfig { signal, ..NetbirdConfig::default() })
    };
    for name in MESSAGES {
        for said in [None, config("old.test:80"), config(&"x".repeat(300))] {
            let bytes = testdata::read(name).bytes;
            let message = SyncResponse { netbird_config: said, ..decode_sync(&bytes).expect(name) };
            let message = SyncMessage::new(Zeroizing::new(message.encode_to_vec())).expect(name);
            let kept = SyncMessage::new(message.with_servers(config("new.test:80").as_ref())).expect(name);
            let expected =
                SyncResponse { netbird_config: config("new.test:80"), ..message.decode().expect("a message") };
            assert_eq!(kept.decode().expect("a message"), expected, "{name}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = (decode_sync(&bytes).is_ok(), decode_login(&bytes).is_ok());
    }

    #[test]
    fn damaged_messages_are_a_message_or_an_error(
        name in prop::sample::select(&MESSAGES[..]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = testdata::read(name).bytes;
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = decode_sync(&bytes).is_ok();
        bytes.truncate(end.index(bytes.len()));
        let _ = decode_sync(&bytes).is_ok();
    }

    /// Whatever prost takes, the count has seen: nothing slips past the limit.
    #[test]
    fn the_count_sees_what_prost_sees(peers in 0..50_usize, rules in 0..50_usize) {
        let map = NetworkMap {
            serial: u64::MAX,
            remote_peers: vec![RemotePeerConfig::default(); peers],
            firewall_rules: vec![Default::default(); rules],
            ..NetworkMap::default()
        };
        let bytes = map.encode_to_vec();
        prop_assert_eq!(children(&bytes, 0..bytes.len()).count(), peers + rules);
    }
}

/// Takes out what our .proto files do not list.
fn without_unused(value: Value) -> Value {
    const UNUSED: [&str; 6] = ["sshConfig", "autoUpdate", "CustomZones", "sshAuth", "sessionExpiresAt", "metrics"];
    fn strip(value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields = fields.into_iter().filter(|(name, _)| !UNUSED.contains(&name.as_str()));
                Value::Object(fields.map(|(name, value)| (name, strip(value))).collect())
            }
            Value::Array(items) => Value::Array(items.into_iter().map(strip).collect()),
            other => other,
        }
    }
    let mut value = strip(value);
    // The deprecated copies beside the map.
    if let Value::Object(fields) = &mut value
        && fields.contains_key("NetworkMap")
    {
        for name in ["peerConfig", "remotePeers", "remotePeersIsEmpty"] {
            fields.remove(name);
        }
    }
    value
}
