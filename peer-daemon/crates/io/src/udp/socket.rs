//! One socket of one address family.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use peer_core::batch::{DatagramBatch, Scatter};
use peer_core::filter::Instruction;
use peer_core::path::Path;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Type};

use crate::stats::{IoDrop, ShardStats};
use crate::{Error, sys};

/// Messages of one receiving system call. With GRO each may be 64 KiB: so many of them stay within half a megabyte, the
/// second level cache of one core.
pub const MESSAGES: usize = 8;
/// Bytes of the largest message.
pub const MESSAGE_LEN: usize = 1 << 16;

/// What we ask of the kernel for each direction: 60 ms of a gigabit. It doubles the figure for its own overhead.
const BUFFER: usize = 8 << 20;
/// How long a source address that the kernel refused is not tried again.
const LOCAL_RETRY: Duration = Duration::from_secs(5);

/// How sending ended.
pub(crate) enum Outcome {
    Sent,
    Failed(io::Error),
}

#[derive(Debug)]
pub(crate) struct Socket {
    socket: socket2::Socket,
    state: UdpSocketState,
    v6: bool,
    /// An address that was ours once, and when the kernel said so.
    lost_local: Option<(IpAddr, Instant)>,
}

impl Socket {
    /// Binds to the unspecified address `ip`.
    pub(crate) fn bind(ip: IpAddr, port: u16) -> Result<Self, Error> {
        let v6 = ip.is_ipv6();
        let (family, domain) = if v6 { ("IPv6", Domain::IPV6) } else { ("IPv4", Domain::IPV4) };
        let failed = |what: &str| Error::io(format!("{what} a UDP socket for {family}"));
        let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).map_err(failed("opening"))?;
        if v6 {
            socket.set_only_v6(true).map_err(failed("setting V6ONLY of"))?;
        }
        socket.bind(&SockAddr::from(SocketAddr::new(ip, port))).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => Error::PortInUse { port, family },
            _ => Error::Io { what: format!("binding UDP port {port} ({family})"), source },
        })?;
        grow(&socket);
        let state = configure(&socket, v6).map_err(failed("configuring"))?;
        Ok(Self { socket, state, v6, lost_local: None })
    }

    /// The same socket for another thread.
    pub(crate) fn duplicate(&self) -> io::Result<(socket2::Socket, UdpSocketState)> {
        let socket = self.socket.try_clone()?;
        let state = configure(&socket, self.v6)?;
        Ok((socket, state))
    }

    pub(crate) fn port(&self) -> Result<u16, Error> {
        let address = self.socket.local_addr().map_err(Error::io("reading the port of a UDP socket"))?;
        Ok(address.as_socket().map_or(0, |address| address.port()))
    }

    /// Bytes, as the kernel counts them.
    pub(crate) fn receive_buffer(&self) -> u64 {
        self.socket.recv_buffer_size().map_or(0, |bytes| bytes as u64)
    }

    /// Bytes, as the kernel counts them.
    pub(crate) fn send_buffer(&self) -> u64 {
        self.socket.send_buffer_size().map_or(0, |bytes| bytes as u64)
    }

    /// Whether the kernel segments for us.
    pub(crate) fn segments(&self) -> bool {
        self.state.max_gso_segments() > 1
    }

    /// Waits until something may be sent. `false`: it took too long.
    pub(crate) fn wait_writable(&self, at_most: Duration) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
        let timeout = Timespec::try_from(at_most).map_err(io::Error::other)?;
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends `bytes` as datagrams of `segment` bytes, from the local address of the way if it still is ours.
    pub(crate) fn send(
        &mut self,
        bytes: &[u8],
        segment: usize,
        (remote, local): (SocketAddr, Option<IpAddr>),
        stats: &ShardStats,
    ) -> Outcome {
        let local = local.filter(|local| !self.is_lost(*local));
        let segment_size = (segment < bytes.len()).then_some(segment);
        let mut transmit = Transmit { destination: remote, ecn: None, contents: bytes, segment_size, src_ip: local };
        let error = match self.state.try_send((&self.socket).into(), &transmit) {
            Ok(()) => return Outcome::Sent,
            Err(error) => error,
        };
        let errno = error.raw_os_error();
        let (Some(lost), Some(libc::EINVAL | libc::ENETUNREACH | libc::EADDRNOTAVAIL)) = (local, errno) else {
            return Outcome::Failed(error);
        };
        // It may be that the source address is not ours any more, which the kernel says with either of these.
        transmit.src_ip = None;
        stats.udp_out.calls.add(1);
        if let Err(error) = self.state.try_send((&self.socket).into(), &transmit) {
            return Outcome::Failed(error);
        }
        stats.source_fallbacks.add(1);
        self.lost_local = Some((lost, Instant::now()));
        if errno == Some(libc::EINVAL) {
            self.trust_offload_again();
        }
        Outcome::Sent
    }

    /// quinn-udp takes EINVAL and EIO for a missing offload, for good. Where they were about something else, a new state
    /// is what makes it forget that.
    pub(crate) fn trust_offload_again(&mut self) {
        if let Ok(state) = configure(&self.socket, self.v6) {
            self.state = state;
        }
    }

    /// Has the kernel drop what the program refuses, before it is queued.
    pub(crate) fn attach(&self, program: &[Instruction]) -> io::Result<()> {
        let program: Vec<_> = program
            .iter()
            .map(|&Instruction { code, if_true, if_false, operand }| SockFilter::new(code, if_true, if_false, operand))
            .collect();
        match self.socket.attach_filter(&program) {
            // It has no room for two at once (`net.core.optmem_max`).
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && self.detach().is_ok() => {
                self.socket.attach_filter(&program)
            }
            result => result,
        }
    }

    /// Takes the program away.
    pub(crate) fn detach(&self) -> io::Result<()> {
        self.socket.detach_filter()
    }

    /// See [`super::Sockets::receive`].
    pub(crate) fn receive(&mut self, batch: &mut DatagramBatch, stats: &ShardStats) -> io::Result<bool> {
        batch.scatter_with(|room, items| {
            let count = (room.len() / MESSAGE_LEN).min(MESSAGES);
            let mut metas = [RecvMeta::default(); MESSAGES];
            let mut chunks = room.chunks_exact_mut(MESSAGE_LEN);
            let mut buffers: [_; MESSAGES] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            stats.udp_in.calls.add(1);
            match self.state.recv((&self.socket).into(), &mut buffers[..count], &mut metas[..count]) {
                Ok(received) => {
                    for (index, meta) in metas[..received].iter().enumerate() {
                        name_datagrams(index * MESSAGE_LEN, meta, items, stats);
                    }
                    Ok(received == count)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBADF | libc::ENOTSOCK)) => Err(error),
                // Word from the network about something sent earlier: the socket lives on.
                Err(_) => {
                    stats.receive_errors.add(1);
                    Ok(true)
                }
            }
        })
    }

    fn is_lost(&self, local: IpAddr) -> bool {
        self.lost_local.is_some_and(|(lost, when)| lost == local && when.elapsed() < LOCAL_RETRY)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Adds the datagrams of one message, which begins at `start` of the room.
fn name_datagrams(start: usize, meta: &RecvMeta, items: &mut Scatter<'_, Path>, stats: &ShardStats) {
    if meta.len == 0 {
        return;
    }
    let path = Path::Udp { remote: without_flow(meta.addr), local: meta.dst_ip.filter(|ip| can_answer_from(*ip)) };
    let stride = if meta.stride == 0 { meta.len } else { meta.stride };
    let mut count = 0;
    for from in (0..meta.len).step_by(stride) {
        let to = (from + stride).min(meta.len);
        if !items.push(start + from..start + to, path) {
            stats.dropped(IoDrop::UdpOverflow, (meta.len - from).div_ceil(stride) as u64);
            break;
        }
        count += 1;
        stats.udp_in.bytes.add((to - from) as u64);
    }
    stats.udp_in.packets.add(count);
    if count > 1 {
        stats.udp_in.super_packets.add(1);
        stats.udp_in.joined_packets.add(count);
    }
}

/// A flow label is no part of an address: with it, every new label would look like a new path.
fn without_flow(mut address: SocketAddr) -> SocketAddr {
    if let SocketAddr::V6(v6) = &mut address {
        v6.set_flowinfo(0);
    }
    address
}

fn can_answer_from(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !broadcast && !ip.is_multicast() && !ip.is_unspecified()
}

/// Buffers beyond the host's limit take CAP_NET_ADMIN; without it, up to the limit.
fn grow(socket: &socket2::Socket) {
    if sockopt::set_socket_recv_buffer_size_force(socket, BUFFER).is_err()
        && let Err(error) = socket.set_recv_buffer_size(BUFFER)
    {
        tracing::debug!("cannot grow the receive buffer: {error}");
    }
    if sockopt::set_socket_send_buffer_size_force(socket, BUFFER).is_err()
        && let Err(error) = socket.set_send_buffer_size(BUFFER)
    {
        tracing::debug!("cannot grow the send buffer: {error}");
    }
}

/// GSO, GRO and source addresses by quinn-udp; but fragments are allowed, as kernel WireGuard does it: QUIC finds the
/// path's MTU by probing, WireGuard does not, and on a path smaller than expected large packets would vanish for good.
fn configure(socket: &socket2::Socket, v6: bool) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(socket.into())?;
    if v6 {
        // Routers do not fragment IPv6: the kernel does, by what they report.
        sockopt::set_ipv6_mtu_discover(socket, sockopt::Ipv6PathMtuDiscovery::WANT)?;
        sys::set_ipv6_dontfrag(socket.as_fd(), false)?;
    } else {
        // No DF, and no trust in reports that anyone can forge: GSO needs a steady MTU.
        sockopt::set_ip_mtu_discover(socket, sockopt::Ipv4PathMtuDiscovery::OMIT)?;
    }
    Ok(state)
}
