use proptest::prelude::*;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit as _, StreamCipher as _, StreamCipherSeek as _};

use super::*;
use crate::testdata::hex;

/// What the crate says of the text's bytes from `position` on.
fn expected(key: &[u8; KEY], nonce: &[u8; NONCE], position: u64, text: &mut [u8]) {
    let mut cipher = XSalsa20::new(key.into(), nonce.into());
    cipher.seek(position);
    cipher.apply_keystream(text);
}

fn input_of(key: &[u8; KEY], nonce: &[u8; NONCE]) -> Input {
    *KeyStream::new(key, nonce).input
}

/// NaCl's tests/stream3.c.
#[test]
fn a_key_stream_begins_as_that_of_nacl() {
    let key = hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389").try_into().expect("32 bytes");
    let nonce = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37").try_into().expect("24 bytes");
    let first = hex("eea6a7251c1e72916d11c2cb214d3c252539121d8e234e652d651fa4c8cff880");
    assert_eq!(KeyStream::new(&key, &nonce).tag_key().as_slice(), first);
}

/// Both are compiled from one source, and this processor may choose either.
#[test]
fn what_the_processor_chooses_and_the_portable_form_are_the_same() {
    let (key, nonce) = ([7; KEY], [9; NONCE]);
    let input = input_of(&key, &nonce);
    let low = u64::from(u32::MAX);
    // Numbers of blocks that pass 32 bits within a batch, and between two.
    for next in [0, 8, low - 20, low - 15, low - 4, low, low + 1, 5 * low] {
        for batches in 0..4 {
            let mut text = vec![[0x55; BATCH]; batches];
            let (mut portable, mut want) = (text.clone(), text.clone());
            sys::xor(&input, next, &mut text);
            xor(&input, next, &mut portable);
            expected(&key, &nonce, next * 64, want.as_flattened_mut());
            assert!(text == want, "chosen: block {next}, {batches} batches");
            assert!(portable == want, "portable: block {next}, {batches} batches");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_message_is_what_another_implementation_makes_of_it(
        key: [u8; KEY],
        nonce: [u8; NONCE],
        mut text in prop::collection::vec(any::<u8>(), 0..3 * BATCH),
    ) {
        let mut want = text.clone();
        expected(&key, &nonce, TAG_KEY as u64, &mut want);
        KeyStream::new(&key, &nonce).apply(&mut text);
        prop_assert_eq!(text, want);
    }
}
