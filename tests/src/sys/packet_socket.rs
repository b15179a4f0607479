//! Packets of layer 3 sent as they are, past the stack, and seen as they pass a device.

use std::io;
use std::mem;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};

use super::bpf::interface_index;
use super::check;
use super::socket::{self, send_many};

/// Room for what a capture has not been asked for yet.
const CAPTURE_BYTES: i32 = 64 << 20;

/// A packet socket bound to one device of the namespace it was opened in.
pub(crate) struct PacketSocket {
    socket: OwnedFd,
    index: i32,
    /// Hardware address that [`Self::send_many`] sends to.
    to: Option<[u8; 6]>,
}

impl PacketSocket {
    /// Opens it in the namespace of the calling thread. It receives nothing.
    pub(crate) fn open(device: &str) -> io::Result<Self> {
        let index = i32::try_from(interface_index(device)?).map_err(io::Error::other)?;
        // SAFETY: takes numbers only.
        let socket = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: a descriptor that nothing else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        Ok(Self { socket, index, to: None })
    }

    /// Opens it in the namespace of the calling thread; it sees all that comes and goes.
    pub(crate) fn capture(device: &str) -> io::Result<Self> {
        let this = Self::open(device)?;
        socket::set_option(this.socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, CAPTURE_BYTES)?;
        let address = this.address(libc::ETH_P_ALL, &[]);
        // SAFETY: the address lives through the call and has the length given.
        check(unsafe {
            libc::bind(this.socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32)
        })?;
        Ok(this)
    }

    /// Sends to that hardware address, where a device has such.
    pub(crate) fn towards(self, hardware: [u8; 6]) -> Self {
        Self { to: Some(hardware), ..self }
    }

    /// Sends one packet, IPv4 or IPv6 by its first byte.
    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.send_as(ip_protocol(packet), &[], packet)
    }

    /// Sends one packet of another protocol to a hardware address.
    pub(crate) fn send_as(&self, protocol: i32, to: &[u8], packet: &[u8]) -> io::Result<()> {
        let address = self.address(protocol, to);
        // SAFETY: the buffer and the address live through the call and have the lengths given.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends packets of one family; says how many went.
    pub(crate) fn send_many(&self, packets: &[Vec<u8>]) -> io::Result<usize> {
        let protocol = packets.first().map_or(libc::ETH_P_IP, |packet| ip_protocol(packet));
        let to = self.to.as_ref().map_or(&[][..], |to| to);
        send_many(self.socket.as_fd(), Some(&self.address(protocol, to)), packets)
    }

    /// The next packet that was seen, and whether it left; `None`: no more now.
    pub(crate) fn next(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, bool)>> {
        // SAFETY: a plain structure of integers.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: the buffer and the address live through the call and have the lengths given.
        let received = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
                (&raw mut address).cast(),
                &raw mut length,
            )
        };
        match usize::try_from(received) {
            Ok(received) => Ok(Some((received, address.sll_pkttype == libc::PACKET_OUTGOING))),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error => Err(error),
            },
        }
    }

    fn address(&self, protocol: i32, to: &[u8]) -> libc::sockaddr_ll {
        // SAFETY: a plain structure of integers.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (protocol as u16).to_be();
        address.sll_ifindex = self.index;
        let length = to.len().min(address.sll_addr.len());
        address.sll_addr[..length].copy_from_slice(&to[..length]);
        address.sll_halen = length as u8;
        address
    }
}

fn ip_protocol(packet: &[u8]) -> i32 {
    if packet.first().is_some_and(|byte| byte >> 4 == 6) { libc::ETH_P_IPV6 } else { libc::ETH_P_IP }
}
