//! The filter as a classic BPF program.

use std::net::IpAddr;

use peer_core::filter::{Filters, Instruction};

use crate::message::{INITIATION, MAC};

/// Words of the table of known addresses. Each is a constant in the program, which may have 4096 instructions: a search by
/// halves takes four for each word.
const WORDS: usize = 512;
const WORD_BITS: u32 = WORDS.ilog2();

/// Opcodes of linux/bpf_common.h.
const LOAD: u16 = 0x20;
const LOAD_LEN: u16 = 0x80;
const LOAD_CONST: u16 = 0x00;
const LOAD_SLOT: u16 = 0x60;
const STORE: u16 = 0x02;
const OR_X: u16 = 0x4c;
const XOR_X: u16 = 0xac;
const AND: u16 = 0x54;
const MUL: u16 = 0x24;
const SHIFT_RIGHT: u16 = 0x74;
const SHIFT_RIGHT_X: u16 = 0x7c;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_NOT_BELOW: u16 = 0x35;
const IF_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;
const A_TO_X: u16 = 0x07;

/// Where the network header lies (`SKF_NET_OFF`), and a random word (`SKF_AD_OFF + SKF_AD_RANDOM`).
const NETWORK: u32 = (-0x10_0000_i32) as u32;
const RANDOM: u32 = (-0x1000_i32 + 56) as u32;

const UDP_HEADER: u32 = 8;
/// Type 1 and three zeros, as they stand on the wire.
const TYPE: u32 = 0x0100_0000;

/// Which part passes, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Keep {
    /// Of initiations without a second MAC.
    pub(super) plain: f64,
    /// Of those with one.
    pub(super) with_mac2: f64,
}

/// A bit per known address, by a hash of it. Some strangers share one: of 1 000 known addresses 6 % pass with them, of 10 000
/// nearly half.
#[derive(Debug)]
pub(super) struct KnownBits {
    factor: u32,
    words: [u32; WORDS],
}

/// Programs by which initiations pass: of strangers the part `keep`, and all that `known` has.
pub(super) fn filters(keep: Keep, known: &KnownBits) -> Filters {
    let program = |source: &[u32]| {
        let mut program = Program::default();
        program.only_initiations();
        program.some(keep);
        program.unless_known(source, known);
        program.out.into_boxed_slice()
    };
    Filters { v4: program(&[12]), v6: program(&[8, 12, 16, 20]) }
}

impl Keep {
    pub(super) const ALL: Self = Self { plain: 1.0, with_mac2: 1.0 };

    /// Whether it is not worth a new program.
    pub(super) fn is_near(self, other: Self) -> bool {
        let is_near = |a: f64, b: f64| a == b || (a < 1.0 && b < 1.0 && (0.8..=1.25).contains(&(a / b)));
        is_near(self.plain, other.plain) && is_near(self.with_mac2, other.with_mac2)
    }
}

impl KnownBits {
    pub(super) fn new(factor: u32, known: impl Iterator<Item = IpAddr>) -> Self {
        let mut bits = Self { factor, words: [0; WORDS] };
        for address in known {
            let (word, bit) = bits.place(address);
            bits.words[word] |= 1 << bit;
        }
        bits
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    fn place(&self, address: IpAddr) -> (usize, u32) {
        let folded = match address {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => {
                let words = address.to_bits().to_be_bytes();
                words
                    .chunks_exact(4)
                    .fold(0, |folded, word| folded ^ u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
            }
        };
        let hash = folded.wrapping_mul(self.factor);
        (hash as usize >> (32 - WORD_BITS), hash >> (27 - WORD_BITS) & 31)
    }
}

#[derive(Default)]
struct Program {
    out: Vec<Instruction>,
}

impl Program {
    fn push(&mut self, code: u16, operand: u32) {
        self.branch(code, operand, 0, 0);
    }

    fn branch(&mut self, code: u16, operand: u32, if_true: u8, if_false: u8) {
        self.out.push(Instruction { code, if_true, if_false, operand });
    }

    fn accept(&mut self) {
        self.push(RETURN, u32::MAX);
    }

    /// What is no initiation passes. So do initiations that came joined (GRO): they cost little.
    fn only_initiations(&mut self) {
        for (load, at, wanted) in [(LOAD_LEN, 0, UDP_HEADER + INITIATION as u32), (LOAD, UDP_HEADER, TYPE)] {
            self.push(load, at);
            self.branch(IF_EQUAL, wanted, 1, 0);
            self.accept();
        }
    }

    fn some(&mut self, keep: Keep) {
        let mac2 = UDP_HEADER + (INITIATION - MAC) as u32;
        self.push(LOAD, mac2);
        for at in [4, 8, 12] {
            self.push(A_TO_X, 0);
            self.push(LOAD, mac2 + at);
            self.push(OR_X, 0);
        }
        // To the limit of either kind; the one after it is passed over.
        self.branch(IF_EQUAL, 0, 0, 4);
        self.draw(keep.plain);
        self.push(JUMP, 3);
        self.draw(keep.with_mac2);
    }

    /// Three instructions. Past them lies what happens to those that are not drawn.
    fn draw(&mut self, part: f64) {
        self.push(LOAD, RANDOM);
        self.branch(IF_NOT_BELOW, (part * 2_f64.powi(32)) as u32, 1, 0);
        self.accept();
    }

    /// What is left passes if its address is known; its words are at these places of the network header.
    fn unless_known(&mut self, source: &[u32], known: &KnownBits) {
        for (index, at) in source.iter().enumerate() {
            if index > 0 {
                self.push(A_TO_X, 0);
            }
            self.push(LOAD, NETWORK.wrapping_add(*at));
            if index > 0 {
                self.push(XOR_X, 0);
            }
        }
        self.push(MUL, known.factor);
        self.push(STORE, 0);
        self.push(SHIFT_RIGHT, 27 - WORD_BITS);
        self.push(AND, 31);
        self.push(A_TO_X, 0);
        self.push(LOAD_SLOT, 0);
        self.push(SHIFT_RIGHT, 32 - WORD_BITS);
        self.find(&known.words, 0, 0);
        self.push(SHIFT_RIGHT_X, 0);
        self.branch(IF_BITS, 1, 0, 1);
        self.accept();
        self.push(RETURN, 0);
    }

    /// Loads the word whose number the accumulator has; `first` is the number of the first of these. `behind`: instructions
    /// between the end of these and what comes after all.
    fn find(&mut self, words: &[u32], first: u32, behind: u32) {
        if let [word] = words {
            self.push(LOAD_CONST, *word);
            return self.push(JUMP, behind);
        }
        let (low, high) = words.split_at(words.len() / 2);
        let middle = first + low.len() as u32;
        self.branch(IF_NOT_BELOW, middle, 0, 1);
        self.push(JUMP, size(low.len()));
        self.find(low, first, behind + size(high.len()));
        self.find(high, middle, behind);
    }
}

/// Instructions of a search among so many words.
fn size(words: usize) -> u32 {
    4 * words as u32 - 2
}
