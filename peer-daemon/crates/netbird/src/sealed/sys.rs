//! The key stream as the processor computes it fastest.
#![allow(
    unsafe_code,
    reason = "where it is unknown whether the processor has AVX2, a function compiled for it is unsafe to call"
)]

use super::xsalsa20::{self, BATCH, Input};

/// [`xsalsa20::xor`], with AVX2 where there is AVX2.
pub(super) fn xor(input: &Input, next: u64, batches: &mut [[u8; BATCH]]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor was just asked for what the function needs.
        return unsafe { xor_avx2(input, next, batches) };
    }
    xsalsa20::xor(input, next, batches);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn xor_avx2(input: &Input, next: u64, batches: &mut [[u8; BATCH]]) {
    xsalsa20::xor(input, next, batches);
}
