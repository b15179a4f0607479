//! XSalsa20 (Bernstein, "Extending the Salsa20 nonce"), eight blocks at a time.
//!
//! A network map is megabytes. Block by block, as crates have it, to decrypt one takes longer than all that is done with
//! its content.

use std::array;

use salsa20::cipher::consts::U10;
use salsa20::hsalsa;
use zeroize::{Zeroize as _, Zeroizing};

use super::{KEY, NONCE, sys};

/// Blocks that are computed together.
const LANES: usize = 8;
/// Bytes of them.
pub(super) const BATCH: usize = LANES * 64;
/// The first bytes of a key stream are the key of the tag.
const TAG_KEY: usize = 32;
/// Of columns, then rows: Salsa20/20.
const DOUBLE_ROUNDS: usize = 10;
/// "expand 32-byte k", on the diagonal.
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
/// Where the block's number is: its low half, then its high half.
const COUNTER: usize = 8;

/// What a block is computed from: constants, key, nonce, the block's number.
pub(super) type Input = [u32; 16];
/// The same of all blocks of a batch, word by word.
type Lanes = [[u32; LANES]; 16];

/// HSalsa20: the key of a box out of what X25519 gives, and the key of a message out of that.
pub(super) fn derive(key: &[u8; KEY], nonce: &[u8; 16]) -> Zeroizing<[u8; KEY]> {
    let mut derived = hsalsa::<U10>(key.into(), nonce.into());
    let key = Zeroizing::new(derived.into());
    derived.as_mut_slice().zeroize();
    key
}

/// The key stream of one message.
pub(super) struct KeyStream {
    input: Zeroizing<Input>,
    first: Zeroizing<[u8; BATCH]>,
}

impl KeyStream {
    pub(super) fn new(key: &[u8; KEY], nonce: &[u8; NONCE]) -> Self {
        let key = derive(key, &array::from_fn(|at| nonce[at]));
        let input = Zeroizing::new(input(&key, array::from_fn(|at| nonce[16 + at])));
        let mut first = Zeroizing::new([0; BATCH]);
        sys::xor(&input, 0, array::from_mut(&mut *first));
        Self { input, first }
    }

    /// The one-time key of the tag.
    pub(super) fn tag_key(&self) -> Zeroizing<[u8; TAG_KEY]> {
        Zeroizing::new(array::from_fn(|at| self.first[at]))
    }

    /// Encrypts or decrypts a whole message.
    pub(super) fn apply(&self, text: &mut [u8]) {
        let (head, rest) = text.split_at_mut(text.len().min(BATCH - TAG_KEY));
        for (byte, key) in head.iter_mut().zip(&self.first[TAG_KEY..]) {
            *byte ^= key;
        }
        let (batches, tail) = rest.as_chunks_mut();
        let next = LANES as u64;
        sys::xor(&self.input, next, batches);
        if !tail.is_empty() {
            let next = next + (batches.len() * LANES) as u64;
            let mut last = Zeroizing::new([0; BATCH]);
            last[..tail.len()].copy_from_slice(tail);
            sys::xor(&self.input, next, array::from_mut(&mut *last));
            tail.copy_from_slice(&last[..tail.len()]);
        }
    }
}

/// Adds the key stream to `batches`; `next` is the number of their first block.
///
/// The innermost loops are over blocks, and have no branch: compilers make vectors of them. Inlined into functions that are
/// compiled for different processors.
#[inline(always)]
pub(super) fn xor(input: &Input, next: u64, batches: &mut [[u8; BATCH]]) {
    let mut start: Zeroizing<Lanes> = Zeroizing::new(input.map(|word| [word; LANES]));
    let mut state = start.clone();
    for (batch, next) in batches.iter_mut().zip((next..).step_by(LANES)) {
        let counters: [u64; LANES] = array::from_fn(|lane| next + lane as u64);
        start[COUNTER] = counters.map(|counter| counter as u32);
        start[COUNTER + 1] = counters.map(|counter| (counter >> 32) as u32);
        *state = *start;
        for _ in 0..DOUBLE_ROUNDS {
            double_round(&mut state);
        }
        for (word, start) in state.iter_mut().zip(start.iter()) {
            for lane in 0..LANES {
                word[lane] = word[lane].wrapping_add(start[lane]);
            }
        }
        for (lane, block) in batch.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            for (bytes, word) in block.as_chunks_mut::<4>().0.iter_mut().zip(state.iter()) {
                *bytes = (u32::from_le_bytes(*bytes) ^ word[lane]).to_le_bytes();
            }
        }
    }
}

/// Written out: a loop over the quarter rounds hides from the compiler (rustc 1.95) that the one over lanes has no branch, and
/// the key stream then takes eight times as long. `--example open` shows it.
#[inline(always)]
fn double_round(state: &mut Lanes) {
    for lane in 0..LANES {
        quarter_round(state, lane, [0, 4, 8, 12]);
        quarter_round(state, lane, [5, 9, 13, 1]);
        quarter_round(state, lane, [10, 14, 2, 6]);
        quarter_round(state, lane, [15, 3, 7, 11]);
        quarter_round(state, lane, [0, 1, 2, 3]);
        quarter_round(state, lane, [5, 6, 7, 4]);
        quarter_round(state, lane, [10, 11, 8, 9]);
        quarter_round(state, lane, [15, 12, 13, 14]);
    }
}

#[inline(always)]
fn quarter_round(state: &mut Lanes, lane: usize, [a, b, c, d]: [usize; 4]) {
    state[b][lane] ^= state[a][lane].wrapping_add(state[d][lane]).rotate_left(7);
    state[c][lane] ^= state[b][lane].wrapping_add(state[a][lane]).rotate_left(9);
    state[d][lane] ^= state[c][lane].wrapping_add(state[b][lane]).rotate_left(13);
    state[a][lane] ^= state[d][lane].wrapping_add(state[c][lane]).rotate_left(18);
}

fn input(key: &[u8; KEY], nonce: [u8; 8]) -> Input {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(array::from_fn(|byte| bytes[4 * at + byte]));
    array::from_fn(|at| match at {
        0 | 5 | 10 | 15 => CONSTANTS[at / 5],
        1..5 => word(key, at - 1),
        6 | 7 => word(&nonce, at - 6),
        11..15 => word(key, at - 7),
        _ => 0,
    })
}

#[cfg(test)]
mod tests;
