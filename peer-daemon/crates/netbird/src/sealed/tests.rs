use proptest::prelude::*;

use super::*;
use crate::proto::management::LoginResponse;
use crate::testdata;

fn private(byte: u8) -> PrivateKey {
    PrivateKey::from_bytes([byte; 32])
}

fn pair(a: u8, b: u8) -> (Sealer, Sealer) {
    let (a, b) = (private(a), private(b));
    (Sealer::new(&a, &b.public_key()), Sealer::new(&b, &a.public_key()))
}

#[test]
fn a_body_of_another_implementation_opens_and_is_made_the_same() {
    let vector = testdata::json("crypto/box.json");
    let text = |name: &str| vector[name].as_str().expect("text");
    let key = |name: &str| text(name).parse::<PrivateKey>().expect("a key");
    let public = |name: &str| text(name).parse::<PublicKey>().expect("a key");
    let body = testdata::hex(text("body"));

    let opened = Sealer::new(&key("recipient_private"), &public("sender_public")).open(&body[..]).expect("authentic");
    assert_eq!(opened.as_slice(), text("plaintext").as_bytes());
    let nonce = testdata::hex(text("nonce")).try_into().expect("24 bytes");
    let sealed = Sealer::new(&key("sender_private"), &public("recipient_public")).seal_with(nonce, &opened);
    assert_eq!(sealed, body);
}

#[test]
fn what_is_too_short_says_so() {
    let (alice, _) = pair(1, 2);
    for length in 0..OVERHEAD {
        assert_eq!(alice.open(vec![0; length]).err(), Some(OpenError::Short(length)));
    }
    assert_eq!(alice.open([0; OVERHEAD]).err(), Some(OpenError::Forged));
}

#[test]
fn nonces_differ() {
    let (alice, bob) = pair(1, 2);
    let (first, second) = (alice.seal(b""), alice.seal(b""));
    assert_ne!(first, second);
    assert_eq!(bob.open(first).expect("authentic").as_slice(), b"");
}

#[test]
fn a_foreign_key_opens_nothing() {
    let (alice, _) = pair(1, 2);
    let (_, eve) = pair(1, 3);
    assert_eq!(eve.open(alice.seal(b"for bob")).err(), Some(OpenError::Forged));
}

proptest! {
    #[test]
    fn both_directions(plaintext in prop::collection::vec(any::<u8>(), 0..300)) {
        let (alice, bob) = pair(1, 2);
        let there = bob.open(alice.seal(&plaintext)).expect("authentic");
        prop_assert_eq!(&there[..], &plaintext);
        let back = alice.open(bob.seal(&plaintext)).expect("authentic");
        prop_assert_eq!(&back[..], &plaintext);
    }

    #[test]
    fn any_changed_bit_is_seen(plaintext in prop::collection::vec(any::<u8>(), 0..50), at: prop::sample::Index, bit in 0..8) {
        let (alice, bob) = pair(1, 2);
        let mut body = alice.seal(&plaintext);
        let at = at.index(body.len());
        body[at] ^= 1_u8 << bit;
        prop_assert_eq!(bob.open(body).err(), Some(OpenError::Forged));
    }

    #[test]
    fn any_bytes_are_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let (alice, _) = pair(1, 2);
        prop_assert!(alice.open_message::<LoginResponse>(body).is_err());
    }

    #[test]
    fn any_sealed_bytes_are_a_message_or_an_error(plaintext in prop::collection::vec(any::<u8>(), 0..200)) {
        let (alice, bob) = pair(1, 2);
        if let Err(error) = bob.open_message::<LoginResponse>(alice.seal(&plaintext)) {
            prop_assert!(matches!(error, DecodeError::Protobuf(_)));
        }
    }
}
