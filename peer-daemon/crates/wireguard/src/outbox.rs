//! Datagrams that wait for the driver: handshake messages, keepalives, and packets that had waited for a session.

use std::collections::VecDeque;

use peer_core::batch::DatagramBatch;
use peer_core::path::Path;

use crate::limits::{TRANSMIT_QUEUE, TRANSMIT_QUEUE_BYTES};

/// Buffers kept for reuse.
const SPARE: usize = 64;

/// First in, first out; bounded in items and bytes. What does not fit is refused, never what waits already.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<(Path, Vec<u8>)>,
    bytes: usize,
    spare: Vec<Vec<u8>>,
}

impl Outbox {
    /// Copies `datagram` in. `false`: full.
    pub(crate) fn push(&mut self, path: Path, datagram: &[u8]) -> bool {
        if self.queue.len() >= TRANSMIT_QUEUE || self.bytes + datagram.len() > TRANSMIT_QUEUE_BYTES {
            return false;
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(datagram);
        self.bytes += datagram.len();
        self.queue.push_back((path, buffer));
        true
    }

    /// Moves datagrams to `batch` as long as there is room. Returns how many had to be dropped because not even the
    /// empty batch could take them.
    pub(crate) fn drain_into(&mut self, batch: &mut DatagramBatch) -> usize {
        let mut dropped = 0;
        while let Some((path, datagram)) = self.queue.front() {
            if !batch.push(datagram, *path) {
                if !batch.is_empty() {
                    break;
                }
                dropped += 1;
            }
            if let Some((_, buffer)) = self.queue.pop_front() {
                self.bytes -= buffer.len();
                if self.spare.len() < SPARE {
                    self.spare.push(buffer);
                }
            }
        }
        dropped
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: Path = Path::Udp {
        remote: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9),
        local: None,
    };

    #[test]
    fn order_stays_and_room_is_respected() {
        let mut outbox = Outbox::default();
        for byte in 0..5_u8 {
            assert!(outbox.push(PATH, &[byte; 10]));
        }
        let mut batch = DatagramBatch::with_capacity(30, 8);
        assert_eq!(outbox.drain_into(&mut batch), 0);
        assert_eq!((batch.len(), outbox.len()), (3, 2));
        batch.clear();
        outbox.drain_into(&mut batch);
        assert_eq!(batch.iter().map(|(bytes, _)| bytes[0]).collect::<Vec<_>>(), [3, 4]);
        assert_eq!((outbox.len(), outbox.bytes), (0, 0));
    }

    #[test]
    fn it_is_bounded_and_never_stuck() {
        let mut outbox = Outbox::default();
        let accepted = (0..TRANSMIT_QUEUE + 9).filter(|_| outbox.push(PATH, &[0; 40])).count();
        assert_eq!(accepted, TRANSMIT_QUEUE);
        let mut tiny = DatagramBatch::with_capacity(8, 8);
        assert_eq!(outbox.drain_into(&mut tiny), TRANSMIT_QUEUE);
        let big = vec![0; 1 << 20];
        assert_eq!((0..40).filter(|_| outbox.push(PATH, &big)).count(), TRANSMIT_QUEUE_BYTES >> 20);
    }
}
