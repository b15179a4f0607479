//! From frames to messages.

use std::ops::Range;

use super::WebSocketError;
use super::frame::{Frame, Opcode};
use crate::message::MAX_LEN;

/// What stands at the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A whole message at this place.
    Message(Range<usize>),
    /// A message that came in parts.
    Assembled(Vec<u8>),
    /// To be answered with the same bytes.
    Ping(Range<usize>),
    /// The server closes.
    Close,
    /// Nothing to be done.
    Nothing,
}

/// Puts messages that come in parts together; those that come whole, which is all that relays send by themselves, are
/// only pointed at.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    parts: Option<Vec<u8>>,
}

impl Reader {
    /// Reads one frame at the start of `bytes`. Returns what it is and its length; `None`: it is not complete.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<Option<(Piece, usize)>, WebSocketError> {
        let Some(frame) = Frame::parse(bytes)? else { return Ok(None) };
        let Some(payload) = bytes.get(frame.start..frame.end) else { return Ok(None) };
        let place = frame.start..frame.end;
        let piece = match (frame.opcode, self.parts.take()) {
            (Opcode::Binary, None) if frame.last => Piece::Message(place),
            (Opcode::Binary, None) => {
                self.parts = Some(payload.to_vec());
                Piece::Nothing
            }
            (Opcode::Continuation, Some(mut parts)) => {
                if parts.len() + payload.len() > MAX_LEN {
                    return Err(WebSocketError::TooLong);
                }
                parts.extend_from_slice(payload);
                if frame.last {
                    Piece::Assembled(parts)
                } else {
                    self.parts = Some(parts);
                    Piece::Nothing
                }
            }
            (Opcode::Binary, Some(_)) | (Opcode::Continuation, None) => return Err(WebSocketError::PartsOutOfOrder),
            // Control frames may stand between parts.
            (control, parts) => {
                self.parts = parts;
                match control {
                    Opcode::Ping => Piece::Ping(place),
                    Opcode::Close => Piece::Close,
                    _ => Piece::Nothing,
                }
            }
        };
        Ok(Some((piece, frame.end)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a server writes it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        if payload.len() < 126 {
            bytes.push(payload.len() as u8);
        } else {
            bytes.push(126);
            bytes.extend((payload.len() as u16).to_be_bytes());
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    /// All messages in `bytes`, and how many bytes were not used.
    fn read(reader: &mut Reader, bytes: &[u8]) -> Result<(Vec<Vec<u8>>, usize), WebSocketError> {
        let (mut messages, mut at) = (Vec::new(), 0);
        while let Some((piece, len)) = reader.next(&bytes[at..])? {
            match piece {
                Piece::Message(place) => messages.push(bytes[at..][place].to_vec()),
                Piece::Assembled(message) => messages.push(message),
                _ => {}
            }
            at += len;
        }
        Ok((messages, bytes.len() - at))
    }

    #[test]
    fn parts_are_put_together_around_control_frames() {
        let bytes = [frame(0x02, b"ab"), frame(0x89, b"?"), frame(0x00, b"cd"), frame(0x80, b"e"), frame(0x82, b"f")];
        let (messages, rest) = read(&mut Reader::default(), &bytes.concat()).expect("valid");
        assert_eq!((messages, rest), (vec![b"abcde".to_vec(), b"f".to_vec()], 0));
        let mut reader = Reader::default();
        assert_eq!(reader.next(&frame(0x89, b"?")), Ok(Some((Piece::Ping(2..3), 3))));
        assert_eq!(reader.next(&frame(0x8a, b"!")), Ok(Some((Piece::Nothing, 3))));
        assert_eq!(reader.next(&frame(0x88, &[])), Ok(Some((Piece::Close, 2))));
    }

    #[test]
    fn parts_out_of_order_and_endless_ones_are_errors() {
        let fails = |frames: &[Vec<u8>]| read(&mut Reader::default(), &frames.concat()).expect_err("an error");
        assert_eq!(fails(&[frame(0x80, b"a")]), WebSocketError::PartsOutOfOrder);
        assert_eq!(fails(&[frame(0x02, b"a"), frame(0x82, b"b")]), WebSocketError::PartsOutOfOrder);
        assert_eq!(fails(&[frame(0x02, &[0; 8000]), frame(0x00, &[0; 821])]), WebSocketError::TooLong);
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_the_messages_are_the_same(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in proptest::collection::vec(1..200_usize, 1..40),
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|message| frame(0x82, message)).collect();
            let (mut reader, mut found, mut waiting) = (Reader::default(), Vec::new(), Vec::new());
            let (mut at, mut cuts) = (0, cuts.iter().cycle());
            while at < stream.len() {
                let end = (at + cuts.next().expect("endless")).min(stream.len());
                waiting.extend_from_slice(&stream[at..end]);
                at = end;
                let (new, rest) = read(&mut reader, &waiting).expect("valid");
                found.extend(new);
                waiting.drain(..waiting.len() - rest);
            }
            prop_assert_eq!((found, waiting.len()), (messages, 0));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            _ = read(&mut Reader::default(), &bytes);
        }
    }
}
