//! The shard's UDP sockets: one per address family on the same port, with GSO, GRO, recvmmsg and source addresses.

mod socket;
#[cfg(test)]
mod tests;
mod transmitter;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use peer_core::batch::DatagramBatch;
use peer_core::filter::{FilterChange, Filters};
use peer_core::path::Path;

use self::socket::{Outcome, Socket};
use crate::Error;
use crate::stats::{IoDrop, ShardStats};
use crate::stun::{self, StunReceiver, StunTap};

pub use self::socket::{MESSAGE_LEN, MESSAGES};
pub use self::transmitter::DatagramTx;

/// Datagrams that one message may hold: GRO's limit is 64, but a local sender's GSO message of up to 128 comes whole.
pub const MAX_SEGMENTS: usize = 128;

/// How often a port is sought that both families have.
const PORT_TRIES: u32 = 16;
/// UDP payload of one send over IPv4, the smaller of both families.
const MAX_SEND: usize = 65_507;
/// UDP_MAX_SEGMENTS of the oldest kernels that have GSO.
const MAX_SEND_SEGMENTS: usize = 64;
/// How long a batch may wait for a full socket. While it waits the shard does nothing else, so it is about the time that
/// a full buffer needs to drain at a gigabit, not more.
const MAX_WAIT: Duration = Duration::from_millis(5);

/// Sockets on one port: IPv4, and IPv6 where the host has it.
#[derive(Debug)]
pub struct Sockets {
    v4: Socket,
    v6: Option<Socket>,
    port: u16,
    stun: Option<StunTap>,
}

/// An address family's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Sockets {
    /// Binds to `port` on all addresses, in the network namespace of the calling thread; 0 lets the kernel choose.
    ///
    /// # Errors
    /// When another process has the port, or a system call fails. No error: IPv6 is missing.
    pub fn bind(port: u16) -> Result<Self, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let v4 = Socket::bind(Ipv4Addr::UNSPECIFIED.into(), port)?;
            let chosen = v4.port()?;
            match Socket::bind(Ipv6Addr::UNSPECIFIED.into(), chosen) {
                Ok(v6) => return Ok(Self { v4, v6: Some(v6), port: chosen, stun: None }),
                Err(Error::Io { source, .. }) if is_missing(&source) => {
                    tracing::info!("no IPv6 on this host ({source}): peers are reached by IPv4 only");
                    return Ok(Self { v4, v6: None, port: chosen, stun: None });
                }
                Err(Error::PortInUse { .. }) if port == 0 && tries < PORT_TRIES => {}
                Err(Error::PortInUse { .. }) if port == 0 => return Err(Error::NoCommonPort { tries }),
                Err(error) => return Err(error),
            }
        }
    }

    /// From now on STUN datagrams go to the receiver and not into batches.
    pub fn tap_stun(&mut self) -> StunReceiver {
        let (tap, receiver) = stun::tap();
        self.stun = Some(tap);
        receiver
    }

    /// Sends through the same sockets from another thread.
    ///
    /// # Errors
    /// When no descriptor is available.
    pub fn transmitter(&self) -> Result<DatagramTx, Error> {
        DatagramTx::of(self).map_err(Error::io("duplicating a UDP socket"))
    }

    /// The port of both.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether there is an IPv6 socket.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.v6.is_some()
    }

    /// The family's descriptor, to wait for.
    #[must_use]
    pub fn fd(&self, family: Family) -> Option<BorrowedFd<'_>> {
        match family {
            Family::V4 => Some(self.v4.as_fd()),
            Family::V6 => self.v6.as_ref().map(Socket::as_fd),
        }
    }

    /// Appends what has arrived for the family to `batch`, by one system call of at most [`MESSAGES`] messages, without a
    /// copy. Returns whether there may be more. `batch` should have room for [`MESSAGE_LEN`] bytes per message; with less
    /// it takes fewer messages.
    ///
    /// # Errors
    /// When the socket is gone. All else is counted.
    pub fn receive(&mut self, family: Family, batch: &mut DatagramBatch, stats: &ShardStats) -> io::Result<bool> {
        let more = match (family, &mut self.v6) {
            (Family::V4, _) => self.v4.receive(batch, stats),
            (Family::V6, Some(v6)) => v6.receive(batch, stats),
            (Family::V6, None) => Ok(false),
        };
        if let Some(tap) = &mut self.stun {
            tap.part(batch, stats);
        }
        more
    }

    /// Sends all datagrams whose path is UDP; neighbours of equal path and length leave by one system call. What cannot be
    /// sent is dropped and counted. Waits for full sockets, for 5 ms per call at most. Returns whether there were others.
    pub fn send(&mut self, batch: &DatagramBatch, stats: &ShardStats) -> bool {
        let mut deadline = None;
        let mut others = false;
        for (bytes, segment, path) in batch.runs(MAX_SEND_SEGMENTS, MAX_SEND) {
            let Path::Udp { remote, local } = path else {
                others = true;
                continue;
            };
            let socket = match (remote, &mut self.v6) {
                (SocketAddr::V4(_), _) => &mut self.v4,
                (SocketAddr::V6(_), Some(v6)) => v6,
                (SocketAddr::V6(_), None) => {
                    stats.dropped(IoDrop::UdpNoSocket, bytes.len().div_ceil(segment.max(1)) as u64);
                    continue;
                }
            };
            let local = local.filter(|local| local.is_ipv4() == remote.is_ipv4());
            send_run(socket, bytes, segment, (*remote, local), stats, &mut deadline);
        }
        others
    }

    /// Has the kernel drop what the filters refuse. After an error there are none.
    pub(crate) fn filter(&self, change: &FilterChange) -> io::Result<()> {
        let FilterChange::Attach(Filters { v4, v6 }) = change else {
            self.unfilter();
            return Ok(());
        };
        let attached = self.v4.attach(v4).and_then(|()| self.v6.as_ref().map_or(Ok(()), |socket| socket.attach(v6)));
        if attached.is_err() {
            self.unfilter();
        }
        attached
    }

    fn unfilter(&self) {
        for socket in std::iter::once(&self.v4).chain(&self.v6) {
            // It fails where there is none.
            _ = socket.detach();
        }
    }

    /// Writes sizes and states of the sockets into `stats`.
    pub(crate) fn describe(&self, stats: &ShardStats) {
        let sockets = || std::iter::once(&self.v4).chain(&self.v6);
        stats.receive_buffer.set(sockets().map(Socket::receive_buffer).min().unwrap_or(0));
        stats.send_buffer.set(sockets().map(Socket::send_buffer).min().unwrap_or(0));
    }
}

