//! One connection to a relay: made and let in by a task, then driven by the shard's thread until it ends.

mod inbound;
mod lane;
mod outbound;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peer_connect::{Alpn, Connector, DetachedStream, Stream};
use peer_core::path::Path;
use peer_io::RelayPort;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use self::inbound::Inbound;
use self::lane::Lane;
use self::outbound::Outbound;
use crate::error::ConnectError;
use crate::framer::Framer;
use crate::message::{self, Message};
use crate::peer_id::PeerId;
use crate::session::{Session, WayEvent};
use crate::stats::{RelayStats, Share};
use crate::token::Token;
use crate::url::RelayUrl;
use crate::websocket::{Opcode, Piece, Reader, upgrade, write_frame};

/// For the WebSocket, and for the answer to our token.
const AUTH_TIMEOUT: Duration = Duration::from_secs(8);
/// What the kernel may hold of ours that is not sent yet, bytes. More would be delay that WireGuard's payload cannot see;
/// less would leave the wire idle until we are scheduled.
const UNSENT: u32 = 128 << 10;

/// What a connection is to do.
#[derive(Debug)]
pub(crate) enum LinkCommand {
    /// Open a way to the peer, under a number of its own.
    Open { peer: PeerId, number: u32 },
    /// Close it.
    Close { peer: PeerId, number: u32 },
    /// Say goodbye and end.
    Goodbye,
}

/// What a connection says.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// It is let in.
    Up {
        /// The relay's own address for others.
        instance: RelayUrl,
        /// Where it was reached.
        address: Option<IpAddr>,
    },
    /// The way of that number can be used.
    WayUp { number: u32, path: Path },
    /// The way of that number is over.
    WayDown { number: u32, reason: WayEvent },
    /// It has ended: the last event.
    Down(ConnectError),
}

/// All that a connection needs.
pub(crate) struct Link {
    pub(crate) connector: Connector,
    pub(crate) url: RelayUrl,
    pub(crate) fallback: Option<IpAddr>,
    pub(crate) token: Token,
    pub(crate) own: PeerId,
    pub(crate) port: RelayPort,
    pub(crate) rng: StdRng,
    pub(crate) stats: Arc<RelayStats>,
}

/// A connection that is let in.
struct Connected {
    stream: DetachedStream,
    /// What came behind the answer to our token.
    early: Vec<u8>,
    instance: RelayUrl,
    address: Option<IpAddr>,
}

/// Where a connection's events go.
pub(crate) type Report = Arc<dyn Fn(LinkEvent) + Send + Sync>;

impl Link {
    /// Connects, and hands the connection over to the shard. `report` is called for each event, now and later, the last one
    /// included.
    pub(crate) async fn run(mut self, commands: mpsc::UnboundedReceiver<LinkCommand>, report: Report) {
        match self.connect().await {
            Ok(connected) => self.attach(connected, commands, report),
            Err(error) => {
                self.stats.failures.add(1);
                report(LinkEvent::Down(error));
            }
        }
    }

    fn attach(mut self, connected: Connected, commands: mpsc::UnboundedReceiver<LinkCommand>, report: Report) {
        let Connected { stream, early, instance, address } = connected;
        self.stats.connects.add(1);
        report(LinkEvent::Up { instance, address });
        let ended = Arc::clone(&report);
        let attached = self.port.attach(|connection| {
            let mut connected = Share::new(&self.stats, |stats| &stats.connected);
            connected.set(1);
            Lane {
                connection,
                stream,
                session: Session::new(Instant::now(), Arc::clone(&self.stats)),
                framer: Framer::new(self.rng.fork()),
                inbound: Inbound::new(connection, early),
                outbound: Outbound::new(),
                commands,
                report,
                stats: Arc::clone(&self.stats),
                _connected: connected,
                leaving: None,
                end: None,
            }
        });
        if let Err(error) = attached {
            ended(LinkEvent::Down(error.into()));
        }
    }

    /// Connects and authenticates.
    async fn connect(&mut self) -> Result<Connected, ConnectError> {
        let target = self.url.target(self.fallback);
        let stream = self.connector.connect(&target, Alpn::Http1).await?;
        let answer = async {
            let (mut stream, early) = upgrade(&target, stream, self.rng.random()).await?;
            let mut frame = Vec::new();
            write_frame(&mut frame, Opcode::Binary, &message::auth(&self.own, &self.token), self.rng.random());
            let sent = stream.write_all(&frame).await;
            zeroize::Zeroize::zeroize(&mut frame);
            sent?;
            stream.flush().await?;
            let (instance, early) = answer(&mut stream, early.to_vec()).await?;
            // Only a hint: the kernel may be too old.
            _ = socket2::SockRef::from(stream.tcp()).set_tcp_notsent_lowat(UNSENT);
            let seen = stream.tcp().peer_addr().ok().filter(|_| !stream.is_proxied());
            let address = seen.map(|addr| addr.ip().to_canonical());
            Ok(Connected { stream: stream.detach()?, early, instance, address })
        };
        let expired = |_| ConnectError::NoAnswer(AUTH_TIMEOUT.as_secs());
        tokio::time::timeout(AUTH_TIMEOUT, answer).await.map_err(expired)?
    }
}

/// Waits for the relay's address. A relay that does not let us in hangs up.
async fn answer(stream: &mut Stream, mut bytes: Vec<u8>) -> Result<(RelayUrl, Vec<u8>), ConnectError> {
    let mut reader = Reader::default();
    loop {
        while let Some((piece, len)) = reader.next(&bytes)? {
            let message = match piece {
                Piece::Message(place) => Some(bytes[place].to_vec()),
                Piece::Assembled(message) => Some(message),
                Piece::Close => return Err(ConnectError::Refused),
                Piece::Ping(_) | Piece::Nothing => None,
            };
            bytes.drain(..len);
            match message.as_deref().map(Message::decode) {
                Some(Ok(Message::AuthResponse { instance })) => return Ok((instance.parse()?, bytes)),
                Some(Ok(Message::Close)) => return Err(ConnectError::Refused),
                Some(_) => return Err(ConnectError::UnexpectedAnswer),
                None => {}
            }
        }
        // A message that is longer than what is read at once is none that we wait for.
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(ConnectError::Refused);
        }
    }
}
