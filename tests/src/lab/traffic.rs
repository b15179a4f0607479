//! Small traffic and waiting.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::namespace::Namespace;

/// Environment: how many times longer than on a machine of today to wait for what should come. For emulated machines.
pub const PATIENCE: &str = "PEER_TEST_PATIENCE";

/// A limit for what should come, as long as this machine needs it to be ([`PATIENCE`]).
#[must_use]
pub fn patient(limit: Duration) -> Duration {
    static FACTOR: LazyLock<u32> =
        LazyLock::new(|| std::env::var(PATIENCE).ok().and_then(|factor| factor.parse().ok()).unwrap_or(1));
    limit * *FACTOR
}

/// Asks `condition` every few milliseconds until it holds or the time ([`patient`]) is over; says whether it held.
pub fn wait_for(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patient(limit);
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A UDP socket that talks to one echo service.
pub struct EchoSocket {
    socket: UdpSocket,
}

impl EchoSocket {
    /// Opens one inside a namespace.
    ///
    /// # Errors
    /// No route.
    pub fn open(from: &Namespace, to: SocketAddr) -> Result<Self> {
        Self::open_at(from, 0, to)
    }

    /// Opens one at a port; 0: any.
    ///
    /// # Errors
    /// No route, or the port is taken.
    pub fn open_at(from: &Namespace, port: u16, to: SocketAddr) -> Result<Self> {
        let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = from.enter(|| {
            let socket = UdpSocket::bind((any, port))?;
            socket.connect(to)?;
            std::io::Result::Ok(socket)
        });
        Ok(Self { socket: socket.with_context(|| format!("{}: UDP to {to}", from.name()))? })
    }

    /// Sends a datagram and waits ([`patient`]) for the same to come back; says whether it did.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn ask(&self, content: &[u8], limit: Duration) -> Result<bool> {
        self.ask_within(content, patient(limit))
    }

    /// As [`Self::ask`], for what should not come back: waits so long and no longer.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn ask_within(&self, content: &[u8], limit: Duration) -> Result<bool> {
        self.send(content)?;
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv(&mut buffer) {
                Ok(length) if &buffer[..length] == content => return Ok(true),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn send(&self, content: &[u8]) -> Result<()> {
        self.socket.send(content)?;
        Ok(())
    }
}
