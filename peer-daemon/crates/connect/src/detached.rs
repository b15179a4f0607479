//! A connection without a runtime: whoever waits for its descriptor drives it.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use bytes::{Buf as _, Bytes};
use rustls::ClientConnection;

/// What is read of TLS at once: two of its largest records. The library itself asks for 4 KiB at a time.
const READ_AHEAD: usize = 32 << 10;

/// A connection to a server whose calls never wait: [`io::ErrorKind::WouldBlock`] where they would have to. Made by
/// [`crate::Stream::detach`].
///
/// Reading may leave bytes in memory of which the descriptor knows nothing: read until it would block. Writing may leave
/// bytes in memory too: [`Write::flush`] until it succeeds.
pub struct DetachedStream(Layer);

enum Layer {
    Tcp { early: Bytes, tcp: TcpStream },
    Tls(Box<Tls>),
}

struct Tls {
    session: ClientConnection,
    below: BufReader<DetachedStream>,
}

impl DetachedStream {
    pub(crate) fn tcp(early: Bytes, tcp: TcpStream) -> Self {
        Self(Layer::Tcp { early, tcp })
    }

    pub(crate) fn tls(session: ClientConnection, below: Self) -> Self {
        Self(Layer::Tls(Box::new(Tls { session, below: BufReader::with_capacity(READ_AHEAD, below) })))
    }

    /// Whether reading may leave bytes in memory: with TLS.
    #[must_use]
    pub fn reads_ahead(&self) -> bool {
        matches!(self.0, Layer::Tls(_))
    }

    /// Tells the server that nothing follows, as far as that can be done without waiting.
    pub fn close(&mut self) {
        if let Layer::Tls(tls) = &mut self.0 {
            tls.session.send_close_notify();
            // What does not get out now has had its chance.
            _ = tls.flush();
            tls.below.get_mut().close();
        }
    }
}

impl std::fmt::Debug for DetachedStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DetachedStream").field("tls", &matches!(self.0, Layer::Tls(_))).finish_non_exhaustive()
    }
}

impl AsFd for DetachedStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Layer::Tcp { tcp, .. } => tcp.as_fd(),
            Layer::Tls(tls) => tls.below.get_ref().as_fd(),
        }
    }
}

impl Read for DetachedStream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Layer::Tcp { early, tcp } if early.is_empty() => tcp.read(room),
            Layer::Tcp { early, .. } => {
                let len = early.len().min(room.len());
                early.copy_to_slice(&mut room[..len]);
                Ok(len)
            }
            Layer::Tls(tls) => tls.read(room),
        }
    }
}

impl Write for DetachedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Layer::Tcp { tcp, .. } => tcp.write(bytes),
            Layer::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Layer::Tcp { .. } => Ok(()),
            Layer::Tls(tls) => tls.flush(),
        }
    }
}

/// Reading never depends on what could not be written yet, nor the other way round: else two sides that both wait for the
/// other to read would wait for ever.
impl Tls {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            // At the end of the stream this tells the session, whose reader then says which kind of end it is.
            self.session.read_tls(&mut self.below)?;
            self.session.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.session.writer().write(bytes)?;
        match (self.flush(), taken) {
            // It has as much in memory as it may have.
            (Ok(()), 0) if !bytes.is_empty() => self.session.writer().write(bytes),
            (Err(error), 0) => Err(error),
            (Err(error), _) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let below = self.below.get_mut();
        while self.session.wants_write() {
            if self.session.write_tls(below)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        below.flush()
    }
}
