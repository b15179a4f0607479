//! Frames of datagrams, written where they wait to be sent.

use std::collections::HashMap;

use peer_io::relay::LaneError;
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::message::{self, MAX_LEN, TRANSPORT_HEADER};
use crate::peer_id::PeerId;
use crate::websocket::{HEADER_LEN, Masked, Opcode, mask_into, write_header};

/// What a frame has more than the datagram in it, bytes.
pub(crate) const OVERHEAD: usize = HEADER_LEN + TRANSPORT_HEADER;

/// One connection's peers by number.
pub(crate) struct Framer {
    peers: HashMap<u32, PeerId>,
    /// The peer of the last datagram, with its header.
    last: Option<(u32, [u8; TRANSPORT_HEADER])>,
    rng: StdRng,
}

impl Framer {
    /// `rng` makes masks: others must not foresee them (RFC 6455 §10.3).
    pub(crate) fn new(rng: StdRng) -> Self {
        Self { peers: HashMap::new(), last: None, rng }
    }

    pub(crate) fn insert(&mut self, number: u32, peer: PeerId) {
        self.peers.insert(number, peer);
    }

    pub(crate) fn remove(&mut self, number: u32) {
        self.peers.remove(&number);
        self.last = None;
    }

    /// A mask.
    pub(crate) fn mask(&mut self) -> [u8; 4] {
        self.rng.random()
    }

    /// Writes the frame that carries `datagram` to `peer` to the start of `room`, which has [`OVERHEAD`] bytes more than the
    /// datagram. Returns its length.
    pub(crate) fn frame(&mut self, peer: u32, datagram: &[u8], room: &mut [u8]) -> Result<usize, LaneError> {
        let header = match self.last {
            Some((last, header)) if last == peer => header,
            _ => {
                let header = message::transport_header(self.peers.get(&peer).ok_or(LaneError::Gone)?);
                self.last = Some((peer, header));
                header
            }
        };
        let len = TRANSPORT_HEADER + datagram.len();
        if len > MAX_LEN {
            return Err(LaneError::TooBig);
        }
        let key = self.mask();
        let start = write_header(room, Opcode::Binary, len, key);
        let (front, back) = room[start..start + len].split_at_mut(TRANSPORT_HEADER);
        let key = Masked::from_start(key);
        mask_into(front, &header, key);
        mask_into(back, datagram, key.after(TRANSPORT_HEADER));
        Ok(start + len)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn unmask(frame: &[u8], header: usize) -> Vec<u8> {
        let key = &frame[header..header + 4];
        frame[header + 4..].iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
    }

    #[test]
    fn a_frame_is_a_masked_transport_message() {
        let mut framer = Framer::new(StdRng::seed_from_u64(1));
        let peer = PeerId([9; 36]);
        framer.insert(4, peer);
        let mut room = vec![0; 2000];
        for (datagram, header) in [(vec![1; 32], 2), (vec![2; 1300], 4)] {
            let len = framer.frame(4, &datagram, &mut room).expect("a known peer");
            let message = unmask(&room[..len], header);
            assert_eq!(message, [&message::transport_header(&peer)[..], &datagram].concat());
        }
    }

    #[test]
    fn unknown_peers_and_giants_have_no_frame() {
        let mut framer = Framer::new(StdRng::seed_from_u64(1));
        framer.insert(4, PeerId([9; 36]));
        let mut room = vec![0; 2 * MAX_LEN];
        assert_eq!(framer.frame(5, &[0; 32], &mut room), Err(LaneError::Gone));
        assert!(framer.frame(4, &[0; MAX_LEN - TRANSPORT_HEADER], &mut room).is_ok());
        assert_eq!(framer.frame(4, &[0; MAX_LEN - TRANSPORT_HEADER + 1], &mut room), Err(LaneError::TooBig));
        framer.remove(4);
        assert_eq!(framer.frame(4, &[0; 32], &mut room), Err(LaneError::Gone), "also from memory");
    }
}
