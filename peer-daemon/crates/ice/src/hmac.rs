//! HMAC-SHA1 for MESSAGE-INTEGRITY (RFC 8489, section 14.5).

use is::Sha1HmacProvider;
use ring::hmac::{Context, HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key};

/// The one provider of all agents.
pub(crate) static HMAC_SHA1: HmacSha1 = HmacSha1;

#[derive(Debug)]
pub(crate) struct HmacSha1;

impl Sha1HmacProvider for HmacSha1 {
    fn sha1_hmac(&self, key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
        let mut context = Context::with_key(&Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
        for payload in payloads {
            context.update(payload);
        }
        let mut digest = [0; 20];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_2202_test_case_2() {
        let expected = [
            0xef, 0xfc, 0xdf, 0x6a, 0xe5, 0xeb, 0x2f, 0xa2, 0xd2, 0x74, 0x16, 0xd5, 0xf1, 0x84, 0xdf, 0x9c, 0x25, 0x9a,
            0x7c, 0x79,
        ];
        assert_eq!(HmacSha1.sha1_hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"]), expected);
    }
}
