use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::message::{COOKIE_REPLY, INITIATION};

const KEY: PublicKey = PublicKey([5; 32]);

/// An admission with what calls to it need.
struct Gate {
    admission: Admission,
    rng: StdRng,
    now: Instant,
}

/// A message of noise. Valid: with the right first MAC.
fn message(gate: &Gate, noise: u8, valid: bool) -> [u8; INITIATION] {
    let mut message = [noise; INITIATION];
    message[INITIATION - 16..].fill(0);
    if valid {
        let mac1 = gate.admission.cookies.mac1_of(&message[..INITIATION - 32]);
        message[INITIATION - 32..INITIATION - 16].copy_from_slice(&mac1);
    }
    message
}

fn gate() -> Gate {
    let (mut rng, now) = (StdRng::seed_from_u64(3), Instant::now());
    Gate { admission: Admission::new(&KEY, &mut rng, now), rng, now }
}

impl Gate {
    fn admit(
        &mut self,
        kind: Kind,
        sender: Sender,
        standing: Standing,
        message: &[u8],
    ) -> Result<Admitted, DatagramError> {
        let macs = HandshakeMacs::of(message).expect("a handshake message");
        self.admission.admit(self.now, &mut self.rng, (kind, sender, standing), &macs)
    }

    /// An initiation with a right first MAC from a stranger, without a cookie.
    fn initiation(&mut self, from: SocketAddr) -> Result<Admitted, DatagramError> {
        let message = message(self, 1, true);
        self.admit(Kind::Initiation, Sender::Claimed(from), Standing::Stranger, &message)
    }

    /// Uses up what strangers may send without a proof.
    fn load(&mut self) {
        while self.initiation(address(99)) == Ok(Admitted::Yes) {}
    }

    /// As an initiator that got a cookie there.
    fn with_cookie(&mut self, from: SocketAddr) -> [u8; INITIATION] {
        let mut message = message(self, 2, true);
        let mac2 = self.admission.cookies.mac2_of(from, &message[..INITIATION - 16]);
        message[INITIATION - 16..].copy_from_slice(&mac2);
        message
    }
}

fn address(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 51820).into()
}

/// How many of `tries` have this outcome.
fn count<T: PartialEq>(outcome: &T, tries: usize, mut attempt: impl FnMut() -> T) -> usize {
    (0..tries).filter(|_| attempt() == *outcome).count()
}

#[test]
fn a_false_first_mac_uses_up_nothing_but_a_look() {
    let mut gate = gate();
    let (bad, from) = (message(&gate, 1, false), Sender::Claimed(address(1)));
    assert_eq!(
        count(&Err(DatagramError::BadMac), 1500, || gate.admit(Kind::Initiation, from, Standing::Stranger, &bad)),
        1500
    );
    assert_eq!(count(&Ok(Admitted::Yes), 400, || gate.initiation(address(1))), 250, "all of it is there");
    assert_eq!(gate.admission.sources(), 0);
}

#[test]
fn what_is_not_proven_takes_nothing_of_an_address() {
    let mut gate = gate();
    let victim = address(1);
    gate.load();
    let cookie = Ok(Admitted::WithCookie(victim));
    assert_eq!(count(&cookie, 500, || gate.initiation(victim)), 500);
    let mut noise = message(&gate, 3, true);
    noise[INITIATION - 1] = 7;
    assert_eq!(
        gate.admit(Kind::Initiation, Sender::Claimed(victim), Standing::Stranger, &noise),
        cookie,
        "a false cookie"
    );
    assert_eq!(gate.admission.sources(), 0);
    let proven = gate.with_cookie(victim);
    let admitted = |gate: &mut Gate| gate.admit(Kind::Initiation, Sender::Claimed(victim), Standing::Stranger, &proven);
    assert_eq!(count(&Ok(Admitted::Yes), 100, || admitted(&mut gate)), 100, "its whole bucket");
    assert_eq!(admitted(&mut gate), Err(DatagramError::SourceLimited));
    assert_eq!(gate.admission.sources(), 1);
    let other = gate.with_cookie(address(2));
    assert_eq!(
        gate.admit(Kind::Initiation, Sender::Claimed(address(2)), Standing::Stranger, &other),
        Ok(Admitted::Yes)
    );
}

#[test]
fn one_ipv6_network_is_one_proven_source() {
    let mut gate = gate();
    gate.load();
    let passed = (0..200_u16).filter(|host| {
        let from = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, *host], 51820));
        let proven = gate.with_cookie(from);
        gate.admit(Kind::Initiation, Sender::Claimed(from), Standing::Stranger, &proven) == Ok(Admitted::Yes)
    });
    assert_eq!(passed.count(), 100);
}

#[test]
fn cookie_replies_have_a_budget_and_five_thousand_a_second_are_within_it() {
    let mut gate = gate();
    gate.load();
    let cookie = Ok(Admitted::WithCookie(address(1)));
    let answered = count(&cookie, 1000, || gate.initiation(address(1)));
    assert_eq!(answered, 599, "at once; the one that showed the load was the first");
    assert_eq!(gate.initiation(address(1)), Err(DatagramError::CookieLimited));
    gate.now += Duration::from_secs(1);
    gate.load();
    for _ in 0..1000 {
        gate.now += Duration::from_millis(1);
        let refused = count(&Err(DatagramError::CookieLimited), 5, || gate.initiation(address(1)));
        assert_eq!(refused, 0);
    }
}

