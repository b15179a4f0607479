//! From the socket into the shard's batches.

use std::io::{self, ErrorKind, Read as _};
use std::ops::Range;
use std::time::Instant;

use peer_connect::DetachedStream;
use peer_core::batch::{DatagramBatch, Scatter};
use peer_core::path::{Path, RelayId};
use peer_io::relay::READ_BYTES;

use crate::error::ConnectError;
use crate::message::Message;
use crate::session::Session;
use crate::stats::RelayStats;
use crate::websocket::{Piece, Reader};

/// Less room than this is not worth a system call more.
const WORTH_READING: usize = 16 << 10;

/// Reads many frames at once to where the shard will open their datagrams; only the piece of a frame at the end of what
/// was read is copied.
pub(super) struct Inbound {
    connection: u32,
    /// Read, and not yet used.
    carry: Vec<u8>,
    /// There may be whole frames in `carry`.
    unread: bool,
    reader: Reader,
    /// Datagrams that stand outside batches: early ones, and those that came in parts.
    loose: Vec<(u32, Vec<u8>)>,
    /// Payloads of pings that are to be answered; a few at most.
    pub(super) pings: Vec<Vec<u8>>,
    /// The server has closed the WebSocket.
    pub(super) closed: bool,
}

/// What one look at the socket brought.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// There may be more.
    More,
    /// Nothing more for now.
    All,
    /// Nothing more ever.
    End,
}

/// What messages are for.
pub(super) struct Target<'a> {
    pub(super) now: Instant,
    pub(super) session: &'a mut Session,
    pub(super) stats: &'a RelayStats,
}

impl Inbound {
    /// `early`: what has been read from the connection already.
    pub(super) fn new(connection: u32, early: Vec<u8>) -> Self {
        let mut carry = Vec::with_capacity(READ_BYTES);
        carry.extend(early);
        let unread = !carry.is_empty();
        let reader = Reader::default();
        Self { connection, carry, unread, reader, loose: Vec::new(), pings: Vec::new(), closed: false }
    }

    /// Hands a datagram to the shard with the next batch.
    pub(super) fn add(&mut self, number: u32, datagram: Vec<u8>) {
        self.loose.push((number, datagram));
    }

    /// Appends the datagrams that have arrived to `batch`. Returns whether there may be more.
    pub(super) fn receive(
        &mut self,
        stream: &mut DetachedStream,
        batch: &mut DatagramBatch,
        mut target: Target<'_>,
    ) -> Result<bool, ConnectError> {
        self.push_loose(batch, target.stats);
        let found = batch.scatter_with(|room, items| {
            let len = room.len().min(READ_BYTES);
            self.fill(stream, &mut room[..len], items, &mut target)
        })?;
        self.push_loose(batch, target.stats);
        match found {
            Found::More => Ok(true),
            Found::All => Ok(false),
            Found::End => Err(ConnectError::Closed),
        }
    }

    fn push_loose(&mut self, batch: &mut DatagramBatch, stats: &RelayStats) {
        for (peer, datagram) in self.loose.drain(..) {
            if !batch.push(&datagram, Path::Relay(RelayId { connection: self.connection, peer })) {
                stats.no_room.add(1);
            }
        }
    }

    /// Reads into `room` and names the datagrams there.
    fn fill(
        &mut self,
        stream: &mut DetachedStream,
        room: &mut [u8],
        items: &mut Scatter<'_, Path>,
        target: &mut Target<'_>,
    ) -> Result<Found, ConnectError> {
        let carried = self.carry.len();
        let Some(front) = room.get_mut(..carried) else { return Ok(Found::More) };
        front.copy_from_slice(&self.carry);
        let mut filled = carried;
        let mut found = Found::More;
        while room.len() - filled >= WORTH_READING {
            let asked = room.len() - filled;
            match read(stream, &mut room[filled..])? {
                Some(0) => found = Found::End,
                Some(len) => {
                    filled += len;
                    // A socket that gave less than was asked for is empty, and poll(2) tells when it is not any more.
                    if len == asked || stream.reads_ahead() {
                        continue;
                    }
                    found = Found::All;
                }
                None => found = Found::All,
            }
            break;
        }
        if filled > carried || std::mem::take(&mut self.unread) {
            self.carry.clear();
            let used = self.parse(&mut room[..filled], items, target)?;
            self.carry.extend_from_slice(&room[used..filled]);
        }
        Ok(match found {
            Found::All | Found::End if self.unread => Found::More,
            found => found,
        })
    }

    /// Handles whole frames at the start of `bytes`. Returns how many bytes they are.
    fn parse(
        &mut self,
        bytes: &mut [u8],
        items: &mut Scatter<'_, Path>,
        target: &mut Target<'_>,
    ) -> Result<usize, ConnectError> {
        let mut at = 0;
        while let Some((piece, len)) = self.reader.next(&bytes[at..])? {
            match piece {
                Piece::Message(place) => {
                    let (start, end) = (at + place.start, at + place.end);
                    if let Some((peer, payload)) = target.classify(&bytes[start..end])? {
                        let path = Path::Relay(RelayId { connection: self.connection, peer });
                        if !items.push(start + payload.start..start + payload.end, path) {
                            // Out of items: the rest, this one included, is for the next batch.
                            self.unread = true;
                            return Ok(at);
                        }
                    }
                }
                Piece::Assembled(message) => {
                    if let Some((number, payload)) = target.classify(&message)? {
                        self.loose.push((number, message[payload].to_vec()));
                    }
                }
                // Who pings faster than we can answer gets some of the answers.
                Piece::Ping(place) if self.pings.len() < 4 => self.pings.push(bytes[at..][place].to_vec()),
                Piece::Close => self.closed = true,
                Piece::Ping(_) | Piece::Nothing => {}
            }
            at += len;
        }
        Ok(at)
    }
}

impl Target<'_> {
    /// A datagram of a known peer is returned, all else done.
    fn classify(&mut self, bytes: &[u8]) -> Result<Option<(u32, Range<usize>)>, ConnectError> {
        match Message::decode(bytes) {
            Ok(Message::Transport { source, payload }) => {
                let number = self.session.source(self.now, source, payload);
                Ok(number.map(|number| (number, bytes.len() - payload.len()..bytes.len())))
            }
            Ok(message) => {
                self.session.handle_message(message)?;
                Ok(None)
            }
            Err(error) => {
                self.stats.malformed.add(1);
                tracing::trace!(%error, "message ignored");
                Ok(None)
            }
        }
    }
}

/// Bytes that are there already; `None`: none.
fn read(stream: &mut DetachedStream, room: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        return match stream.read(room) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}
