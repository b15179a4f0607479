//! The Internet checksum (RFC 1071).
//!
//! A one's complement sum does not care in which byte order its words are read, as long as it is written back in the
//! same one (RFC 1071 §2 B). So words are read as the machine likes them, eight bytes at a time, with the carry of one
//! addition fed into the next: a quarter of the additions of 16-bit words and no wide accumulator to fold in the loop.
//! This touches every byte of every packet; beside encryption nothing else does.

/// A sum in the machine's byte order, not folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Starts with a 16-bit word as it stands in the packet.
    pub(crate) fn of_word(word: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(word).into())
    }

    /// Adds a number of the packet's own (big-endian) meaning: a length, a protocol.
    #[must_use]
    pub(crate) fn add_number(self, number: u16) -> Self {
        self.add(number.to_be().into())
    }

    /// Takes such a number away: adds its one's complement.
    #[must_use]
    pub(crate) fn sub_number(self, number: u16) -> Self {
        self.add((!number.to_be()).into())
    }

    /// Adds bytes that begin at an even offset of what is summed.
    #[must_use]
    pub(crate) fn add_bytes(self, bytes: &[u8]) -> Self {
        let mut sum = self.0;
        let mut carry = false;
        let (blocks, rest) = bytes.as_chunks::<64>();
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for word in words {
                (sum, carry) = sum.carrying_add(u64::from_ne_bytes(*word), carry);
            }
        }
        let (words, rest) = rest.as_chunks::<8>();
        for word in words {
            (sum, carry) = sum.carrying_add(u64::from_ne_bytes(*word), carry);
        }
        // Zeros behind the end do not change the sum: RFC 1071 pads an odd length so.
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        (sum, carry) = sum.carrying_add(u64::from_ne_bytes(last), carry);
        Self(sum).add(carry.into())
    }

    /// The sum in 16 bits, as it stands in a packet: what a partial checksum field holds.
    pub(crate) fn folded(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (sum as u16).to_ne_bytes()
    }

    /// The checksum, as it stands in a packet.
    pub(crate) fn checksum(self) -> [u8; 2] {
        (!u16::from_ne_bytes(self.folded())).to_ne_bytes()
    }

    /// Whether the bytes summed, their checksum among them, are intact.
    pub(crate) fn is_valid(self) -> bool {
        self.folded() == [0xff; 2]
    }

    fn add(self, value: u64) -> Self {
        let (sum, carry) = self.0.overflowing_add(value);
        // After an overflow the sum is far from the top: this cannot overflow again.
        Self(sum + u64::from(carry))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Word by word as the RFC describes it: what all else is measured against.
    pub(crate) fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn example_of_rfc_1071() {
        let sum = Sum::default().add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), [0xdd, 0xf2]);
        assert_eq!(sum.checksum(), [0x22, 0x0d]);
    }

    proptest! {
        #[test]
        fn equals_the_naive_sum(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff)], 0..400)) {
            prop_assert_eq!(Sum::default().add_bytes(&bytes).checksum(), naive(&bytes).to_be_bytes());
        }

        #[test]
        fn parts_and_numbers_add_up(
            head in prop::collection::vec(any::<[u8; 2]>(), 0..50),
            tail in prop::collection::vec(any::<u8>(), 0..99),
            number in any::<u16>(),
        ) {
            let head = head.concat();
            let whole = [&head[..], &number.to_be_bytes(), &tail].concat();
            let sum = Sum::default().add_number(number).add_bytes(&head).add_bytes(&tail);
            prop_assert_eq!(sum.checksum(), naive(&whole).to_be_bytes());
            // Taken away again, zero may be either of its two forms.
            let without = Sum::default().add_bytes(&head).add_bytes(&tail);
            let (left, right) = (sum.sub_number(number).folded(), without.folded());
            prop_assert!(left == right || (left == [0xff; 2] && right == [0; 2]));
        }

        #[test]
        fn a_checksum_makes_its_packet_valid(bytes in prop::collection::vec(any::<[u8; 2]>(), 1..99)) {
            let mut bytes = bytes.concat();
            bytes[..2].fill(0);
            let checksum = Sum::default().add_bytes(&bytes).checksum();
            bytes[..2].copy_from_slice(&checksum);
            prop_assert!(Sum::default().add_bytes(&bytes).is_valid());
        }
    }
}
