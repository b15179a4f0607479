//! What a network card may do for the stack, by the ioctl of ethtool.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use super::check;

const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ifreq`, as far as ethtool reads it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut Value,
    rest: [u64; 2],
}

/// Sends a command with one number to a device of the calling thread's namespace.
pub(crate) fn ethtool(device: &str, command: u32, data: u32) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut value = Value { command, data };
    let mut request = Request { name: [0; libc::IFNAMSIZ], data: &raw mut value, rest: [0; 2] };
    let length = device.len().min(libc::IFNAMSIZ - 1);
    request.name[..length].copy_from_slice(&device.as_bytes()[..length]);
    // SAFETY: both structures live through the call; the kernel reads and writes within them.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) })?;
    Ok(())
}
