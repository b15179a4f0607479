//! The contract between a shard's engine and the thread that drives it.
//!
//! A shard owns its peers alone: no lock, no sharing. Everything comes in through `handle_*` and leaves through a batch
//! that the caller lends or through `poll_*`; after any input the caller polls packets, transmits, events and the next timeout.

use std::time::Instant;

use crate::batch::{DatagramBatch, PacketBatch};
use crate::filter::FilterChange;

/// Which of how many shards. The number is also in the session indexes that the shard hands out, so that a datagram
/// can be steered to its owner by its receiver index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShardId {
    number: u8,
    bits: u8,
}

/// A number of shards that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shard {number} of {count}: the count is a power of two up to 256, and the number is below it")]
pub struct ShardIdError {
    number: usize,
    count: usize,
}

impl ShardId {
    /// The only shard there is.
    pub const ONLY: Self = Self { number: 0, bits: 0 };

    /// Shard `number` of `count`.
    ///
    /// # Errors
    /// Unless `count` is a power of two up to 256 and `number` is below it.
    pub fn new(number: usize, count: usize) -> Result<Self, ShardIdError> {
        let wrong = ShardIdError { number, count };
        if !count.is_power_of_two() || count > 256 || number >= count {
            return Err(wrong);
        }
        let bits = u8::try_from(count.trailing_zeros()).map_err(|_| wrong)?;
        Ok(Self { number: u8::try_from(number).map_err(|_| wrong)?, bits })
    }

    /// Its number, from 0.
    #[must_use]
    pub fn number(self) -> u32 {
        self.number.into()
    }

    /// How many low bits carry the number.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.bits.into()
    }
}

/// What a shard's thread drives: turns datagrams into packets and packets into datagrams.
pub trait Engine: Send + 'static {
    /// What the control side is told.
    type Event: Send + 'static;

    /// Bytes that a datagram may have more than the packet in it: header, padding and tag.
    const OVERHEAD: usize;

    /// Opens `datagrams` that arrived, in place if it can, and appends the packets in them to `packets`. The caller has
    /// seen to it that `packets` has room for as many items and bytes. Answers wait for [`Engine::poll_transmit`].
    fn handle_datagrams(&mut self, now: Instant, datagrams: &mut DatagramBatch, packets: &mut PacketBatch);

    /// Seals `packets` and appends the datagrams to `datagrams`. The caller has seen to it that there is room for as many
    /// items and for [`Engine::OVERHEAD`] bytes more each.
    fn handle_packets(&mut self, now: Instant, packets: &PacketBatch, datagrams: &mut DatagramBatch);

    /// Does what is due at `now`.
    fn handle_timeout(&mut self, now: Instant);

    /// When [`Engine::handle_timeout`] wants to be called next, at the latest.
    fn poll_timeout(&mut self) -> Option<Instant>;

    /// Appends datagrams that are waiting, as long as there is room. Returns whether more are waiting.
    fn poll_transmit(&mut self, datagrams: &mut DatagramBatch) -> bool;

    /// Appends packets that the engine has held back and lets go now, as long as there is room. Returns whether more are
    /// waiting. To be asked after datagrams and timeouts.
    fn poll_packets(&mut self, _packets: &mut PacketBatch) -> bool {
        false
    }

    /// What the kernel shall do from now on with what arrives, if that has changed.
    fn poll_filter(&mut self) -> Option<FilterChange> {
        None
    }

    /// The kernel has taken none: all is received, now and later.
    fn filter_refused(&mut self) {}

    /// The next thing that the control side should know.
    fn poll_event(&mut self) -> Option<Self::Event>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_powers_of_two_and_numbers_below_them() {
        assert_eq!(ShardId::new(0, 1), Ok(ShardId::ONLY));
        let shard = ShardId::new(5, 8).expect("valid");
        assert_eq!((shard.number(), shard.bits()), (5, 3));
        for (number, count) in [(0, 0), (0, 3), (1, 1), (8, 8), (0, 512)] {
            assert_eq!(ShardId::new(number, count), Err(ShardIdError { number, count }));
        }
        assert!(ShardId::new(255, 256).is_ok());
    }
}