/// Sends a run as one, or datagram by datagram where it cannot go as one.
fn send_run(
    socket: &mut Socket,
    bytes: &[u8],
    segment: usize,
    way: (SocketAddr, Option<IpAddr>),
    stats: &ShardStats,
    deadline: &mut Option<Instant>,
) {
    let segmented = socket.segments();
    if bytes.len() > segment && segmented {
        match send_waiting(socket, bytes, segment, way, stats, deadline) {
            Ok(()) => return,
            // Too large for a segment where a single datagram may still go in fragments, or no offload: one by one.
            Err(error) if may_go_singly(&error) => {}
            Err(error) => return stats.dropped(reason(&error), bytes.len().div_ceil(segment) as u64),
        }
    }
    let mut sent = false;
    for datagram in bytes.chunks(segment.max(1)) {
        match send_waiting(socket, datagram, datagram.len(), way, stats, deadline) {
            Ok(()) => sent = true,
            Err(error) => stats.dropped(reason(&error), 1),
        }
    }
    if segmented && !socket.segments() {
        // An address to which nothing can be sent at all says nothing about the offload: a peer could end it for all.
        if sent {
            tracing::warn!("the kernel refuses to segment datagrams: they are sent one by one from now on");
            stats.gso_fallback.set(1);
        } else {
            socket.trust_offload_again();
        }
    }
}

/// Sends and, as long as the batch's time lasts, waits for a full socket. Counts what was sent.
fn send_waiting(
    socket: &mut Socket,
    bytes: &[u8],
    segment: usize,
    way: (SocketAddr, Option<IpAddr>),
    stats: &ShardStats,
    deadline: &mut Option<Instant>,
) -> io::Result<()> {
    loop {
        stats.udp_out.calls.add(1);
        let error = match socket.send(bytes, segment, way, stats) {
            Outcome::Sent => break,
            Outcome::Failed(error) => error,
        };
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error);
        }
        let now = Instant::now();
        let left = deadline.get_or_insert(now + MAX_WAIT).saturating_duration_since(now);
        if left.is_zero() || !socket.wait_writable(left)? {
            return Err(error);
        }
    }
    let count = bytes.len().div_ceil(segment.max(1)) as u64;
    stats.udp_out.packets.add(count);
    stats.udp_out.bytes.add(bytes.len() as u64);
    if count > 1 {
        stats.udp_out.super_packets.add(1);
        stats.udp_out.joined_packets.add(count);
    }
    Ok(())
}

fn may_go_singly(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL | libc::EIO))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn reason(error: &io::Error) -> IoDrop {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS) => IoDrop::UdpBlocked,
        Some(libc::EMSGSIZE) => IoDrop::UdpTooBig,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL) => IoDrop::UdpUnreachable,
        Some(libc::EPERM | libc::EACCES) => IoDrop::UdpDenied,
        Some(libc::ECONNREFUSED) => IoDrop::UdpRefused,
        _ => IoDrop::UdpOther,
    }
}
