//! Packets of layer 3 sent as they are, past the stack.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::check;

/// A packet socket bound to one device of the namespace it was opened in.
pub(crate) struct PacketSocket {
    socket: OwnedFd,
    index: i32,
}

impl PacketSocket {
    /// Opens it in the namespace of the calling thread. It receives nothing.
    pub(crate) fn open(device: &str) -> io::Result<Self> {
        let name = CString::new(device).map_err(io::Error::other)?;
        // SAFETY: a C string that lives through the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: takes numbers only.
        let socket = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: a descriptor that nothing else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        Ok(Self { socket, index: i32::try_from(index).map_err(io::Error::other)? })
    }

    /// Sends one packet, IPv4 or IPv6 by its first byte.
    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<()> {
        let protocol =
            if packet.first().is_some_and(|byte| byte >> 4 == 6) { libc::ETH_P_IPV6 } else { libc::ETH_P_IP };
        // SAFETY: a plain structure of integers.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (protocol as u16).to_be();
        address.sll_ifindex = self.index;
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
}
