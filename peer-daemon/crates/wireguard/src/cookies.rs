//! The two MACs of handshake messages, and cookie replies (WireGuard paper §5.3, §5.4.4, §5.4.7).
//!
//! The Noise core has them too, but a cookie of its is void when its clock passes a multiple of 128 s, it does not bind the
//! sender's port, and there is no verifying a cookie without making a reply. Here the secret before the last stays good, so
//! that a cookie is accepted for two minutes at least and four at most.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac as _};
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use peer_core::key::PublicKey;
use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::message::{COOKIE_REPLY, HandshakeMacs};

/// A secret is used for new cookies for so long, and is accepted for as long again (paper §5.4.7: it changes every two
/// minutes; §6.1: initiators use a cookie for as long).
pub(crate) const COOKIE_LIFETIME: Duration = Duration::from_secs(120);

type Mac = Blake2sMac<U16>;
type Cookie = [u8; 16];

/// Checks the MACs of messages to our public key.
pub(crate) struct Cookies {
    mac1_key: [u8; 32],
    reply_key: XChaCha20Poly1305,
    secret: Zeroizing<[u8; 32]>,
    /// The secret before; `None` if that is too old.
    previous: Option<Zeroizing<[u8; 32]>>,
    since: Instant,
}

impl Cookies {
    pub(crate) fn new(public_key: &PublicKey, rng: &mut impl CryptoRng, now: Instant) -> Self {
        let derived = |label: &[u8]| Blake2s256::new().chain_update(label).chain_update(public_key.0).finalize();
        Self {
            mac1_key: derived(b"mac1----").into(),
            reply_key: XChaCha20Poly1305::new(&derived(b"cookie--")),
            secret: random(rng),
            previous: None,
            since: now,
        }
    }

    /// Whether the sender of this handshake message knows our public key.
    pub(crate) fn mac1_is_valid(&self, macs: &HandshakeMacs<'_>) -> bool {
        mac(&self.mac1_key).chain_update(macs.content).verify_slice(macs.mac1).is_ok()
    }

    /// Whether the message carries a cookie that was sent to `source` less than two minutes ago: it receives what is sent to
    /// that address.
    pub(crate) fn mac2_is_valid(
        &mut self,
        now: Instant,
        rng: &mut impl CryptoRng,
        source: SocketAddr,
        macs: &HandshakeMacs<'_>,
    ) -> bool {
        self.rotate(now, rng);
        let fits = |secret: &[u8; 32]| {
            let mac2 = mac(&cookie(secret, source)).chain_update(macs.content).chain_update(macs.mac1);
            mac2.verify_slice(macs.mac2).is_ok()
        };
        fits(&self.secret) || self.previous.as_deref().is_some_and(fits)
    }

    /// Writes a reply with a cookie for `source` to `out`, which has room for [`COOKIE_REPLY`] bytes. `None` without room.
    pub(crate) fn reply(
        &mut self,
        now: Instant,
        rng: &mut impl CryptoRng,
        source: SocketAddr,
        macs: &HandshakeMacs<'_>,
        out: &mut [u8],
    ) -> Option<usize> {
        self.rotate(now, rng);
        let out = out.first_chunk_mut::<COOKIE_REPLY>()?;
        out[..4].copy_from_slice(&3_u32.to_le_bytes());
        out[4..8].copy_from_slice(macs.sender);
        rng.fill_bytes(&mut out[8..32]);
        let nonce = *XNonce::from_slice(&out[8..32]);
        out[32..48].copy_from_slice(&cookie(&self.secret, source));
        let tag = self.reply_key.encrypt_in_place_detached(&nonce, macs.mac1, &mut out[32..48]).ok()?;
        out[48..].copy_from_slice(&tag);
        Some(COOKIE_REPLY)
    }

    /// A right first MAC.
    #[cfg(test)]
    pub(crate) fn mac1_of(&self, content: &[u8]) -> [u8; 16] {
        mac(&self.mac1_key).chain_update(content).finalize().into_bytes().into()
    }

    /// A right second MAC, as of now.
    #[cfg(test)]
    pub(crate) fn mac2_of(&self, source: SocketAddr, content_and_mac1: &[u8]) -> [u8; 16] {
        mac(&cookie(&self.secret, source)).chain_update(content_and_mac1).finalize().into_bytes().into()
    }

    /// Times of change are fixed, however seldom this is called.
    fn rotate(&mut self, now: Instant, rng: &mut impl CryptoRng) {
        let age = now.saturating_duration_since(self.since);
        if age >= COOKIE_LIFETIME {
            let old = std::mem::replace(&mut self.secret, random(rng));
            self.previous = (age < COOKIE_LIFETIME * 2).then_some(old);
            self.since = now - Duration::from_nanos((age.as_nanos() % COOKIE_LIFETIME.as_nanos()) as u64);
        }
    }
}

/// The cookie of an address and port under a secret.
fn cookie(secret: &[u8; 32], source: SocketAddr) -> Cookie {
    let ip = match source.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    mac(secret).chain_update(ip.octets()).chain_update(source.port().to_be_bytes()).finalize().into_bytes().into()
}

fn mac(key: &[u8]) -> Mac {
    <Mac as KeyInit>::new_from_slice(key).expect("16 and 32 bytes are lengths of keys")
}

fn random(rng: &mut impl CryptoRng) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *bytes);
    bytes
}

#[cfg(test)]
mod tests;
