use proptest::prelude::*;

use super::*;
use crate::proto::management::LoginResponse;

fn private(byte: u8) -> PrivateKey {
    PrivateKey::from_bytes([byte; 32])
}

fn pair(a: u8, b: u8) -> (Sealer, Sealer) {
    let (a, b) = (private(a), private(b));
    (Sealer::new(&a, &b.public_key()), Sealer::new(&b, &a.public_key()))
}

// Of libsodium: shared/vectors/crypto/box.json.
#[test]
fn a_body_of_another_implementation_opens_and_is_made_the_same() {
    let sender: PrivateKey = "0OWLYwzSErmLeHC70iezTbGjzshfJ/PsSPWBokQ0z3w=".parse().expect("a key");
    let recipient: PrivateKey = "D7X81QseYEdltc9+wiDAanY6OAXnqfgXuxUXV+GSTSo=".parse().expect("a key");
    let body = hex(
        "78377b525757b494427f89014f97d79928f3938d14eb51e208e2addfd8e46337a66cb3e723e61a42f094871b00c3ae89c50b50d8a74d10\
         6b108017",
    );
    let opened = Sealer::new(&recipient, &sender.public_key()).open(body.clone()).expect("authentic");
    assert_eq!(opened.as_slice(), b"sealed body example");
    let nonce = body[..24].try_into().expect("24 bytes");
    assert_eq!(Sealer::new(&sender, &recipient.public_key()).seal_with(nonce, &opened), body);
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
        body[at] ^= 1 << bit;
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

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}
