//! Handshake messages that nobody sent.

use blake2::digest::Mac as _;
use blake2::digest::consts::U16;
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use peer_core::key::PublicKey;

/// An initiation that anybody can make who knows the public key of `to`: its first MAC is right, all else is noise of
/// `number`. `mac2`: whether the second MAC is noise too, not zeros.
pub(crate) fn initiation(to: &PublicKey, number: u64, mac2: bool) -> Vec<u8> {
    let mut message = vec![1, 0, 0, 0];
    let noise = |at: u64| (number ^ at << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    message.extend((0..14).flat_map(noise));
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(to.0).finalize();
    let mac = <Blake2sMac<U16> as blake2::digest::KeyInit>::new_from_slice(&key).expect("length");
    message.extend(mac.chain_update(&message).finalize().into_bytes());
    message.extend((20..22).flat_map(|at| if mac2 { noise(at) } else { [0; 8] }));
    message
}
