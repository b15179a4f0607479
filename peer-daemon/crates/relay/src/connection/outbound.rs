//! From frames to the socket.

use std::io::{self, ErrorKind, Write as _};
use std::time::{Duration, Instant};

use peer_connect::DetachedStream;
use peer_io::relay::LaneError;

use crate::error::ConnectError;
use crate::framer::{Framer, OVERHEAD};
use crate::websocket::{Opcode, write_frame};

/// Frames that may wait, bytes: 10 ms of 200 Mbit/s. More would only be delay.
const CAPACITY: usize = 256 << 10;
/// So much of it is for our own messages.
const RESERVED: usize = 16 << 10;
/// How long the relay may take nothing from us.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Frames back to back, written as they are and as many as there are.
pub(super) struct Outbound {
    /// Frames are in `start..end`.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    unflushed: bool,
    blocked_since: Option<Instant>,
}

impl Outbound {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; CAPACITY], start: 0, end: 0, unflushed: false, blocked_since: None }
    }

    /// Appends a datagram's frame.
    pub(super) fn datagram(&mut self, framer: &mut Framer, peer: u32, datagram: &[u8]) -> Result<(), LaneError> {
        let needed = datagram.len() + OVERHEAD;
        if self.end - self.start + needed > CAPACITY - RESERVED {
            return Err(LaneError::Full);
        }
        if self.end + needed > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.end += framer.frame(peer, datagram, &mut self.bytes[self.end..self.end + needed])?;
        Ok(())
    }

    /// Appends a message of our own. There is always room.
    pub(super) fn message(&mut self, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
        self.bytes.truncate(self.end);
        write_frame(&mut self.bytes, opcode, payload, mask);
        self.end = self.bytes.len();
        if self.end < CAPACITY {
            self.bytes.resize(CAPACITY, 0);
        }
    }

    /// Writes as much as the socket takes.
    pub(super) fn write(&mut self, now: Instant, stream: &mut DetachedStream) -> Result<(), ConnectError> {
        match self.try_write(stream) {
            Ok(()) => {
                self.blocked_since = None;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.blocked_since.get_or_insert(now);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether everything has left.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end && !self.unflushed
    }

    /// When the relay is given up because it takes nothing.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Some(self.blocked_since? + WRITE_TIMEOUT)
    }

    pub(super) fn check(&self, now: Instant) -> Result<(), ConnectError> {
        match self.deadline() {
            Some(at) if at <= now => Err(ConnectError::Stuck(WRITE_TIMEOUT.as_secs())),
            _ => Ok(()),
        }
    }

    fn try_write(&mut self, stream: &mut DetachedStream) -> io::Result<()> {
        while self.start < self.end {
            match stream.write(&self.bytes[self.start..self.end])? {
                0 => return Err(ErrorKind::WriteZero.into()),
                len => {
                    self.start += len;
                    (self.unflushed, self.blocked_since) = (true, None);
                }
            }
        }
        (self.start, self.end) = (0, 0);
        self.bytes.truncate(CAPACITY);
        if self.unflushed {
            stream.flush()?;
            self.unflushed = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::peer_id::PeerId;

    fn framer() -> Framer {
        let mut framer = Framer::new(rand::rngs::StdRng::seed_from_u64(1));
        framer.insert(1, PeerId([1; 36]));
        framer
    }

    #[test]
    fn datagrams_are_refused_where_own_messages_still_fit() {
        let (mut framer, mut outbound) = (framer(), Outbound::new());
        let mut taken = 0;
        while outbound.datagram(&mut framer, 1, &[0; 1400]).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, (CAPACITY - RESERVED) / (1400 + OVERHEAD));
        let before = outbound.end;
        for _ in 0..100 {
            outbound.message(Opcode::Binary, &[0; 1000], [0; 4]);
        }
        assert_eq!(outbound.end, before + 100 * 1008, "beyond the capacity, too");
        assert_eq!(outbound.datagram(&mut framer, 1, &[0; 10]), Err(LaneError::Full));
    }

    #[test]
    fn room_at_the_start_is_used_again() {
        let (mut framer, mut outbound) = (framer(), Outbound::new());
        while outbound.datagram(&mut framer, 1, &[0; 1400]).is_ok() {}
        // As if the socket had taken half.
        outbound.start = outbound.end / 2;
        let rest = outbound.bytes[outbound.start..outbound.end].to_vec();
        let mut taken = 0;
        while outbound.datagram(&mut framer, 1, &[0; 1400]).is_ok() {
            taken += 1;
        }
        assert!(taken > 70, "{taken}");
        assert_eq!(outbound.bytes[outbound.start..][..rest.len()], rest);
    }
}
