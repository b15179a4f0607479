//! One of two addresses, by family.

use peer_common::Addr;

use crate::verifier::opaque;

/// `v4` or `v6`. Both are read and one is kept: choosing the address to read from would be pointer arithmetic by a variable,
/// which the verifier refuses without CAP_PERFMON, and which the compiler makes of every mask whose origin it sees.
#[inline(always)]
pub fn choose(is_v4: bool, v4: &Addr, v6: &Addr) -> Addr {
    let keep_v4 = opaque(u32::from(is_v4).wrapping_neg());
    let mut chosen = Addr::NONE;
    for (word, (v4, v6)) in chosen.words.iter_mut().zip(v4.words.iter().zip(v6.words)) {
        *word = (v4 & keep_v4) | (v6 & !keep_v4);
    }
    chosen
}
