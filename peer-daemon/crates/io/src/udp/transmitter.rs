//! Sending from the WireGuard port beside the shard: STUN.

use std::io;
use std::net::{IpAddr, SocketAddr};

use quinn_udp::{Transmit, UdpSocketState};

use super::Sockets;
use super::socket::Socket;

/// Sends single datagrams through the shard's sockets, from any thread. The kernel orders them with the shard's.
#[derive(Debug)]
pub struct DatagramTx {
    v4: Way,
    v6: Option<Way>,
}

#[derive(Debug)]
struct Way {
    socket: socket2::Socket,
    state: UdpSocketState,
}

impl DatagramTx {
    pub(super) fn of(sockets: &Sockets) -> io::Result<Self> {
        let v6 = sockets.v6.as_ref().map(Way::of).transpose()?;
        Ok(Self { v4: Way::of(&sockets.v4)?, v6 })
    }

    /// Sends `bytes` to `remote`; from `local`, if given. It never waits.
    ///
    /// # Errors
    /// `WouldBlock`: the socket is full. Others: the datagram cannot be sent; `local` may not be ours any more.
    pub fn send(&self, remote: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) -> io::Result<()> {
        let way = match (remote, &self.v6) {
            (SocketAddr::V4(_), _) => &self.v4,
            (SocketAddr::V6(_), Some(v6)) => v6,
            (SocketAddr::V6(_), None) => return Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        let src_ip = local.filter(|local| local.is_ipv4() == remote.is_ipv4());
        let transmit = Transmit { destination: remote, ecn: None, contents: bytes, segment_size: None, src_ip };
        way.state.try_send((&way.socket).into(), &transmit)
    }
}

impl Way {
    fn of(socket: &Socket) -> io::Result<Self> {
        let (socket, state) = socket.duplicate()?;
        Ok(Self { socket, state })
    }
}
