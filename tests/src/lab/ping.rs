//! Echo requests.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::forge::checksum;
use super::namespace::Namespace;
use super::traffic::patient;

/// What came of some echo requests.
#[derive(Clone, Debug, Default)]
pub struct Pings {
    /// Requests.
    pub sent: u32,
    /// Times from a request to its answer.
    pub round_trips: Vec<Duration>,
}

impl Pings {
    /// Every request was answered, and there was one.
    #[must_use]
    pub fn all_answered(&self) -> bool {
        self.sent > 0 && self.round_trips.len() == self.sent as usize
    }

    /// The middle one of the times.
    #[must_use]
    pub fn median(&self) -> Option<Duration> {
        let mut sorted = self.round_trips.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).copied()
    }
}

/// Sends `count` echo requests, each after the answer to the one before or after `limit`.
///
/// # Errors
/// No raw socket, or no route.
pub fn ping(from: &Namespace, to: IpAddr, count: u32, limit: Duration) -> Result<Pings> {
    ping_with(from, to, count, limit, 48)
}

/// As [`ping`], with so many bytes of content each.
///
/// # Errors
/// As [`ping`].
pub fn ping_with(from: &Namespace, to: IpAddr, count: u32, limit: Duration, content: usize) -> Result<Pings> {
    let limit = patient(limit);
    static IDENTIFIER: AtomicU16 = AtomicU16::new(1);
    let identifier = IDENTIFIER.fetch_add(1, Ordering::Relaxed);
    let (domain, protocol) =
        if to.is_ipv4() { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
    let socket = from.enter(|| Socket::new(domain, Type::RAW, Some(protocol))).context("raw socket")?;
    socket.connect(&SocketAddr::new(to, 0).into()).with_context(|| format!("{}: ping {to}", from.name()))?;
    let mut pings = Pings::default();
    for sequence in 0..count {
        let sequence = u16::try_from(sequence)?;
        let start = Instant::now();
        socket.send(&request(to.is_ipv6(), identifier, sequence, content))?;
        pings.sent += 1;
        if answered(&socket, to.is_ipv6(), identifier, sequence, start + limit)? {
            pings.round_trips.push(start.elapsed());
        }
    }
    Ok(pings)
}

fn request(v6: bool, identifier: u16, sequence: u16, content: usize) -> Vec<u8> {
    let mut message = vec![if v6 { 128 } else { 8 }, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.resize(8 + content, 0xa5);
    // The kernel fills the checksum of ICMPv6.
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn answered(socket: &Socket, v6: bool, identifier: u16, sequence: u16, deadline: Instant) -> Result<bool> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        let mut reader = socket;
        let Ok(length) = reader.read(&mut buffer) else { continue };
        // Raw IPv4 sockets show the header, raw IPv6 sockets do not.
        let header = if v6 { 0 } else { usize::from(buffer[0] & 15) * 4 };
        let Some(message) = buffer[..length].get(header..) else { continue };
        let kind = if v6 { 129 } else { 0 };
        let ours = message.len() >= 8
            && message[0] == kind
            && message[4..6] == identifier.to_be_bytes()
            && message[6..8] == sequence.to_be_bytes();
        if ours {
            return Ok(true);
        }
    }
}
