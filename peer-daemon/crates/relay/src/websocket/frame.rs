//! Frames (RFC 6455 §5.2).

use super::WebSocketError;
use crate::message::MAX_LEN;

/// Longest header of a frame that a client writes: no relay message is longer than 65535 bytes.
pub(crate) const HEADER_LEN: usize = 8;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASK: u8 = 0x80;
const LONGEST_CONTROL: usize = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Opcode {
    Continuation = 0,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// A frame of the server at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    /// The last, or only, part of its message.
    pub(super) last: bool,
    /// Where the payload starts and ends.
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Frame {
    /// Reads the header at the start of `bytes`; `None`: it is not complete. The payload need not be there yet.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, WebSocketError> {
        let Some(&[first, second]) = bytes.first_chunk() else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err(WebSocketError::ReservedBits);
        }
        if second & MASK != 0 {
            return Err(WebSocketError::MaskedFrame);
        }
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            other => return Err(WebSocketError::FrameType(other)),
        };
        let last = first & FIN != 0;
        let (len, start) = match second {
            127 => return Err(WebSocketError::TooLong),
            126 => match bytes[2..].first_chunk() {
                Some(len) => (usize::from(u16::from_be_bytes(*len)), 4),
                None => return Ok(None),
            },
            len => (usize::from(len), 2),
        };
        let control = !matches!(opcode, Opcode::Continuation | Opcode::Binary);
        if control && (!last || len > LONGEST_CONTROL) {
            return Err(WebSocketError::ControlFrame);
        }
        if len > MAX_LEN {
            return Err(WebSocketError::TooLong);
        }
        Ok(Some(Self { opcode, last, start, end: start + len }))
    }
}

/// Writes the header of a whole, masked frame of `len` payload bytes (at most 65535) to the start of `room`, which has
/// [`HEADER_LEN`] bytes. Returns the header's length.
pub(crate) fn write_header(room: &mut [u8], opcode: Opcode, len: usize, key: [u8; 4]) -> usize {
    room[0] = FIN | opcode as u8;
    let at = if len < 126 {
        room[1] = MASK | len as u8;
        2
    } else {
        room[1] = MASK | 126;
        room[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        4
    };
    room[at..at + 4].copy_from_slice(&key);
    at + 4
}

/// Appends a whole frame to `out`.
pub(crate) fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    let start = out.len();
    out.resize(start + HEADER_LEN + payload.len(), 0);
    let header = write_header(&mut out[start..], opcode, payload.len(), key);
    let end = start + header + payload.len();
    mask_into(&mut out[start + header..end], payload, Masked::from_start(key));
    out.truncate(end);
}

/// A masking key at a place in the payload (§5.3).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Masked([u8; 4]);

impl Masked {
    pub(crate) fn from_start(key: [u8; 4]) -> Self {
        Self(key)
    }

    /// The same after so many bytes.
    pub(crate) fn after(mut self, bytes: usize) -> Self {
        self.0.rotate_left(bytes % 4);
        self
    }
}

/// Copies `from` to `to`, which has the same length, masked.
pub(crate) fn mask_into(to: &mut [u8], from: &[u8], key: Masked) {
    const STEP: usize = 32;
    let mut wide = [0; STEP];
    for (at, byte) in wide.iter_mut().enumerate() {
        *byte = key.0[at % 4];
    }
    let (to_chunks, to_rest) = to.as_chunks_mut::<STEP>();
    let (from_chunks, from_rest) = from.as_chunks::<STEP>();
    for (to, from) in to_chunks.iter_mut().zip(from_chunks) {
        for ((to, from), key) in to.iter_mut().zip(from).zip(&wide) {
            *to = from ^ key;
        }
    }
    for ((to, from), key) in to_rest.iter_mut().zip(from_rest).zip(&wide) {
        *to = from ^ key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_of_servers_are_read() {
        let frame = |opcode, last, start, end| Ok(Some(Frame { opcode, last, start, end }));
        for (bytes, expected) in [
            (&[][..], Ok(None)),
            (&[0x82], Ok(None)),
            (&[0x82, 125], frame(Opcode::Binary, true, 2, 127)),
            (&[0x02, 126, 1], Ok(None)),
            (&[0x02, 126, 1, 0], frame(Opcode::Binary, false, 4, 260)),
            (&[0x80, 0], frame(Opcode::Continuation, true, 2, 2)),
            (&[0x89, 3], frame(Opcode::Ping, true, 2, 5)),
            (&[0x82, 126, 0x22, 0x74], frame(Opcode::Binary, true, 4, 4 + MAX_LEN)),
            (&[0x82, 126, 0x22, 0x75], Err(WebSocketError::TooLong)),
            (&[0x82, 127], Err(WebSocketError::TooLong)),
            (&[0x09, 3], Err(WebSocketError::ControlFrame)),
            (&[0x88, 126, 0, 126], Err(WebSocketError::ControlFrame)),
            (&[0x82, 0x80], Err(WebSocketError::MaskedFrame)),
            (&[0xc2, 0], Err(WebSocketError::ReservedBits)),
            (&[0x81, 0], Err(WebSocketError::FrameType(1))),
            (&[0x83, 0], Err(WebSocketError::FrameType(3))),
        ] {
            assert_eq!(Frame::parse(bytes), expected, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn frames_are_masked_as_the_standard_says(payload in proptest::collection::vec(any::<u8>(), 0..300), key: [u8; 4]) {
            let mut out = vec![7];
            write_frame(&mut out, Opcode::Binary, &payload, key);
            let header = if payload.len() < 126 { 2 } else { 4 };
            prop_assert_eq!(out.len(), 1 + header + 4 + payload.len());
            prop_assert_eq!(out[1], 0x82);
            prop_assert_eq!(&out[1 + header..5 + header], &key[..]);
            let unmasked: Vec<_> = out[5 + header..].iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            prop_assert_eq!(unmasked, payload);
        }

        #[test]
        fn a_payload_may_be_masked_in_parts(payload in proptest::collection::vec(any::<u8>(), 0..100), cut: usize, key: [u8; 4]) {
            let cut = cut % (payload.len() + 1);
            let key = Masked::from_start(key);
            let (mut whole, mut parts) = (vec![0; payload.len()], vec![0; payload.len()]);
            mask_into(&mut whole, &payload, key);
            mask_into(&mut parts[..cut], &payload[..cut], key);
            mask_into(&mut parts[cut..], &payload[cut..], key.after(cut));
            prop_assert_eq!(whole, parts);
        }
    }
}
