use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// What an official client 0.77.1 sent.
const HOST: &str = "3160871576 1 udp 2130706431 10.99.0.2 51820 typ host ufrag sFUgqRjReeqzFYhp \
                    cid O7W1qVR4HlKNKbPu/UT4OkmoL5Asi/gK";
const SRFLX: &str = "4083474503 1 udp 1694498815 10.99.0.2 51820 typ srflx raddr 0.0.0.0 rport 51820 \
                     ufrag sFUgqRjReeqzFYhp cid H/aT3SRAqANI9QP0d95u4BywijHou+T+";

fn candidate(text: &str) -> Candidate {
    text.parse().expect("a candidate")
}

#[test]
fn recorded_candidates_come_back_the_same() {
    for text in [HOST, SRFLX] {
        let parsed = candidate(text);
        assert_eq!(parsed.to_string(), text);
        let Candidate { kind, address, related, ufrag, cid, .. } = parsed.clone();
        assert_eq!(
            Candidate { ufrag, cid, ..Candidate::new(kind, address, related) },
            parsed,
            "our own would be the same"
        );
    }
}

#[test]
fn foundations() {
    assert_eq!(foundation(Kind::Host, Ipv4Addr::new(192, 168, 1, 5).into()), 3_251_302_018);
    assert_eq!(foundation(Kind::ServerReflexive, Ipv4Addr::new(203, 0, 113, 9).into()), 1_489_293_557);
}

#[test]
fn ipv6_has_no_brackets() {
    let candidate = Candidate::new(Kind::Host, "[2001:db8::1]:51820".parse().expect("an address"), None);
    assert!(candidate.to_string().ends_with(" 1 udp 2130706431 2001:db8::1 51820 typ host"), "{candidate}");
    assert_eq!(candidate, candidate.to_string().parse().expect("our own"));
}

#[test]
fn prefix_case_and_unknown_extensions_are_tolerated() {
    let text =
        "candidate:1 1 UDP 5 192.0.2.1 7 typ srflx raddr host.local rport 9 generation 0 ufrag u network-id 1 cid";
    let Candidate { kind, address, related, ufrag, cid, .. } = candidate(text);
    assert_eq!((kind, address), (Kind::ServerReflexive, "192.0.2.1:7".parse().expect("an address")));
    assert_eq!((related, ufrag.as_deref(), cid), (None, Some("u"), None));
}

#[test]
fn what_is_no_candidate() {
    use ParseCandidateError::*;
    for (text, error) in [
        ("", Missing),
        ("1 1 udp 5 192.0.2.1 7 typ", Missing),
        ("1 1 udp 5 192.0.2.1 7 type host", Missing),
        ("1 2 udp 5 192.0.2.1 7 typ host", Component),
        ("1 1 tcp 5 192.0.2.1 7 typ host tcptype active", Transport),
        ("1 1 udp 4294967296 192.0.2.1 7 typ host", Priority),
        ("1 1 udp 5 name.local 7 typ host", Address),
        ("1 1 udp 5 192.0.2.1 65536 typ host", Address),
        ("1 1 udp 5 192.0.2.1 7 typ odd", Kind),
        (&"1".repeat(513), Length),
    ] {
        assert_eq!(text.parse::<Candidate>(), Err(error), "{text}");
    }
}

#[test]
fn a_mapping_with_another_port_may_hide_a_forwarding() {
    let text = |port: u16, rport: &str, rest: &str| {
        candidate(&format!("1 1 udp 5 192.0.2.1 {port} typ srflx raddr 0.0.0.0 rport {rport} ufrag u {rest}"))
    };
    let forwarded = text(1024, "51820", "cid x").static_forwarding().expect("another port");
    assert_eq!(forwarded.address, "192.0.2.1:51820".parse().expect("an address"));
    assert_eq!(text(51820, "51820", "cid x").static_forwarding(), None, "the same port");
    assert_eq!(text(1024, "0", "cid x").static_forwarding(), None, "no port");
    assert_eq!(text(1024, "51820", "").static_forwarding(), None, "such senders send it themselves");
    assert_eq!(candidate(HOST).static_forwarding(), None);
}

fn candidates() -> impl Strategy<Value = Candidate> {
    let ip = prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ];
    let address = (ip, 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip, port));
    let kinds = [Kind::Host, Kind::ServerReflexive, Kind::PeerReflexive, Kind::Relayed];
    let word = "[A-Za-z0-9+/]{1,32}";
    (
        word,
        any::<u32>(),
        address.clone(),
        proptest::sample::select(kinds.to_vec()),
        proptest::option::of(address),
        proptest::option::of(word),
        proptest::option::of(word),
    )
        .prop_map(|(foundation, priority, address, kind, related, ufrag, cid)| Candidate {
            foundation,
            priority,
            address,
            kind,
            related,
            ufrag,
            cid,
        })
}

proptest! {
    #[test]
    fn text_and_back_is_the_same(candidate in candidates()) {
        prop_assert_eq!(candidate.to_string().parse(), Ok(candidate));
    }

    #[test]
    fn any_text_is_a_candidate_or_an_error(text in ".{0,600}") {
        _ = text.parse::<Candidate>();
    }

    #[test]
    fn nearly_candidates_are_too(
        words in proptest::collection::vec("1|udp|5|::1|192.0.2.1|7|typ|host|srflx|raddr|rport|cid|ufrag|\\PC{0,5}", 0..20),
    ) {
        if let Ok(parsed) = words.join(" ").parse::<Candidate>() {
            let again: Candidate = parsed.to_string().parse().expect("our own");
            prop_assert_eq!(again, parsed);
        }
    }
}