#[test]
fn a_flood_of_strangers_takes_nothing_of_known_members_responders_and_relays() {
    let mut gate = gate();
    while gate.initiation(address(1)) != Err(DatagramError::InitiationFlood) {}
    let plain = message(&gate, 1, true);
    let member = Sender::Claimed(address(7));
    assert_eq!(gate.admit(Kind::Initiation, member, Standing::Known, &plain), Ok(Admitted::Yes));
    assert_eq!(gate.admit(Kind::Response, member, Standing::Stranger, &plain), Ok(Admitted::Yes));
    let relayed = Sender::Relayed(RelayId { connection: 1, peer: 1 });
    assert_eq!(gate.admit(Kind::Initiation, relayed, Standing::Stranger, &plain), Ok(Admitted::Yes));
    let proven = gate.with_cookie(address(8));
    assert_eq!(
        gate.admit(Kind::Initiation, Sender::Claimed(address(8)), Standing::Stranger, &proven),
        Ok(Admitted::Yes)
    );
}

#[test]
fn a_loud_peer_of_a_relay_is_limited_alone_and_costs_others_nothing() {
    let mut gate = gate();
    let plain = message(&gate, 1, true);
    let relayed = |peer| Sender::Relayed(RelayId { connection: 1, peer });
    let loud = count(&Err(DatagramError::SourceLimited), 3000, || {
        gate.admit(Kind::Initiation, relayed(1), Standing::Stranger, &plain)
    });
    assert_eq!(loud, 2900);
    assert_eq!(gate.admit(Kind::Initiation, relayed(2), Standing::Stranger, &plain), Ok(Admitted::Yes));
    // Many of them use up what relays share, and that is all.
    let many = (3..40).map(|peer| {
        count(&Ok(Admitted::Yes), 100, || gate.admit(Kind::Initiation, relayed(peer), Standing::Stranger, &plain))
    });
    assert_eq!(many.sum::<usize>(), 1000 - 101);
    assert_eq!(gate.admit(Kind::Initiation, relayed(2), Standing::Stranger, &plain), Err(DatagramError::UnderLoad));
    assert_eq!(gate.initiation(address(1)), Ok(Admitted::Yes));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u16),
    Spoof,
    FalseCookie(u8),
    Proven(u8),
    Relayed(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_u16..20).prop_map(Step::Wait),
        Just(Step::Spoof),
        (0_u8..8).prop_map(Step::FalseCookie),
        (0_u8..8).prop_map(Step::Proven),
        (0_u8..8).prop_map(Step::Relayed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Whatever comes in whatever order: curve work keeps its budgets, and who spoofs a member's address never takes of what
    /// the member has with a cookie.
    #[test]
    fn budgets_hold_in_any_order(steps in prop::collection::vec((step(), 1_usize..120), 1..60)) {
        let mut gate = gate();
        let (start, victim) = (gate.now, address(200));
        let (mut unproven, mut curve) = (0, 0);
        for (step, times) in steps {
            for _ in 0..times {
                let (sender, message) = match step {
                    Step::Wait(ms) => {
                        gate.now += Duration::from_millis(ms.into());
                        continue;
                    }
                    Step::Spoof => (Sender::Claimed(victim), message(&gate, 1, true)),
                    Step::FalseCookie(noise) => {
                        let mut bytes = message(&gate, 1, true);
                        bytes[INITIATION - 1] = noise + 1;
                        (Sender::Claimed(victim), bytes)
                    }
                    Step::Proven(host) => (Sender::Claimed(address(host)), gate.with_cookie(address(host))),
                    Step::Relayed(peer) => {
                        (Sender::Relayed(RelayId { connection: 1, peer: peer.into() }), message(&gate, 1, true))
                    }
                };
                let admitted = gate.admit(Kind::Initiation, sender, Standing::Stranger, &message) == Ok(Admitted::Yes);
                curve += u64::from(admitted);
                unproven += u64::from(admitted && sender == Sender::Claimed(victim));
            }
        }
        let elapsed = (gate.now - start).as_millis() as u64;
        prop_assert!(unproven <= 251 + elapsed / 2, "{} unproven in {} ms", unproven, elapsed);
        prop_assert!(curve <= 250 + 500 + 1000 + 3 + 2 * elapsed, "{} in {} ms", curve, elapsed);
        let proven = gate.with_cookie(victim);
        // Others with cookies may have used up what all proven sources share, which fills up again.
        gate.now += Duration::from_millis(2);
        prop_assert_eq!(gate.admit(Kind::Initiation, Sender::Claimed(victim), Standing::Stranger, &proven), Ok(Admitted::Yes));
    }
}

#[test]
fn a_reply_has_the_length_of_a_cookie_reply() {
    let mut gate = gate();
    let message = message(&gate, 1, true);
    let macs = HandshakeMacs::of(&message).expect("an initiation");
    let mut out = [0; INITIATION];
    let len = gate.admission.cookie_reply(gate.now, &mut gate.rng, address(1), &macs, &mut out);
    assert_eq!((len, out[0]), (Some(COOKIE_REPLY), 3));
}

#[test]
fn in_a_flood_strangers_get_a_tenth_without_a_proof_and_cookies_as_before() {
    let mut gate = gate();
    let plain = message(&gate, 1, true);
    let (member, stranger) = (Sender::Claimed(address(1)), Sender::Claimed(address(2)));
    let mut admitted = |standing, sender, kind| {
        let verdicts: Vec<_> = (0..500).map(|_| gate.admit(kind, sender, standing, &plain)).collect();
        let with = |wanted| verdicts.iter().filter(|verdict| **verdict == wanted).count();
        let Sender::Claimed(from) = sender else { panic!("an address") };
        (with(Ok(Admitted::Yes)), with(Ok(Admitted::WithCookie(from))))
    };
    assert_eq!(admitted(Standing::Flooding, stranger, Kind::Initiation), (25, 475));
    assert_eq!(admitted(Standing::Known, member, Kind::Initiation), (250, 250));
    assert_eq!(admitted(Standing::Stranger, stranger, Kind::Response), (500, 0));
}
