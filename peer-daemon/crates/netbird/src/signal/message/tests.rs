use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::testdata;

#[test]
fn a_recorded_offer_decodes_and_encodes() {
    let vector = testdata::read("signal/offer.json");
    let text = |name: &str| vector.json[name].as_str().expect("text").to_owned();
    let bytes = |name: &str| STANDARD.decode(text(name)).expect("base64");
    let Message::Offer(offer) = Message::decode(&vector.bytes).expect("a message") else { panic!("an offer") };
    let (ufrag, password) =
        text("payload").split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a colon");
    let expected = Description {
        ice: Some(IceCredentials { ufrag, password }),
        listen_port: 51820,
        version: text("netBirdVersion"),
        session: Some(SessionId(bytes("sessionId").try_into().expect("5 bytes"))),
        relay: Some(text("relayServerAddress")),
        relay_ip: Some(IpAddr::from(<[u8; 4]>::try_from(bytes("relayServerIP")).expect("4 bytes"))),
    };
    assert_eq!(offer, expected);
    // The same but for the empty rosenpassConfig (field 7), which we do not send.
    let ours = Message::Offer(offer).encode();
    let theirs = vector.bytes.windows(2).position(|pair| pair == [0x3a, 0x00]).expect("rosenpassConfig");
    assert_eq!(ours, [&vector.bytes[..theirs], &vector.bytes[theirs + 2..]].concat());
}

#[test]
fn recorded_candidates_decode_and_encode() {
    for name in ["signal/candidate-host.json", "signal/candidate-srflx.json"] {
        let vector = testdata::read(name);
        let message = Message::decode(&vector.bytes).expect(name);
        let payload = vector.json["payload"].as_str().expect("text").to_owned();
        assert_eq!(message, Message::Candidate(payload));
        assert_eq!(message.encode(), vector.bytes);
    }
}

fn offer(body: &Body) -> Result<Description, MessageError> {
    match Message::decode(&body.encode_to_vec())? {
        Message::Offer(description) => Ok(description),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_without_ice_says_a_colon() {
    let description = offer(&Body { payload: ":".to_owned(), ..Body::default() }).expect("an offer");
    assert_eq!((description.ice, description.listen_port), (None, 51820));
    for payload in ["ufrag:", ":password"] {
        assert_eq!(offer(&Body { payload: payload.to_owned(), ..Body::default() }).expect("an offer").ice, None);
    }
    for payload in ["", "none", "a:b:c"] {
        let error = offer(&Body { payload: payload.to_owned(), ..Body::default() });
        assert_eq!(error, Err(MessageError::Payload), "{payload:?}");
    }
}

#[test]
fn fields_of_a_wrong_length_count_as_absent() {
    let body = Body {
        payload: "u:p".to_owned(),
        session_id: Some(vec![1; 4]),
        relay_server_ip: Some(vec![1; 5]),
        relay_server_address: Some(String::new()),
        wg_listen_port: 65_536,
        ..Body::default()
    };
    let description = offer(&body).expect("an offer");
    assert_eq!((description.session, description.relay_ip, description.relay), (None, None, None));
    assert_eq!(description.listen_port, 51820);
}

#[test]
fn newer_types_have_a_name_for_the_counter() {
    let body = Body { r#type: 77, ..Body::default() };
    assert_eq!(Message::decode(&body.encode_to_vec()), Err(MessageError::UnknownType(77)));
}

#[test]
fn endless_texts_are_refused() {
    let long = "x".repeat(MAX_TEXT + 1);
    let too_long = |field| Err(MessageError::TooLong { field, length: MAX_TEXT + 1 });
    let candidate = Body { r#type: body::Type::Candidate.into(), payload: long.clone(), ..Body::default() };
    assert_eq!(Message::decode(&candidate.encode_to_vec()), too_long("candidate"));
    let relay = Body { payload: ":".to_owned(), relay_server_address: Some(long), ..Body::default() };
    assert_eq!(Message::decode(&relay.encode_to_vec()), too_long("relay"));
}

#[test]
fn passwords_are_not_printed() {
    let ice = IceCredentials { ufrag: "known".to_owned(), password: "hidden".to_owned() };
    let text = format!("{ice:?}");
    assert!(text.contains("known") && !text.contains("hidden"), "{text}");
}

fn descriptions() -> impl Strategy<Value = Description> {
    let ice = prop::option::of(("[a-zA-Z]{1,16}", "[a-zA-Z]{1,32}"));
    (
        ice,
        1..=u16::MAX,
        ".{0,20}",
        any::<Option<[u8; 5]>>(),
        prop::option::of("rels?://[a-z.]{1,20}:[0-9]{2,5}"),
        any::<Option<IpAddr>>(),
    )
        .prop_map(|(ice, listen_port, version, session, relay, relay_ip)| Description {
            ice: ice.map(|(ufrag, password)| IceCredentials { ufrag, password }),
            listen_port,
            version,
            session: session.map(SessionId),
            relay,
            relay_ip: relay_ip.map(|ip| ip.to_canonical()),
        })
}

fn messages() -> impl Strategy<Value = Message> {
    prop_oneof![
        descriptions().prop_map(Message::Offer),
        descriptions().prop_map(Message::Answer),
        ".{0,200}".prop_map(Message::Candidate),
        Just(Message::GoIdle),
        Just(Message::Heartbeat),
        Just(Message::Mode),
    ]
}

proptest! {
    #[test]
    fn messages_survive_the_wire(message in messages()) {
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(&bytes).is_ok();
    }

    #[test]
    fn damaged_messages_are_a_message_or_an_error(message in messages(), at: prop::sample::Index, byte: u8) {
        let mut bytes = message.encode();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = Message::decode(&bytes).is_ok();
    }
}
