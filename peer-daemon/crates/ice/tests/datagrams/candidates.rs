//! Remote candidates, and our own.

use peer_ice::candidate::{Candidate, Kind};
use peer_ice::{DownReason, Event, ExternalIp, Ice, Session, Settings};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::bench::{Bench, LOCAL, PEER, REMOTE, address};

fn remote(bench: &Bench, address: &str) -> String {
    let ufrag = Some(bench.remote.ufrag.clone());
    Candidate { ufrag, ..Candidate::new(Kind::Host, self::address(address), None) }.to_string()
}

/// Where checks go within some time.
fn checked(bench: &mut Bench) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for _ in 0..40 {
        bench.after(50);
        found.extend(bench.transmits().iter().map(|transmit| transmit.remote.to_string()));
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn only_addresses_of_other_hosts_are_checked() {
    let mut bench = Bench::new();
    bench.ice.set_forbidden(["100.64.0.0/10".parse().expect("a prefix")]);
    let refused =
        ["127.0.0.1:7", "169.254.169.254:80", "224.0.0.1:7", "0.0.0.0:7", "255.255.255.255:7", "100.64.0.9:7", LOCAL];
    for address in refused {
        let text = remote(&bench, address);
        bench.ice.add_remote_candidate(&PEER, &text, bench.now);
    }
    bench.ice.add_remote_candidate(&PEER, "1 1 tcp 5 192.0.2.1 7 typ host", bench.now);
    let text = remote(&bench, REMOTE);
    bench.ice.add_remote_candidate(&PEER, &text, bench.now);
    assert_eq!(checked(&mut bench), [REMOTE]);
    let stats = bench.ice.stats();
    assert_eq!((stats.refused.address.get(), stats.refused.malformed.get()), (7, 1));
}

#[test]
fn sixteen_per_session() {
    let mut bench = Bench::new();
    for number in 1..=100 {
        let text = remote(&bench, &format!("192.0.2.{number}:7"));
        bench.ice.add_remote_candidate(&PEER, &text, bench.now);
    }
    assert_eq!(bench.ice.stats().refused.limit.get(), 84);
    assert_eq!(checked(&mut bench).len(), 16);
}

#[test]
fn a_mapping_may_hide_a_static_forwarding() {
    let mut bench = Bench::new();
    let text = "1 1 udp 1694498815 192.0.2.9 1024 typ srflx raddr 0.0.0.0 rport 51820 cid x";
    bench.ice.add_remote_candidate(&PEER, text, bench.now);
    assert_eq!(checked(&mut bench), ["192.0.2.9:1024", "192.0.2.9:51820"]);
}

#[test]
fn candidates_before_their_session_are_kept() {
    let mut bench = Bench::closed();
    let (text, other) = (remote(&bench, REMOTE), "1 1 udp 5 192.0.2.99 7 typ host ufrag another");
    bench.ice.add_remote_candidate(&PEER, &text, bench.now);
    bench.ice.add_remote_candidate(&PEER, other, bench.now);
    assert_eq!(bench.ice.stats().early.get(), 2);
    bench.open(1);
    assert_eq!(checked(&mut bench), [REMOTE]);
    assert_eq!(bench.ice.stats().early.get(), 0);
}

#[test]
fn own_candidates_are_announced() {
    let (mut bench, now) = (Bench::closed(), std::time::Instant::now());
    let external = ExternalIp { external: "203.0.113.7".parse().expect("an address"), internal: None };
    bench.ice = Ice::new(Settings::default(), StdRng::seed_from_u64(2));
    bench.ice.set_external_ips([external], now);
    bench.ice.set_local([LOCAL, LOCAL, "127.0.0.1:51820", "[fe80::1]:51820", "[2001:db8::1]:51820"].map(address), now);
    assert_eq!(bench.events(), [Event::LocalChanged]);
    bench.open(4);
    let announced = |bench: &mut Bench| -> Vec<String> {
        let text = |event: Event| match event {
            Event::Candidate { peer: PEER, attempt: 4, text } => Some(text),
            _ => None,
        };
        bench.events().into_iter().filter_map(text).collect()
    };
    let texts = announced(&mut bench);
    let candidates: Vec<Candidate> = texts.iter().map(|text| text.parse().expect("our own")).collect();
    let shown: Vec<_> = candidates.iter().map(|found| (found.kind.as_str(), found.address.to_string())).collect();
    let expected = [("host", LOCAL), ("host", "[2001:db8::1]:51820"), ("srflx", "203.0.113.7:51820")];
    assert_eq!(shown, expected.map(|(kind, address)| (kind, address.to_owned())));
    for candidate in candidates {
        assert_eq!(candidate.ufrag.as_ref(), Some(&bench.local.ufrag));
        assert_eq!(candidate.cid.map(|cid| cid.len()), Some(32));
    }
    assert!(texts[2].contains(" typ srflx raddr 0.0.0.0 rport 51820 ufrag "), "{}", texts[2]);
    bench.ice.set_local([LOCAL, "[2001:db8::1]:51820", "10.0.0.2:51820"].map(address), now);
    let texts = announced(&mut bench);
    assert_eq!(texts.len(), 1, "a new address to running sessions: {texts:?}");
    assert!(texts[0].contains(" 10.0.0.2 51820 typ host "), "{}", texts[0]);
}

#[test]
fn credentials_that_cannot_be_used() {
    let mut bench = Bench::closed();
    let good = bench.remote.clone();
    for ufrag in ["", "a:b", &"x".repeat(49)] {
        bench.remote.ufrag = ufrag.to_owned();
        bench.open(3);
        let down = Event::Down { peer: PEER, attempt: 3, reason: DownReason::Credentials };
        assert_eq!(bench.events().last(), Some(&down), "{ufrag}");
    }
    // As long as may be: no message is too long for `is`.
    bench.remote = good;
    bench.remote.ufrag = "x".repeat(48);
    bench.local.ufrag = "y".repeat(48);
    let (local, remote) = (bench.local.clone(), bench.remote.clone());
    bench.ice.open(&Session { peer: PEER, attempt: 5, local, remote, controlling: true }, bench.now);
    let text = self::remote(&bench, REMOTE);
    bench.ice.add_remote_candidate(&PEER, &text, bench.now);
    assert_eq!(checked(&mut bench), [REMOTE]);
}
