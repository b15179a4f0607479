//! Sealed bodies: what was not sealed for us does not open, and what was is the same again.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use peer_core::key::PrivateKey;
use peer_netbird::sealed::{OVERHEAD, Sealer};

fuzz_target!(|bytes: &[u8]| {
    let (own, other) = sealers();
    assert!(own.open(bytes.to_vec()).is_err(), "nobody sealed it");
    let mut body = other.seal(bytes);
    assert_eq!(body.len(), bytes.len() + OVERHEAD);
    assert_eq!(own.open(body.clone()).expect("sealed for us").as_slice(), bytes);
    let at = bytes.first().map_or(0, |byte| usize::from(*byte) % body.len());
    body[at] ^= 1;
    assert!(own.open(body).is_err(), "damaged");
});

/// Both ends of one box.
fn sealers() -> &'static (Sealer, Sealer) {
    static SEALERS: OnceLock<(Sealer, Sealer)> = OnceLock::new();
    SEALERS.get_or_init(|| {
        let (own, other) = (PrivateKey::from_bytes([1; 32]), PrivateKey::from_bytes([2; 32]));
        (Sealer::new(&own, &other.public_key()), Sealer::new(&other, &own.public_key()))
    })
}
