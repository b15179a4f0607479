use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::message::INITIATION;

/// An initiator of the Noise core's and a responder of ours.
struct Pair {
    initiator: Tunn,
    cookies: Cookies,
    rng: StdRng,
    start: Instant,
}

fn pair() -> Pair {
    let secret = |seed| x25519::StaticSecret::from([seed; 32]);
    let public = x25519::PublicKey::from(&secret(2));
    let (mut rng, start) = (StdRng::seed_from_u64(7), Instant::now());
    let cookies = Cookies::new(&PublicKey(public.to_bytes()), &mut rng, start);
    Pair { initiator: Tunn::new(secret(1), public, None, None, 9, None), cookies, rng, start }
}

impl Pair {
    fn initiation(&mut self) -> [u8; INITIATION] {
        let mut out = [0; INITIATION];
        assert!(matches!(self.initiator.format_handshake_initiation(&mut out, true), TunnResult::WriteToNetwork(_)));
        out
    }

    /// Gives the initiator a cookie at that time, in answer to its initiation.
    fn give(&mut self, at: Duration, source: SocketAddr) {
        let (message, mut out) = (self.initiation(), [0; COOKIE_REPLY]);
        let macs = HandshakeMacs::of(&message).expect("an initiation");
        let len = self.cookies.reply(self.start + at, &mut self.rng, source, &macs, &mut out);
        assert_eq!(len, Some(COOKIE_REPLY));
        assert!(matches!(self.initiator.decapsulate(None, &out, &mut [0; INITIATION]), TunnResult::Done), "it fits");
    }

    fn accepted(&mut self, at: Duration, source: SocketAddr) -> bool {
        let message = self.initiation();
        let macs = HandshakeMacs::of(&message).expect("an initiation");
        assert!(self.cookies.mac1_is_valid(&macs) && macs.has_mac2());
        self.cookies.mac2_is_valid(self.start + at, &mut self.rng, source, &macs)
    }
}

fn source(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn a_cookie_proves_one_address_and_port() {
    let mut pair = pair();
    pair.give(Duration::ZERO, source("192.0.2.1:1000"));
    assert!(pair.accepted(Duration::ZERO, source("192.0.2.1:1000")));
    for other in ["192.0.2.1:1001", "192.0.2.2:1000", "[2001:db8::1]:1000"] {
        assert!(!pair.accepted(Duration::ZERO, source(other)), "{other}");
    }
}

#[test]
fn the_first_mac_is_of_all_before_it() {
    let mut pair = pair();
    let message = pair.initiation();
    let macs = HandshakeMacs::of(&message).expect("an initiation");
    assert!(pair.cookies.mac1_is_valid(&macs) && !macs.has_mac2());
    for at in 0..INITIATION - 16 {
        let mut spoilt = message;
        spoilt[at] ^= 1;
        assert!(!pair.cookies.mac1_is_valid(&HandshakeMacs::of(&spoilt).expect("an initiation")), "byte {at}");
    }
    assert_eq!(pair.cookies.reply(pair.start, &mut pair.rng, source("192.0.2.1:1"), &macs, &mut [0; 63]), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whenever it was given, and whatever was asked meanwhile.
    #[test]
    fn a_cookie_is_good_for_two_minutes_and_never_for_more_than_four(
        given in 0_u64..1000, between in prop::collection::vec(0_u64..500, 0..6), age in 0_u64..600,
    ) {
        let (mut pair, address) = (pair(), source("192.0.2.1:1000"));
        pair.give(Duration::from_secs(given), address);
        let mut between: Vec<_> = between.into_iter().filter(|at| *at < age).collect();
        between.sort_unstable();
        for at in between {
            pair.accepted(Duration::from_secs(given + at), address);
        }
        let accepted = pair.accepted(Duration::from_secs(given + age), address);
        prop_assert!(accepted || age >= 120, "{} s old", age);
        prop_assert!(!accepted || age < 240, "{} s old", age);
    }
}
