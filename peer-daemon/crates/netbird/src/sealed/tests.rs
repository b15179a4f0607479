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
    for name in ["crypto/box.json", "crypto/nacl-box.json"] {
        let vector = testdata::json(name);
        let text = |field: &str| vector[field].as_str().expect("text");
        let key = |field: &str| text(field).parse::<PrivateKey>().expect("a key");
        let public = |field: &str| text(field).parse::<PublicKey>().expect("a key");
        let body = testdata::hex(text("body"));
        let plaintext = vector["plaintext_hex"].as_str().map(testdata::hex);
        let plaintext = plaintext.unwrap_or_else(|| text("plaintext").into());

        let recipient = Sealer::new(&key("recipient_private"), &public("sender_public"));
        assert_eq!(recipient.open(&body[..]).expect("authentic").as_slice(), plaintext, "{name}");
        let nonce = testdata::hex(text("nonce")).try_into().expect("24 bytes");
        let sender = Sealer::new(&key("sender_private"), &public("recipient_public"));
        assert_eq!(sender.seal_with(nonce, &plaintext), body, "{name}");
    }
}

#[test]
fn a_plaintext_is_what_it_was_made_of_and_does_not_show_it() {
    let (alice, bob) = pair(1, 2);
    let opened = bob.open(alice.seal(b"secret")).expect("authentic");
    let taken = Plaintext::from(Zeroizing::new(b"secret".to_vec()));
    assert_eq!((&*opened, &*opened.clone(), &*taken), (&b"secret"[..], &b"secret"[..], &b"secret"[..]));
    assert_eq!(format!("{opened:?}"), "Plaintext { bytes: 6 }");
    assert_eq!(Plaintext::default().as_slice(), b"");
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
