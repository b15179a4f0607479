//! From the socket into the shard's batches.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use peer_connect::Stream;
use peer_core::batch::{DatagramBatch, Scatter};
use peer_core::path::Path;
use peer_io::RelayConnection;
use peer_io::relay::IN_BYTES;
use tokio::io::{AsyncRead, ReadBuf};

use crate::error::ConnectError;
use crate::framer::RelayFramer;
use crate::message::Message;
use crate::session::Session;
use crate::stats::RelayStats;
use crate::websocket::{Piece, Reader};

/// Less room than this is left for the next batch.
const WORTH_READING: usize = 16 << 10;

/// Reads many frames at once to where the shard will open their datagrams; only the piece of a frame at the end of what
/// was read is copied.
pub(super) struct Inbound {
    /// Read, and not yet used.
    carry: Vec<u8>,
    /// There may be whole frames in `carry`.
    unread: bool,
    reader: Reader,
    /// Being filled.
    batch: Option<DatagramBatch>,
    /// Datagrams that stand outside batches: early ones, and those that came in parts.
    loose: Vec<(u32, Vec<u8>)>,
    /// Payloads of pings that are to be answered; a few at most.
    pub(super) pings: Vec<Vec<u8>>,
    /// The server has closed the WebSocket.
    pub(super) closed: bool,
}

/// What one look at the socket brought.
enum Read {
    Something,
    Nothing,
    End,
}

impl Inbound {
    pub(super) fn new(early: Vec<u8>) -> Self {
        let mut carry = Vec::with_capacity(IN_BYTES);
        carry.extend(early);
        let unread = !carry.is_empty();
        Self {
            carry,
            unread,
            reader: Reader::default(),
            batch: None,
            loose: Vec::new(),
            pings: Vec::new(),
            closed: false,
        }
    }

    /// Hands a datagram to the shard with the next batch.
    pub(super) fn add(&mut self, number: u32, datagram: Vec<u8>) {
        self.loose.push((number, datagram));
    }

    /// Reads and hands over one batch. Returns whether there may be more.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        stream: &mut Stream,
        relay: &RelayConnection<RelayFramer>,
        session: &mut Session,
        stats: &RelayStats,
    ) -> Result<bool, ConnectError> {
        let mut batch = match self.batch.take() {
            Some(batch) => batch,
            None => match relay.poll_batch(cx) {
                Poll::Ready(Ok(batch)) => batch,
                Poll::Ready(Err(_)) => return Err(ConnectError::ShardStopped),
                Poll::Pending => return Ok(false),
            },
        };
        let read = if self.loose.is_empty() {
            let mut sink = Sink { now, relay, session, stats };
            batch.scatter_with(|room, items| self.fill(cx, stream, room, items, &mut sink))?
        } else {
            Read::Something
        };
        for (number, datagram) in self.loose.drain(..) {
            if !batch.push(&datagram, relay.path(number)) {
                stats.no_room.add(1);
            }
        }
        if batch.is_empty() {
            self.batch = Some(batch);
        } else {
            relay.deliver(batch);
        }
        match read {
            Read::Something => Ok(true),
            Read::Nothing => Ok(false),
            Read::End => Err(ConnectError::Closed),
        }
    }

    /// Reads into `room` and names the datagrams there.
    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        room: &mut [u8],
        items: &mut Scatter<'_, Path>,
        sink: &mut Sink<'_>,
    ) -> Result<Read, ConnectError> {
        let carried = self.carry.len();
        room[..carried].copy_from_slice(&self.carry);
        let mut filled = carried;
        let mut end = false;
        while room.len() - filled >= WORTH_READING {
            match read(cx, stream, &mut room[filled..])? {
                Some(0) => {
                    end = true;
                    break;
                }
                Some(len) => filled += len,
                None => break,
            }
        }
        if filled == carried && !self.unread {
            return Ok(if end { Read::End } else { Read::Nothing });
        }
        self.carry.clear();
        self.unread = false;
        let mut at = 0;
        while let Some((piece, len)) = self.reader.next(&room[at..filled])? {
            if let Piece::Message(place) = &piece
                && !sink.message(&room[at..][place.clone()], at + place.start, items)?
            {
                // Out of items: the rest, this one included, is for the next batch.
                self.unread = true;
                break;
            }
            self.other_than_message(piece, &room[at..filled], sink)?;
            at += len;
        }
        self.carry.extend_from_slice(&room[at..filled]);
        Ok(if end && !self.unread { Read::End } else { Read::Something })
    }

    fn other_than_message(&mut self, piece: Piece, bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), ConnectError> {
        match piece {
            Piece::Assembled(message) => {
                if let Some((number, payload)) = sink.classify(&message)? {
                    self.loose.push((number, message[payload].to_vec()));
                }
            }
            // Who pings faster than we can answer gets some of the answers.
            Piece::Ping(payload) if self.pings.len() < 4 => self.pings.push(bytes[payload].to_vec()),
            Piece::Close => self.closed = true,
            Piece::Message(_) | Piece::Ping(_) | Piece::Nothing => {}
        }
        Ok(())
    }
}

/// Where messages go.
struct Sink<'a> {
    now: Instant,
    relay: &'a RelayConnection<RelayFramer>,
    session: &'a mut Session,
    stats: &'a RelayStats,
}

impl Sink<'_> {
    /// Takes a message that stands at `start` of the room. `false`: there is no room for one item more.
    fn message(&mut self, message: &[u8], start: usize, items: &mut Scatter<'_, Path>) -> Result<bool, ConnectError> {
        let Some((number, payload)) = self.classify(message)? else { return Ok(true) };
        Ok(items.push(start + payload.start..start + payload.end, self.relay.path(number)))
    }

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

/// Bytes that are there already; `None`: none, and the task will be woken.
fn read(cx: &mut Context<'_>, stream: &mut Stream, room: &mut [u8]) -> io::Result<Option<usize>> {
    let mut buffer = ReadBuf::new(room);
    match Pin::new(stream).poll_read(cx, &mut buffer) {
        Poll::Ready(result) => result.map(|()| Some(buffer.filled().len())),
        Poll::Pending => Ok(None),
    }
}
